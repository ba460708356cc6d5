"""The bootstrap of AP: every draw equals what COCO's referee says of the images drawn, and its intervals hold."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.evaluation.bootstrap import ap_of_draws, draw, interval, match_once
from vfnet_edu.evaluation.scores import coco_scores


def made_up(seed: int, images: int = 12, crowds: bool = False) -> tuple[CocoIndex, list[dict]]:
    """A data set with three classes, and answers to it: shaken boxes, strangers, doubles, equal scores."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 6, images)
    total = int(counts.sum())
    xywh = np.concatenate([rng.uniform(0, 60, (total, 2)), rng.uniform(12, 40, (total, 2))], 1)
    labels = rng.integers(0, 3, total)
    crowd = rng.random(total) < 0.2 if crowds else np.zeros(total, bool)
    index = CocoIndex(
        Path("made_up.json"), Path(), np.arange(images) * 7 + 3, tuple(f"{n}.png" for n in range(images)),
        np.full(images, 128), np.full(images, 128), np.concatenate([[0], np.cumsum(counts)]), xywh, labels, crowd,
        np.zeros(total, bool), xywh[:, 2] * xywh[:, 3], np.arange(1, total + 1), ("a", "b", "c"), np.array([1, 2, 5]),
    )  # fmt: skip
    boxes = np.concatenate([xywh, xywh, rng.uniform(5, 60, (3 * images, 4))])
    boxes[: 2 * total] += rng.normal(0, 2.5, (2 * total, 4))
    rows = np.concatenate([index.rows, index.rows, rng.integers(0, images, 3 * images)])
    classes = np.concatenate([labels, labels, rng.integers(0, 3, 3 * images)])
    scores = rng.random(len(boxes)).round(2)  # with ties
    results = [
        {"image_id": int(index.image_ids[n]), "category_id": int(index.category_ids[k]), "bbox": box, "score": score}
        for n, k, box, score in zip(rows, classes, boxes.clip(1).tolist(), scores.tolist(), strict=True)
    ]
    return index, results


def by_the_referee(index: CocoIndex, results: list[dict], counts: np.ndarray) -> float:
    """AP of a draw as if it were a data set of its own: an image that was drawn twice is there twice."""
    rows = np.repeat(np.arange(len(index)), counts)
    drawn = index.select(rows)
    fresh = {"image_ids": np.arange(len(rows)), "annotation_ids": np.arange(1, len(drawn.labels) + 1)}
    mine = [{**r, "image_id": n} for n, row in enumerate(rows) for r in results
            if r["image_id"] == index.image_ids[row]]  # fmt: skip
    return coco_scores(dataclasses.replace(drawn, **fresh), mine, engine="pycocotools").numbers["AP"]


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_draw_is_what_the_referee_says_of_it(seed, crowds):
    index, results = made_up(seed, crowds=crowds)
    matched = match_once(index, results)
    counts = np.concatenate([np.ones((1, len(index)), int), draw(len(index), 5, seed)])
    wanted = [by_the_referee(index, results, one) for one in counts]
    assert 0.1 < wanted[0] < 0.9 and len(set(wanted)) == len(wanted)
    np.testing.assert_allclose(ap_of_draws(matched, counts), wanted, rtol=0, atol=1e-12)


def test_the_limit_of_detections_is_the_referees():
    index, results = made_up(3)
    wanted = coco_scores(index, results, max_detections=3, engine="pycocotools").numbers["AP"]
    (ap,) = ap_of_draws(match_once(index, results, 3), np.ones((1, len(index)), int))
    assert ap == pytest.approx(wanted, abs=1e-12)


def test_a_class_that_was_not_drawn_does_not_count():
    index, results = made_up(0)
    counts = np.zeros((3, len(index)), int)
    for r, row in enumerate([int(np.diff(index.starts).argmax()), 0]):
        counts[r, row] = len(index)
    got = ap_of_draws(match_once(index, results), counts)
    assert got[0] == pytest.approx(by_the_referee(index, results, counts[0]), abs=1e-12)
    assert np.isnan(got[2])  # nothing was drawn: undefined


def test_no_answer_at_all():
    index, _ = made_up(0)
    assert ap_of_draws(match_once(index, []), np.ones((2, len(index)), int)).tolist() == [0, 0]


def test_many_draws_in_several_parts(monkeypatch):
    index, results = made_up(1)
    matched, counts = match_once(index, results), draw(len(index), 40)
    whole = ap_of_draws(matched, counts)
    monkeypatch.setattr("vfnet_edu.evaluation.bootstrap.AT_ONCE", 200)
    np.testing.assert_array_equal(ap_of_draws(matched, counts), whole)
    assert len(ap_of_draws(matched, counts[:0])) == 0


def test_draws():
    counts = draw(50, 200, seed=1)
    assert counts.shape == (200, 50) and (counts.sum(1) == 50).all()
    assert (counts == draw(50, 200, seed=1)).all() and (counts != draw(50, 200, seed=2)).any()
    assert (counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)  # a third of the images is left out


def test_the_interval_of_a_mean_is_the_one_of_the_textbook():
    """AP of one box per image, right or wrong with score 1, is a proportion: p +- 1.96 sqrt(p (1 - p) / n)."""
    values = draw(400, 4000, seed=0)[:, :100].sum(1) / 400
    low, high = interval(values)
    half = 1.96 * (0.25 * 0.75 / 400) ** 0.5
    assert low == pytest.approx(0.25 - half, abs=0.006) and high == pytest.approx(0.25 + half, abs=0.006)
    assert interval(np.array([3.0, np.nan, 1.0, 2.0]), level=1.0) == (1.0, 3.0)
