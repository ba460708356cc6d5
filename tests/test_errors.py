"""The error split: a hand-made case for each kind, a plain second opinion, and what holds whatever is detected."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_evaluate import scene, written

from vfnet_edu.data.coco import CocoIndex, read_coco
from vfnet_edu.evaluation.errors import (
    BACKGROUND,
    BOTH,
    CLASS,
    DUPLICATE,
    IGNORED,
    KINDS,
    PLACE,
    RIGHT,
    name_errors,
    split_errors,
)  # fmt: skip
from vfnet_edu.evaluation.scores import coco_scores
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.viz import plots
from vfnet_edu.viz.error_crops import crop, draw_worst

CAT, DOG = 1, 2  # category ids


def index(tmp_path, objects, images=1) -> CocoIndex:
    """`objects` are (category, box) or (category, box, crowd), all in image 1."""
    annotations = [
        {"id": n, "image_id": 1, "category_id": category, "bbox": box, "iscrowd": int(bool(crowd))}
        for n, (category, box, *crowd) in enumerate(objects, 1)
    ]
    pictures = [{"id": i, "file_name": f"{i}.png", "width": 200, "height": 200} for i in range(1, images + 1)]
    categories = [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}]
    data = {"images": pictures, "categories": categories, "annotations": annotations}
    return read_coco(written(tmp_path, data), tmp_path)


def found(*rows):
    """`rows` are (category, box, score), all in image 1."""
    return [{"image_id": 1, "category_id": c, "bbox": box, "score": score} for c, box, score in rows]


BOX, FAR = [10, 10, 40, 40], [120, 120, 40, 40]
HALF = [10, 10, 40, 20]  # IoU with BOX 0.5
LOOSE = [30, 10, 40, 40]  # 1/3
TOUCH = [46, 10, 40, 40]  # 0.05


# ------------------------------------------------------------------ one case for each kind
@pytest.mark.parametrize(
    ("category", "box", "kind"),
    [
        (CAT, BOX, RIGHT),
        (CAT, HALF, RIGHT),  # 0.5 is enough
        (CAT, LOOSE, PLACE),
        (DOG, BOX, CLASS),
        (DOG, HALF, CLASS),
        (DOG, LOOSE, BOTH),
        (DOG, TOUCH, BACKGROUND),
        (CAT, TOUCH, BACKGROUND),
        (CAT, FAR, BACKGROUND),
    ],
)
def test_one_detection(tmp_path, category, box, kind):
    split = split_errors(index(tmp_path, [(CAT, BOX)]), found((category, box, 0.9)))
    assert split.kinds.tolist() == [kind]
    assert split.objects.tolist() == [-1 if kind == BACKGROUND else 0]
    near = {tuple(BOX): 1, tuple(HALF): 0.5, tuple(LOOSE): 1 / 3, tuple(TOUCH): 160 / 3040, tuple(FAR): 0}
    assert split.ious[0] == pytest.approx(near[tuple(box)])
    assert split.missed.tolist() == [kind in (BOTH, BACKGROUND)]
    assert split.cures.tolist() == [kind in (PLACE, CLASS)]
    counts = dict.fromkeys(KINDS, 0) | ({} if kind == RIGHT else {KINDS[kind]: 1})
    assert split.counts() == counts | {"missed": int(kind in (BOTH, BACKGROUND))}


def test_the_second_box_on_an_object_is_a_duplicate_even_if_it_fits_better(tmp_path):
    split = split_errors(index(tmp_path, [(CAT, BOX)]), found((CAT, BOX, 0.3), (CAT, HALF, 0.8)))
    assert split.found.scores.tolist() == [0.8, 0.3]
    assert split.kinds.tolist() == [RIGHT, DUPLICATE] and split.objects.tolist() == [0, 0]
    assert not split.missed.any()


def test_the_order_of_the_tests(tmp_path):
    """Too far from its own class, on top of another: a matter of place, as in the published tool."""
    beside = [30, 10, 40, 40]
    split = split_errors(index(tmp_path, [(CAT, BOX), (DOG, beside)]), found((CAT, beside, 0.9)))
    assert split.kinds.tolist() == [PLACE] and split.objects.tolist() == [0]
    assert split.missed.tolist() == [False, True]
    # a second box of the cat's on a spot where a dog lies too: its class is blamed before it is called a duplicate
    split = split_errors(index(tmp_path, [(CAT, BOX), (DOG, BOX)]), found((CAT, BOX, 0.9), (CAT, BOX, 0.8)))
    assert split.kinds.tolist() == [RIGHT, CLASS] and split.objects.tolist() == [0, 1]


def test_a_crowd_counts_neither_way(tmp_path):
    """Nothing on it is an error unless it is of another class, and it is never missed."""
    data = index(tmp_path, [(CAT, [0, 0, 100, 100], True), (CAT, FAR)])
    split = split_errors(data, found((CAT, BOX, 0.9), (DOG, BOX, 0.8), (CAT, [90, 0, 40, 40], 0.7), (CAT, FAR, 0.1)))
    assert split.kinds.tolist() == [IGNORED, BACKGROUND, BACKGROUND, RIGHT]
    assert split.objects.tolist() == [-1, -1, -1, 1] and not split.missed.any()
    assert split.ap50() == 0.5 and split.ap50(["background"]) == 1


def test_an_object_is_cured_once_by_the_surest_of_its_errors(tmp_path):
    rows = (DOG, BOX, 0.9), (CAT, LOOSE, 0.8), (CAT, [12, 30, 40, 40], 0.7)
    split = split_errors(index(tmp_path, [(CAT, BOX)]), found(*rows))
    assert split.kinds.tolist() == [CLASS, PLACE, PLACE] and split.cures.tolist() == [True, False, False]
    assert split.ap50() == 0 and split.ap50(["class"]) == 1  # the wrong class was the surest
    assert split.ap50(["place"]) == 0  # both are removed: the class error would have found the object
    split = split_errors(index(tmp_path, [(CAT, BOX)]), found(rows[1], rows[2], (CAT, BOX, 0.1)))
    assert not split.cures.any()  # it is found already
    assert split.ap50() == pytest.approx(1 / 3) and split.ap50(["place"]) == 1


def test_fixing_by_hand(tmp_path):
    """Two objects, and the AP50 of each fix worked out on paper."""
    data = index(tmp_path, [(CAT, BOX), (CAT, FAR), (DOG, [60, 120, 40, 40])])
    split = split_errors(data, found((CAT, [0, 150, 20, 20], 0.9), (CAT, BOX, 0.8), (CAT, [10, 12, 40, 40], 0.7)))
    assert split.counts() == dict(zip(KINDS, (0, 0, 0, 1, 1, 2), strict=True))
    half = 51 / 101  # recall 0, 0.01, ... 0.5
    assert split.ap50() == pytest.approx(half * 0.5 / 2)  # the dog's class has 0
    gains = split.gains
    assert gains["background"] == pytest.approx(half * 0.5 / 2)
    assert gains["duplicate"] == gains["class"] == gains["place"] == gains["both"] == 0
    assert split.ap50(["missed"]) == 0.5  # one cat of one, second in its list; nobody asks for dogs
    assert split.ap50(["missed", "background"]) == 1


def test_which_to_look_at_first(tmp_path):
    data = index(tmp_path, [(CAT, [150, 0, 10, 10]), (CAT, BOX)], images=2)
    rows = found((CAT, FAR, 0.2), (CAT, [90, 0, 9, 9], 0.6), (DOG, FAR, 0.4)) + [
        {"image_id": 2, "category_id": CAT, "bbox": BOX, "score": 0.5}
    ]
    split = split_errors(data, rows)
    assert split.found.scores[split.worst("background")].tolist() == [0.6, 0.5, 0.4, 0.2]
    assert split.found.rows[split.worst("background", 2)].tolist() == [0, 1]
    assert split.worst("missed").tolist() == [1, 0]  # the larger object first
    assert not len(split.worst("both"))


# ------------------------------------------------------------------ whatever is detected
@pytest.fixture(params=range(8))
def any_split(tmp_path, request):
    data, results = scene(request.param)
    rng = np.random.default_rng(request.param)
    for result in results[::3]:
        result["category_id"] = int(rng.choice([7, 18, 44, 90]))
        result["bbox"] = [float(v) for v in np.abs(result["bbox"] + rng.normal(0, 15, 4))]
    truth = read_coco(written(tmp_path, data), tmp_path)
    return split_errors(truth, results), results


def test_ap50_is_cocos(any_split):
    split, results = any_split
    assert split.ap50() == pytest.approx(coco_scores(split.index, results).numbers["AP50"], abs=1e-12)


def test_everything_fixed_is_exactly_100(any_split):
    split, _ = any_split
    assert split.ap50(KINDS) == 1


def test_no_fix_lowers_ap50_alone_or_after_others(any_split):
    split, _ = any_split
    value = {fixed: split.ap50(fixed) for n in range(7) for fixed in itertools.combinations(KINDS, n)}
    for fixed, kind in itertools.product(value, KINDS):
        if kind not in fixed:
            more = tuple(k for k in KINDS if k in (*fixed, kind))
            assert value[more] >= value[fixed] - 1e-12, (fixed, kind)
    assert split.gains == {kind: value[(kind,)] - value[()] for kind in KINDS}
    assert min(split.gains.values()) >= 0


def test_each_detection_has_one_kind_and_each_object_one_fate(any_split):
    split, results = any_split
    assert len(split) == len(results) == np.isin(split.kinds, range(-2, 5)).sum()
    counts = split.counts()
    outcomes = (split.kinds == RIGHT).sum() + (split.kinds == IGNORED).sum()
    assert sum(counts.values()) - counts["missed"] + outcomes == len(results)
    found_once, cured = split.objects[split.kinds == RIGHT], split.objects[split.cures]
    fates = np.concatenate([found_once, cured, np.flatnonzero(split.missed), np.flatnonzero(split.index.crowd)])
    assert sorted(fates.tolist()) == list(range(len(split.index.labels)))
    assert set(split.kinds[split.cures].tolist()) <= {CLASS, PLACE}


def second_opinion(ious, same):
    """The published definitions, one detection at a time, without a table of tests."""
    free, kinds = set(range(ious.shape[1])), []
    for d in range(len(ious)):
        mine = [g for g in free if same[d, g] and ious[d, g] >= 0.5]
        if mine:
            free.remove(max(mine, key=lambda g: (ious[d, g], g)))
        kinds.append(RIGHT if mine else None)
    for d in range(len(ious)):
        own = max((ious[d, g] for g in range(ious.shape[1]) if same[d, g]), default=0)
        other = max((ious[d, g] for g in range(ious.shape[1]) if not same[d, g]), default=0)
        if kinds[d] is not None:
            continue
        if 0.1 <= own < 0.5:
            kinds[d] = PLACE
        elif other >= 0.5:
            kinds[d] = CLASS
        elif own >= 0.5:
            kinds[d] = DUPLICATE
        else:
            kinds[d] = BACKGROUND if max(own, other) <= 0.1 else BOTH
    return kinds


@pytest.mark.parametrize("seed", range(40))
def test_the_tests_are_those_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    ious = rng.choice([0, 0.05, 0.1, 0.2, 0.45, 0.5, 0.7, 0.7, 0.9], (30, rng.integers(0, 6)))
    same = rng.random(ious.shape) < 0.5
    kinds, objects, with_it = name_errors(ious, same)
    assert kinds.tolist() == second_opinion(ious, same)
    told = objects >= 0
    np.testing.assert_array_equal(with_it[told], ious[told, objects[told]])
    assert (told == (kinds != BACKGROUND)).all()


# ------------------------------------------------------------------ nothing there, and bad input
def test_nothing_found_and_nothing_to_find(tmp_path):
    nothing = split_errors(index(tmp_path, [(CAT, BOX), (DOG, FAR)]), [])
    assert nothing.ap50() == 0 and nothing.counts()["missed"] == 2 and nothing.ap50(KINDS) == 1
    assert nothing.gains == dict.fromkeys(KINDS, 0) | {"missed": 1}
    empty = split_errors(index(tmp_path, []), found((CAT, BOX, 0.5)))
    assert empty.kinds.tolist() == [BACKGROUND]
    crowds = split_errors(index(tmp_path, [(CAT, BOX, True)]), found((CAT, BOX, 0.5)))
    for split in (empty, crowds):  # undefined, as in COCO
        assert split.ap50() == split.ap50(KINDS) == -1 and set(split.gains.values()) == {0}


def test_a_hundred_of_each_image_and_class(tmp_path):
    data = index(tmp_path, [(CAT, BOX), (DOG, FAR)])
    rows = [(CAT, [150, 10, 20, 20], 0.5 + n / 1000) for n in range(100)] + [(CAT, BOX, 0.4), (DOG, FAR, 0.3)]
    split = split_errors(data, found(*rows))
    assert len(split) == 101 and split.counts()["missed"] == 1  # the right cat is the 101st
    assert split.ap50() == coco_scores(data, found(*rows)).numbers["AP50"] == 0.5


def test_bad_input(tmp_path):
    data = index(tmp_path, [(CAT, BOX)])
    with pytest.raises(UserError, match=r"no kind of error is called 'clas'.*they are class, place"):
        split_errors(data, []).ap50(["clas"])
    with pytest.raises(UserError, match=r"results\[0\]") as caught:
        split_errors(data, found((CAT, [0, 0, float("nan"), 1], 0.5)))
    assert caught.value.code == Exit.DIVERGED
    with pytest.raises(UserError, match="the results are of other images: 1 is not in"):
        split_errors(replace(data, image_ids=np.array([77])), found((CAT, BOX, 0.5)))


# ------------------------------------------------------------------ in the report
def test_bars_and_crops_of_the_report(tmp_path):
    data = index(tmp_path, [(CAT, BOX), (DOG, FAR)])
    Image.new("RGB", (200, 200), "gray").save(tmp_path / "1.png")
    split = split_errors(data, found((DOG, BOX, 0.9), (CAT, BOX, 0.8), (CAT, [190, 0, 10, 10], 0.3)))
    assert split.counts() == dict(zip(KINDS, (1, 0, 0, 0, 1, 1), strict=True))
    assert plots.error_bars(split).get_title(loc="left") == "AP50 is 50.0; fixing “missed” would add 50.0"
    wrong = crop(split, "class", 0)
    assert wrong.pixels.shape == (56, 56, 3) and wrong.predicted == wrong.true == [8, 8, 48, 48]
    assert (wrong.says, wrong.wanted, wrong.iou) == ("dog 0.90", "cat", 1)
    nothing = crop(split, "background", split.worst("background")[0])
    assert nothing.pixels.shape == (24, 24, 3) and nothing.true is None and nothing.wanted == ""
    assert nothing.predicted == [14, 0, 24, 10]  # the square stays inside the image
    missed = crop(split, "missed", split.worst("missed")[0])
    assert missed.predicted is None and (missed.says, missed.wanted) == ("", "dog")
    figure = draw_worst(split, per_kind=2)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[1] == "" and titles[0].endswith("says dog 0.90\nis cat, IoU 1.00")
    assert titles[2].endswith("says cat 0.30\nis no object") and titles[4].endswith("says nothing\nis dog")
    assert not draw_worst(split_errors(data, found((CAT, BOX, 0.9), (DOG, FAR, 0.8)))).axes[0].images
