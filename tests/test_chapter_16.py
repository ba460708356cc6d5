"""Chapter 16: its explorer tells what the split says, and its exercises judge by the package's own definitions."""

import base64
import io
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from javascript import in_node
from PIL import Image
from test_errors import BOX, CAT, DOG, FAR, LOOSE, found, index

from vfnet_edu import recipes
from vfnet_edu.bench import errors
from vfnet_edu.evaluation.errors import KINDS, RIGHT, name_errors, split_errors
from vfnet_edu.exercises import chapter_16

pytest.importorskip("anywidget", reason="the explorers need anywidget")
from vfnet_edu.widgets import ErrorExplorer  # noqa: E402
from vfnet_edu.widgets.errors import COLUMNS, TILE, error_bars  # noqa: E402


# ------------------------------------------------------------------ the exercises
def test_the_twelve_are_judged_by_the_library():
    """Each row as two IoUs in an image, with a better box on the first object where it is taken."""
    names = (*KINDS[:5], "right")
    for (own, taken, other), wanted in zip(chapter_16.TWELVE, chapter_16.twelve.reference(), strict=True):
        ious = np.array([[0.9, 0.0], [own, other]][1 - taken :])
        same = np.array([[True, False]] * len(ious))
        kinds, _, _ = name_errors(ious, same)
        assert names[kinds[-1]] == wanted and (not taken or kinds[0] == RIGHT)
    assert set(chapter_16.twelve.reference()) == set(names)


def test_a_fix_is_the_library_s(tmp_path):
    """The ranked list of one class, before and after."""
    data = index(tmp_path, [(CAT, BOX), (CAT, FAR)])
    far = [130, 120, 40, 40]
    rows = found((CAT, LOOSE, 0.9), (CAT, far, 0.8), (CAT, LOOSE, 0.7), (CAT, [90, 0, 9, 9], 0.6), (CAT, FAR, 0.5))
    split = split_errors(data, rows)
    named = [((*KINDS[:5], "right")[k], thing if thing >= 0 else None)
             for k, thing in zip(split.kinds, split.objects.tolist(), strict=True)]  # fmt: skip
    assert [name for name, _ in named] == ["place", "right", "place", "background", "duplicate"]
    for kind in KINDS[:5]:
        hits = chapter_16.fix.reference(named, kind)
        ap = chapter_16.average_precision(hits, 2)
        assert ap == pytest.approx(split.ap50([kind]))


def test_gains_and_their_sum():
    """The examples of the text; and to remove two kinds never gives less than to remove one of them."""
    alone, other, both = chapter_16.gains.reference(["background", "duplicate", "right"], 1)
    assert (alone, other, both) == pytest.approx((1 / 6, 1 / 6, 2 / 3))
    assert chapter_16.gains.reference(["right", "background", "right"], 2) == pytest.approx([0, 0.165, 0.165], abs=1e-3)
    for row in itertools.product(("right", "duplicate", "background"), repeat=4):
        first, second, both = chapter_16.gains.reference(list(row), 4)
        assert both >= first >= 0 and both >= second >= 0


def test_the_recorded_trial_is_two_heads_with_three_seeds():
    record = json.loads(errors.RECORDED.read_text(encoding="utf-8"))
    rows = {(row["variant"], row["seed"]): row for row in record["rows"]}
    assert set(rows) == set(itertools.product(errors.VARIANTS, range(3))) and len(rows) == len(record["rows"])
    for row in rows.values():
        assert set(row["gains"]) == set(row["counts"]) == set(KINDS)
        assert 0 < sum(row["gains"].values()) < 100 - row["AP50"] < 100
    star, none = (errors.short(name, 1, record["epochs"]) for name in errors.VARIANTS)
    assert replace(star, head=none.head) == none  # nothing but the head differs
    assert star.head == recipes.vfnet_tiny().head and not none.head.star and not none.head.refine


# ------------------------------------------------------------------ the explorer
@pytest.fixture
def bars(tmp_path):
    data = index(tmp_path, [(CAT, BOX), (DOG, FAR)])
    Image.new("RGB", (200, 200), (90, 120, 60)).save(tmp_path / "1.png")
    rows = found((DOG, BOX, 0.9), (CAT, BOX, 0.8), (DOG, LOOSE, 0.4), (CAT, [150, 0, 20, 20], 0.3))
    split = split_errors(data, rows)
    return error_bars("VFL", split, most=3), split


def test_bars_are_the_split_s(bars):
    told, split = bars
    assert told["ap50"] == round(100 * split.ap50(), 2)
    assert [one["kind"] for one in told["kinds"]] == list(KINDS)
    for one in told["kinds"]:
        assert one["count"] == split.counts()[one["kind"]]
        assert one["gain"] == round(100 * split.gains[one["kind"]], 2)
        assert len(one["crops"]) == min(one["count"], 3)
    crops = [one for kind in told["kinds"] for one in kind["crops"]]
    assert [one["tile"] for one in crops] == list(range(4))
    sheet = Image.open(io.BytesIO(base64.b64decode(told["sheet"].partition(",")[2])))
    assert sheet.size == (COLUMNS * TILE, TILE)
    assert np.abs(np.asarray(sheet)[50, 50].astype(int) - (90, 120, 60)).max() < 6
    first = crops[0]
    assert first["predicted"] == first["true"] == [0.1429, 0.1429, 0.8571, 0.8571]
    assert (first["says"], first["wanted"], first["iou"]) == ("dog 0.90", "cat", 1)


def test_words(bars):
    told, _ = bars
    say = "words([data], 0, '{}', {})"
    assert in_node("errors", say.format("class", 1), told) == (
        "VFL, AP50 50.0: to fix 1 × class would add 0.00. Number 1: The detector says dog 0.90; it is a cat, "
        "IoU 1.00. The box would do; the class is wrong."
    )
    assert "Number 1: It is a dog. No box" in in_node("errors", say.format("missed", 5), told)
    assert in_node("errors", say.format("duplicate", 1), told).endswith("would add 0.00. There is none to be seen.")
    assert "there is nothing. No object" in in_node("errors", say.format("background", 1), told)
    assert in_node("errors", "[a('ellipse'), a('heart')]") == ["an ellipse", "a heart"]
    assert in_node("errors", "longest([data])", told) == max(one["gain"] for one in told["kinds"])


def test_explorer(bars):
    explorer = ErrorExplorer([bars[0]], kind="missed")
    assert explorer.kind == "missed" and explorer.rank == 1 and explorer.columns == COLUMNS
    with pytest.raises(Exception, match="kind"):
        explorer.kind = "colour"
