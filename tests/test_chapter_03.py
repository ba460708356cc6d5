"""Chapter 3: AP in plain lines is the referee's, the explorer computes the same, the exercises know each mistake."""

import contextlib
import io

import numpy as np
import pytest
import torch
from javascript import in_node
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vfnet_edu.evaluation.average_precision import THRESHOLDS, average_precision, match
from vfnet_edu.exercises import chapter_03
from vfnet_edu.exercises.chapter_03 import HITS, SCORES, effect_of
from vfnet_edu.postprocess import Detections


# ------------------------------------------------------------------ AP
def a_data_set(seed: int):
    """Boxes x, y, w, h of objects and detections of one class in six images, on a coarse grid so that IoUs tie."""
    rng = np.random.default_rng(seed)
    truth = [4 * rng.integers(1, 12, (rng.integers(0, 5), 4)).astype(float) for _ in range(6)]
    found = []
    for boxes in truth:
        near = np.repeat(boxes, 3, 0) + 4 * rng.integers(-1, 2, (3 * len(boxes), 4)) * (rng.random() < 0.9)
        found.append(np.concatenate([near, 4 * rng.integers(1, 12, (3, 4))]).clip(1))
    scores = rng.permutation(sum(map(len, found))) / 100
    return truth, found, np.split(scores, np.cumsum([len(f) for f in found])[:-1])


def coco(boxes, scores=None):
    made = COCO()
    rows = [(i, box, n) for i, each in enumerate(boxes) for n, box in enumerate(each.tolist())]
    made.dataset = {
        "images": [{"id": i} for i in range(len(boxes))],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": k, "image_id": i, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            | ({"score": scores[i][n]} if scores else {})
            for k, (i, box, n) in enumerate(rows, 1)
        ],
    }
    made.createIndex()
    return made


