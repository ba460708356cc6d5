"""The rank correlation of score and IoU, and the bounded sample it is computed from."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vfnet_edu.evaluation.calibration import Calibration, Pairs, score_iou_pairs, spearman

few_values = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=40)


@settings(max_examples=60, deadline=None)
@given(few_values)
def test_spearman_equals_scipy_with_ties(values):
    stats = pytest.importorskip("scipy.stats")
    x, y = torch.tensor(values).float().unbind(1)
    ours = spearman(x, y)
    if len(x.unique()) == 1 or len(y.unique()) == 1:
        assert math.isnan(ours)  # undefined, as in scipy, but without its warning
    else:
        assert ours == pytest.approx(stats.spearmanr(x.numpy(), y.numpy()).statistic, abs=1e-12)


def test_spearman_of_nothing_is_nan():
    assert math.isnan(spearman(torch.empty(0), torch.empty(0)))
    assert math.isnan(spearman(torch.ones(1), torch.ones(1)))


def test_pairs_are_every_overlapping_box_with_the_score_of_the_objects_class():
    target = {"boxes": torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]]), "labels": torch.tensor([1, 0])}
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [21, 0, 31, 10], [50, 50, 60, 60], [0, 0, 2, 10]])
    scores = torch.tensor([[0.1, 0.9], [0.2, 0.0], [0.8, 0.3], [0.5, 0.5], [0.4, 0.6]])
    pairs = score_iou_pairs(scores, boxes, target)
    assert pairs.objects.tolist() == [0, 0, 1]
    torch.testing.assert_close(pairs.scores, torch.tensor([0.9, 0.0, 0.8]))  # a score of 0 is in: no selection by score
    torch.testing.assert_close(pairs.ious, torch.tensor([1.0, 0.5, 9 / 11]))


def test_image_without_objects_has_no_pairs():
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    assert len(score_iou_pairs(torch.rand(5, 2), torch.rand(5, 4), target).scores) == 0


def some_pairs(index, count=50):
    generator = torch.Generator().manual_seed(1000 + index)
    ious = torch.rand(count, generator=generator)
    scores = (ious + 0.3 * torch.randn(count, generator=generator)).clamp(0, 1)
    return Pairs(scores, ious, torch.arange(count) % 3)


def gathered(indices, size):
    calibration = Calibration(size)
    for index in indices:
        calibration.add(index, some_pairs(index))
    return calibration


def test_sample_is_bounded_and_the_same_in_any_order_and_over_processes():
    one = gathered(range(20), 200)
    backwards = gathered(reversed(range(20)), 200)
    ranks = gathered(range(0, 20, 2), 200)
    ranks.merge(gathered([*range(1, 20, 2), 0], 200))  # image 0 is padding, counted once
    assert len(one) == 200
    for other in (backwards, ranks):
        assert torch.equal(one.scores, other.scores) and torch.equal(one.ious, other.ious)
        assert other.within_object() == pytest.approx(one.within_object(), abs=1e-12)


def test_sample_agrees_with_all_pairs():
    assert gathered(range(200), 2000).spearman() == pytest.approx(gathered(range(200), 10**9).spearman(), abs=0.03)


def test_within_object_is_blind_to_differences_between_objects():
    calibration = Calibration()
    iou = torch.tensor([0.4, 0.6, 0.8])
    scores = torch.cat([0.1 * iou, 1 - 0.1 * iou])  # rises with the IoU in object 0, falls in object 1
    calibration.add(0, Pairs(scores, iou.repeat(2), torch.tensor([0, 0, 0, 1, 1, 1])))
    assert calibration.within_object() == pytest.approx(0.0)
    assert math.isnan(Calibration().within_object())


def test_reliability_of_a_perfect_score_is_the_diagonal():
    calibration = Calibration()
    values = torch.linspace(0, 1, 1001)
    calibration.add(0, Pairs(values, values, torch.zeros(1001, dtype=torch.long)))
    middle, mean, count = calibration.reliability()
    torch.testing.assert_close(mean, middle, atol=2e-3, rtol=0)
    assert count.sum() == 1001
