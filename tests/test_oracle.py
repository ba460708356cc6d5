"""The oracles: hand-made scenes, and what must hold whatever the detector says."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vfnet_edu.boxes import centerness, iou
from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.evaluation import oracle
from vfnet_edu.evaluation.oracle import Switches, switched
from vfnet_edu.evaluation.scores import candidate_scores
from vfnet_edu.postprocess import Candidates, DetectConfig

TARGETS = [
    {"boxes": torch.tensor([[10.0, 10, 30, 30], [40, 10, 60, 30]]), "labels": torch.tensor([1, 0])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
]
# image 0: two rivals of object 0, the worse one first; a loose box; one rival of object 1; background
BOXES = torch.tensor(
    [
        [[10.0, 10, 30, 24], [10, 10, 30, 29], [20, 20, 40, 40], [41, 10, 60, 30], [70, 70, 90, 90]],
        [[0.0, 0, 10, 10], [5, 5, 20, 20], [0, 0, 1, 1], [2, 2, 9, 9], [50, 50, 60, 60]],
    ]
)
SCORES = torch.tensor(
    [
        [[0.1, 0.9], [0.2, 0.6], [0.1, 0.3], [0.4, 0.5], [0.7, 0.1]],
        [[0.2, 0.1], [0.3, 0.1], [0.1, 0.1], [0.1, 0.2], [0.6, 0.1]],
    ]
)
POINTS = torch.tensor([[20.0, 17], [20, 20], [30, 30], [50, 20], [80, 80]])
OWN = Candidates(SCORES, BOXES, [5])
TRUTH = oracle.by_overlap(BOXES, TARGETS)


def index(targets=TARGETS) -> CocoIndex:
    counts = [len(t["labels"]) for t in targets]
    boxes = torch.cat([t["boxes"] for t in targets]).double().numpy()
    xywh, n = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1), sum(counts)
    sizes = np.full(len(targets), 100)
    return CocoIndex(
        json_path=None,
        root=None,
        image_ids=np.arange(len(targets)) + 7,
        file_names=("",) * len(targets),
        heights=sizes,
        widths=sizes,
        starts=np.cumsum([0, *counts]),
        xywh=xywh,
        labels=torch.cat([t["labels"] for t in targets]).numpy(),
        crowd=np.zeros(n, bool),
        ignore=np.zeros(n, bool),
        areas=xywh[:, 2] * xywh[:, 3],
        annotation_ids=np.arange(n) + 1,
        classes=("a", "b"),
        category_ids=np.array([3, 5]),
    )


def ap(candidates, config=DetectConfig(), rows=()):
    return candidate_scores(candidates, index(), (100, 100), config, rows).numbers["AP"]


def at(scores, row):
    return scores[0, row].tolist()


# ------------------------------------------------------------------ who belongs to which object
def test_a_box_belongs_to_the_object_it_overlaps_most():
    assert TRUTH.objects.tolist() == [[0, 0, 0, 1, -1], [-1] * 5]
    assert TRUTH.labels[0].tolist() == [1, 1, 1, 0, 0]
    assert_close(TRUTH.boxes[0, 3], TARGETS[0]["boxes"][1])
    assert_close(TRUTH.boxes[0, 4], BOXES[0, 4])  # nothing to tell: its own box
    assert_close(TRUTH.ious[0], torch.tensor([0.7, 0.95, 1 / 7, 0.95, 0.0]))
    assert TRUTH.told.sum() == 4


def test_positives_are_whom_the_assigner_chose():
    match = torch.tensor([[-1, 0, -1, 1, -2], [-1, -1, -2, -1, -1]])
    truth = oracle.by_assignment(BOXES, match, TARGETS)
    assert truth.objects.tolist() == [[-1, 0, -1, 1, -1], [-1] * 5]
    assert_close(truth.ious[0], torch.tensor([0.0, 0.95, 0.0, 0.95, 0.0]))


# ------------------------------------------------------------------ one part at a time
def test_table_1_replaces_one_score_and_leaves_the_rest():
    """The example of the authors' issue 13: [0.1, 0.3, 0.6] of class 2 becomes [0.1, 0.3, 1.0]."""
    scores = torch.tensor([[[0.1, 0.3, 0.6], [0.1, 0.3, 0.6]]])
    truth = oracle.Truth(torch.tensor([[0, -1]]), torch.tensor([[2, 0]]), torch.zeros(1, 2, 4), torch.zeros(1, 2))
    assert_close(
        oracle.replace_score(scores, truth, torch.ones(1, 2))[0], torch.tensor([[0.1, 0.3, 1], [0.1, 0.3, 0.6]])
    )


def test_a_score_alone_silences_all_others():
    made = oracle.only_score(SCORES, TRUTH, TRUTH.ious)
    assert at(made, 1) == pytest.approx([0, 0.95]) and at(made, 3) == pytest.approx([0.95, 0]) and at(made, 4) == [0, 0]
    assert (made > 0).sum() == 4
    made = oracle.only_score(SCORES, TRUTH, TRUTH.ious, SCORES.argmax(2))
    assert at(made, 3) == pytest.approx([0, 0.95])  # its own class, which is wrong


def test_to_be_told_the_class():
    made = oracle.tell_class(SCORES, TRUTH)
    assert at(made, 3) == pytest.approx([0.4, 0]) and at(made, 4) == at(SCORES, 4)
    assert_close(made[1], SCORES[1])