def overlaps(a, b):
    """IoU of boxes x, y, w, h: (D, 4), (G, 4) -> (D, G), in the order of operations of pycocotools."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    inner = (high - low).clip(0).prod(2)
    return inner / (a[:, None, 2:].prod(2) + b[None, :, 2:].prod(2) - inner)


@pytest.mark.parametrize("seed", range(8))
def test_ap_is_the_referee_s(seed):
    truth, found, scores = a_data_set(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(coco(truth), coco(found, scores), "bbox")
        judge.evaluate()
        judge.accumulate()
    theirs = judge.eval["precision"][:, :, 0, 0, 2].mean(1)  # (10,)
    best_first = [np.argsort(-s) for s in scores]
    ious = [overlaps(f[o], t) for f, o, t in zip(found, best_first, truth, strict=True)]
    together = np.argsort(-np.concatenate([s[o] for s, o in zip(scores, best_first, strict=True)]))
    objects = sum(map(len, truth))
    mine = [average_precision(np.concatenate([match(i, t) for i in ious])[together], objects) for t in THRESHOLDS]
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)


def test_ap_of_small_lists():
    assert average_precision([True], 1) == pytest.approx(1) and average_precision([], 3) == 0
    assert average_precision([False, True], 1) == pytest.approx(0.5)
    assert average_precision([True, False], 2) == pytest.approx(51 / 101)  # recalls 0 ... 0.5
    assert match(np.zeros((2, 0)), 0.5).tolist() == [False, False]
    assert match(np.array([[0.5], [0.9]]), 0.5).tolist() == [True, False]


# ------------------------------------------------------------------ the explorer
def entries(n: int = 14, seed: int = 0) -> list[dict]:
    """Boxes of three scenes with two, one and no object; some IoUs are equal."""
    rng = np.random.default_rng(seed)
    scenes = rng.integers(0, 3, n).tolist()
    return [{"scene": s, "score": 1 - i / n, "ious": (rng.integers(0, 11, 2 - s) / 10).tolist()}
            for i, s in enumerate(scenes)]  # fmt: skip


@pytest.mark.parametrize("threshold", [0.5, 0.75, 0.9])
def test_the_explorer_judges_as_python_does(threshold):
    pytest.importorskip("anywidget", reason="the explorers need anywidget")
    from vfnet_edu.widgets import RankedListExplorer

    ranking = {"what": "cross", "objects": 4, "entries": entries()}
    explorer = RankedListExplorer(ranking, threshold=threshold)
    orders = [np.random.default_rng(s).permutation(14).tolist() for s in range(20)]
    got = in_node("ranked_list", "data[1].map((o) => judged(data[0], o, data[2]))", [ranking, orders, threshold])
    for order, mine in zip(orders, got, strict=True):
        explorer.order = order
        assert [word == "right" for word in mine["found"]] == explorer.hits
        assert mine["ap"] == pytest.approx(explorer.ap, abs=1e-12)
        found, places = np.cumsum(explorer.hits), np.arange(1, 15)
        np.testing.assert_allclose(mine["precision"], found / places, atol=1e-12)
        np.testing.assert_allclose(mine["recall"], found / 4, atol=1e-12)


def test_ap_in_javascript_is_ap():
    lists = [(np.random.default_rng(s).random(60) < 0.3).tolist() for s in range(30)]
    got = in_node("ranked_list", "data.map((hits) => curve(hits, 25).ap)", lists)
    np.testing.assert_allclose(got, [average_precision(hits, 25) for hits in lists], rtol=0, atol=1e-12)


def test_a_taken_object_is_told_apart():
    rows = [{"scene": 0, "ious": [0.6]}, {"scene": 0, "ious": [0.9]}, {"scene": 1, "ious": [0.2]}]
    assert in_node("ranked_list", "verdicts(data, [0, 1, 2], 0.5)", rows) == ["right", "taken", "wrong"]
    assert in_node("ranked_list", "verdicts(data, [2, 1, 0], 0.5)", rows) == ["wrong", "right", "taken"]


def test_moving_keeps_the_others_in_order():
    assert in_node("ranked_list", "moved([0, 1, 2, 3], 0, 2)") == [1, 2, 0, 3]
    assert in_node("ranked_list", "moved([0, 1, 2, 3], 3, 0)") == [3, 0, 1, 2]
    assert in_node("ranked_list", "moved([0, 1, 2, 3], 1, 1)") == [0, 1, 2, 3]


def test_the_area_of_the_outline_is_ap_up_to_the_101_points():
    hits = [True, True, False, True, False, False, True]
    steps = in_node("ranked_list", "outline(curve(data, 5))", hits)
    area = sum((x1 - x0) * y1 for (x0, _), (x1, y1) in zip(steps, steps[1:], strict=False))
    assert area == pytest.approx(average_precision(hits, 5), abs=0.01)


def test_words():
    ranking = {
        "what": "cross",
        "objects": 2,
        "entries": [{"scene": s, "ious": [v]} for s, v in ((0, 0.9), (1, 0.1), (2, 0.8))],
    }
    say = "words(data, {}, 0.5)"
    assert in_node("ranked_list", say.format("[0, 1, 2]"), ranking) == (
        "AP 0.83: of 3 boxes 2 are right, and there are 2 objects. This is the detector's own order."
    )
    told = in_node("ranked_list", say.format("[1, 0, 2]"), ranking)
    assert told.endswith(
        "2 boxes stand at other places than the detector put them; AP was 0.83. No box has moved in its picture."
    )
    assert "AP is the same as before" in in_node("ranked_list", say.format("[2, 1, 0]"), ranking)


def test_a_ranked_list_of_detections():
    pytest.importorskip("anywidget", reason="the explorers need anywidget")
    from vfnet_edu.widgets.ranked_list import RankedListExplorer, ranked_list

    target = {"boxes": torch.tensor([[10.0, 10, 40, 40], [50, 50, 60, 60]]), "labels": torch.tensor([1, 0])}
    boxes = torch.tensor([[10.0, 10, 40, 40], [50, 50, 60, 60], [12, 10, 40, 40]])
    found = Detections(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 0, 1]))
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    ranking = ranked_list([(image, target)] * 2, [found] * 2, 1, ("a", "b"), most=3)
    assert ranking["what"] == "b" and ranking["objects"] == 2
    assert [(e["scene"], e["score"]) for e in ranking["entries"]] == [(0, 0.9), (1, 0.9), (0, 0.7)]
    assert ranking["entries"][0]["ious"] == [1.0]
    assert all(0 <= v <= 1 for e in ranking["entries"] for v in e["box"])
    assert all(e["image"].startswith("data:image/jpeg;base64,") for e in ranking["entries"])
    explorer = RankedListExplorer(ranking)
    assert explorer.hits == [True, True, False] and explorer.ap == pytest.approx(1)
    explorer.order = [2, 0, 1]
    assert explorer.hits == [True, False, True] and explorer.ap == pytest.approx((51 + 50 * 2 / 3) / 101)


# ------------------------------------------------------------------ the exercises
ANSWERS = {  # what a reader may write for halve_ap, and what becomes of AP
    "halved": (lambda scores, hits: [s / 2 for s in scores], chapter_03.ORDER),
    "zeros": (lambda scores, hits: [0] * 10, chapter_03.TIES),
    "reversed": (lambda scores, hits: [1 - s for s in scores], chapter_03.REVERSED),
    "sorted": (lambda scores, hits: sorted(scores), chapter_03.REVERSED),
    "places": (lambda scores, hits: [2, 4, 5, 6, 7, 9, 0, 1, 3, 8], chapter_03.PLACES),
    "hits first": (lambda scores, hits: hits, chapter_03.ROSE),
    "left out": (lambda scores, hits: [s for s, hit in zip(scores, hits, strict=True) if hit], chapter_03.LENGTH),
    "two of a kind": (lambda scores, hits: [scores[1], scores[0], *scores[2:]], chapter_03.SAME),
    "first one last": (lambda scores, hits: [0, *scores[1:]], chapter_03.FELL),
    "text": (lambda scores, hits: ["a"] * 10, chapter_03.NUMBERS),
    "no number": (lambda scores, hits: [float("nan")] * 10, chapter_03.NUMBERS),
    "one value": (lambda scores, hits: 0.5, chapter_03.NUMBERS),
    "nothing": (lambda scores, hits: None, None),
    "wrong ones first": (lambda scores, hits: [1 - hit for hit in hits], chapter_03.HALF),
    "a tensor": (lambda scores, hits: torch.tensor(scores) - 2 * torch.tensor(hits), chapter_03.HALF),
    "an array": (lambda scores, hits: np.where(hits, 0, scores), chapter_03.HALF),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_new_scores_do_to_ap(name):
    answer, effect = ANSWERS[name]
    assert effect_of(answer)(SCORES, HITS) == effect


def test_halve_ap_speaks(capsys, monkeypatch):
    monkeypatch.delenv("VFNET_EDU_STRICT", raising=False)
    for answer in (lambda scores, hits: [-s for s in scores], lambda scores, hits: [-hit for hit in hits], 3, None):
        chapter_03.halve_ap(answer)
    turned, right, *no_function = capsys.readouterr().out.splitlines()
    assert turned.startswith("Not yet. This turns the list around.") and right.startswith("Right. All six wrong boxes")
    assert all("Give the function itself" in line for line in no_function)


def test_the_numbers_that_the_exercise_tells():
    kept, wrong_first = average_precision(HITS, 4), average_precision(sorted(HITS), 4)
    assert f"{kept:.2f} {wrong_first:.2f} {average_precision(HITS[::-1], 4):.2f}" == "0.80 0.40 0.43"
    assert wrong_first <= kept / 2
