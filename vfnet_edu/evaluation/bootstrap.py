"""How far can AP be trusted?  The images are drawn again, with replacement, and AP is computed anew: the bootstrap.

Which detection is right does not depend on the other images.  So everything is matched once, and a draw only counts
each image as often as it was drawn: thousands of draws in seconds.  Derived in chapter 17.

Source: Efron 1979 (bootstrap); the protocol is COCO's, :mod:`vfnet_edu.evaluation.average_precision` in short.
"""

from typing import NamedTuple

import numpy as np
import torch

from vfnet_edu.boxes import iof, iou, xywh_to_xyxy
from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.evaluation.average_precision import RECALLS, THRESHOLDS, match

AT_ONCE = 4_000_000  # numbers in memory: draws x detections


class Matched(NamedTuple):
    """One class: D detections of N images, highest score first, and what each of the 10 IoU thresholds says."""

    images: np.ndarray  # (D,) int64, the image of each
    hits: np.ndarray  # (10, D) bool: right
    misses: np.ndarray  # (10, D) bool: wrong; what lies on a crowd is neither
    objects: np.ndarray  # (N,) int64, to be found in each image


def match_once(truth: CocoIndex, results: list[dict], max_detections: int = 100) -> list[Matched]:
    """All verdicts, class by class, as pycocotools gives them for objects of all sizes.

    Args:
        truth: the data set, N images.
        results: COCO results with its ids, see :func:`vfnet_edu.evaluation.scores.coco_scores`.
        max_detections: per image and class, best first.
    """
    row_of = {image: n for n, image in enumerate(truth.image_ids.tolist())}
    places: dict[tuple[int, int], list[int]] = {}  # (category, image) -> which results
    for i, result in enumerate(results):
        places.setdefault((result["category_id"], row_of[result["image_id"]]), []).append(i)
    scores = np.array([result["score"] for result in results])
    boxes = xywh_to_xyxy(np.array([result["bbox"] for result in results], float).reshape(-1, 4))

    found = []
    for label, category in enumerate(truth.category_ids.tolist()):
        mine = truth.labels == label
        pieces = []  # of one image each: images, scores, hits, misses
        for n in np.argsort(truth.image_ids, kind="stable").tolist():  # as the referee goes
            these = places.get((category, n))
            if these is None:
                continue
            these = np.array(these)[np.argsort(-scores[these], kind="stable")][:max_detections]
            objects = slice(truth.starts[n], truth.starts[n + 1])
            of_class, crowd = xywh_to_xyxy(truth.xywh[objects][mine[objects]]), truth.crowd[objects][mine[objects]]
            hits, misses = _verdicts(boxes[these], of_class, crowd)
            pieces.append((np.full(len(these), n), scores[these], hits, misses))
        counted = np.bincount(truth.rows[mine & ~truth.crowd], minlength=len(truth))
        found.append(_sorted(pieces, counted))
    return found


def _verdicts(boxes: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hits and misses (10, D) of the boxes (D, 4), best first, of one image and class with objects (G, 4)."""
    mine, truth = torch.from_numpy(boxes)[:, None], torch.from_numpy(objects)  # (D, 1, 4), (G, 4)
    overlap = iou(mine, truth[~crowd]).numpy()  # (D, objects that are no crowd)
    hits = np.stack([match(overlap, t) for t in THRESHOLDS])
    on_crowd = iof(mine, truth[crowd]).numpy().max(1, initial=0.0)  # (D,) the part of each that lies on a crowd
    return hits, ~hits & (on_crowd < THRESHOLDS[:, None])


def _sorted(pieces: list[tuple], objects: np.ndarray) -> Matched:
    """The pieces of all images as one list, highest score first; of equal scores the earlier image."""
    if not pieces:
        none = np.zeros((len(THRESHOLDS), 0), bool)
        return Matched(np.zeros(0, np.int64), none, none, objects)
    images, scores, hits, misses = (np.concatenate(part, axis=-1) for part in zip(*pieces, strict=True))
    order = np.argsort(-scores, kind="stable")
    return Matched(images[order], hits[:, order], misses[:, order], objects)


# ------------------------------------------------------------------ drawing images again
def draw(images: int, draws: int, seed: int = 0) -> np.ndarray:
    """How often each image is drawn: (draws, images) counts, `images` in every draw."""
    chances = np.full(images, 1 / images)
    return np.random.default_rng(seed).multinomial(images, chances, size=draws)


def ap_of_draws(matched: list[Matched], counts: np.ndarray) -> np.ndarray:
    """AP of every draw, in [0, 1]; NaN where it has no object.  Used in chapter 17.

    An image that was drawn twice counts twice: two hits where it has one, two objects to be found.

    Args:
        matched: see :func:`match_once`.
        counts: (R, N) how often each image counts; all ones: the data set itself.

    Returns:
        (R,) float64: mean over thresholds, and over the classes that the draw has objects of.
    """
    several = max(1, AT_ONCE // max([1, *(len(one.images) for one in matched)]))
    parts = [_of_classes(matched, counts[i : i + several]) for i in range(0, len(counts), several)]
    return np.concatenate([np.zeros(0), *parts])


def _of_classes(matched: list[Matched], counts: np.ndarray) -> np.ndarray:
    total, classes = np.zeros(len(counts)), np.zeros(len(counts), int)
    for one in matched:
        objects = counts @ one.objects  # (R,)
        known = objects > 0
        total[known] += _of_class(one, counts[known], objects[known])
        classes += known
    return np.divide(total, classes, where=classes > 0, out=np.full(len(counts), np.nan))


def _of_class(one: Matched, counts: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(R,) AP of one class, mean over thresholds.  Only at a hit does recall grow, so only hits are looked at."""
    times = counts[:, one.images]  # (R, D)  how often each detection counts
    every = np.cumsum(times, 1)
    total = np.zeros(len(counts))
    for hits, misses in zip(one.hits, one.misses, strict=True):
        counted, at = hits | misses, np.flatnonzero(hits)  # (D,), (H,)
        answered = (every if counted.all() else np.cumsum(times * counted, 1))[:, at]  # (R, H)
        found = np.cumsum(times[:, at], 1)  # (R, H)
        precision, recall = found / np.maximum(answered, 1), found / objects[:, None]
        filled = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]  # no teeth
        filled = np.concatenate([filled, np.zeros((len(filled), 1))], 1)  # 0: never reached
        for r, reached in enumerate(recall):
            total[r] += filled[r, np.searchsorted(reached, RECALLS)].mean()  # first to reach each of 101
    return total / len(THRESHOLDS)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The middle part of the draws, between the quantiles (1 - level) / 2 and (1 + level) / 2 (chapter 17)."""
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