def test_rivals_are_sorted_and_nobody_else():
    values = torch.tensor([[0.9, 0.6, 0.99, 0.5, 0.8], [0.1, 0.2, 0.3, 0.4, 0.5]])
    made = oracle.sort_within(values, TRUTH, TRUTH.ious)
    assert_close(made[0], torch.tensor([0.6, 0.9, 0.99, 0.5, 0.8]))  # the loose box keeps its score
    assert_close(made[1], values[1])
    assert_close(made.sort(1).values, values.sort(1).values)  # the same values, in another order


def test_centerness_is_that_of_the_point_in_the_true_box():
    made = oracle.true_centerness(POINTS, TRUTH)
    assert made[0, 0] == pytest.approx((7 / 13) ** 0.5) and made[0, 1] == 1
    assert made[0, 2] == 0 and made[0, 4] == 0  # on the corner; of no object
    assert made.isfinite().all() and (made[1] == 0).all()
    assert_close(made[0, 3], centerness(POINTS[3], TARGETS[0]["boxes"][1]))


# ------------------------------------------------------------------ all switches
def test_nothing_replaced_is_the_detector():
    made = switched(OWN, TRUTH, POINTS, Switches())
    assert_close(made.scores, SCORES)
    assert_close(made.boxes, BOXES)
    assert made.factor is None


@pytest.mark.parametrize("score", ["own", "sorted", "iou", "one"])
@pytest.mark.parametrize("label", ["own", "true"])
def test_switches_agree_with_their_parts(score, label):
    made = switched(OWN, TRUTH, POINTS, Switches(score, label)).scores
    own = SCORES.gather(2, TRUTH.labels[..., None])[..., 0]
    if score in ("iou", "one"):
        values = TRUTH.ious if score == "iou" else (TRUTH.ious >= 0.5).float()
        assert_close(made, oracle.only_score(SCORES, TRUTH, values, SCORES.argmax(2) if label == "own" else None))
    else:
        values = own if score == "own" else oracle.sort_within(own, TRUTH, TRUTH.ious)
        wanted = oracle.replace_score(SCORES, TRUTH, values)
        assert_close(made, oracle.tell_class(wanted, TRUTH) if label == "true" else wanted)


def test_with_true_boxes_there_is_nothing_to_sort():
    for label, center in itertools.product(("own", "true"), ("none", "true")):
        both = [switched(OWN, TRUTH, POINTS, Switches(s, label, "true", center)).scores for s in ("own", "sorted")]
        assert_close(*both)
        both = [switched(OWN, TRUTH, POINTS, Switches(s, label, "true", center)).scores for s in ("iou", "one")]
        assert_close(*both)
    made = switched(OWN, TRUTH, POINTS, Switches(box="true"))
    assert_close(iou(made.boxes, TRUTH.boxes), torch.ones(2, 5))


def test_what_goes_in_stays_as_it_was():
    before = SCORES.clone(), BOXES.clone()
    for switches in itertools.product(("own", "sorted", "iou", "one"), ("own", "true"), ("own", "true")):
        switched(OWN, TRUTH, POINTS, Switches(*switches))
    assert_close((SCORES, BOXES), before)


# ------------------------------------------------------------------ judged
def test_all_the_truth_is_worth_100_ap():
    assert ap(switched(OWN, TRUTH, POINTS, Switches("iou", "true", "true"))) == pytest.approx(1)
    assert ap(switched(OWN, TRUTH, POINTS, Switches())) < 0.7


def test_the_order_of_the_rivals_changes_what_is_kept():
    own, dealt = (ap(switched(OWN, TRUTH, POINTS, Switches(s, "true"))) for s in ("own", "sorted"))
    # class b: the kept rival has IoU 0.70 or 0.95, that is 5 or 10 of the 10 thresholds (0.70 counts as 0.70)
    assert dealt > own


def test_some_of_the_images():
    assert ap(switched(OWN, TRUTH, POINTS, Switches("iou", "true", "true")), rows=[0]) == pytest.approx(1)
    assert ap(switched(OWN, TRUTH, POINTS, Switches()), rows=[1]) == -1  # no object: undefined


def test_memory_decides_nothing_but_ties():
    shuffled = torch.stack([torch.randperm(5, generator=torch.Generator().manual_seed(n)) for n in range(2)])
    assert ap(oracle.reordered(OWN, shuffled)) == pytest.approx(ap(OWN))
    one = switched(OWN, TRUTH, POINTS, Switches("one", "true"))
    best_first, worst_first = (TRUTH.ious.argsort(1, descending=way) for way in (True, False))
    assert ap(oracle.reordered(one, best_first)) > ap(oracle.reordered(one, worst_first))
    with_factor = oracle.reordered(replace_factor(OWN), shuffled)
    assert_close(with_factor.factor, replace_factor(OWN).factor.gather(1, shuffled))


def replace_factor(candidates):
    return candidates._replace(factor=torch.arange(10.0).view(2, 5) / 10)


def test_a_second_of_equal_boxes_is_suppressed_whatever_the_threshold():
    strict = replace(DetectConfig(), nms_iou=0.99)
    assert ap(switched(OWN, TRUTH, POINTS, Switches("iou", "true", "true")), strict) == pytest.approx(1)
