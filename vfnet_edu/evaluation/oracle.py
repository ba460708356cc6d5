"""What is each part of a detector worth?  Its answers are replaced by the truth, one part at a time, and judged again.

Derived in chapter 8.  Source: paper, table 1; how the authors made it is told in their repository, issues 3 and 13.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vfnet_edu.assigners import matched_truth
from vfnet_edu.boxes import centerness, iou, xyxy_to_ltrb
from vfnet_edu.postprocess import Candidates

HIT = 0.5  # COCO's lowest threshold: a box with this IoU or more can count as found


class Truth(NamedTuple):
    """What each of P predictions of B images ought to have said; those that belong to no object are left alone."""

    objects: Tensor  # (B, P) int64, object of the image, -1: none
    labels: Tensor  # (B, P) int64, its class; 0 where none
    boxes: Tensor  # (B, P, 4) xyxy, its box; the predicted one where none
    ious: Tensor  # (B, P) IoU of the predicted box and its object; 0 where none

    @property
    def told(self) -> Tensor:
        """(B, P) bool: belongs to an object"""
        return self.objects >= 0


# ------------------------------------------------------------------ who belongs to which object
def by_overlap(boxes: Tensor, targets: Sequence[dict[str, Tensor]]) -> Truth:
    """A predicted box belongs to the object that it overlaps most, if it overlaps any.

    Args:
        boxes: (B, P, 4) predicted, xyxy.
        targets: one ``{"boxes": (G, 4), "labels": (G,)}`` per image.
    """
    objects = torch.full(boxes.shape[:2], -1)
    for n, target in enumerate(targets):
        if len(target["boxes"]):
            overlap, which = iou(boxes[n][:, None], target["boxes"]).max(1)  # (P, G) -> (P,), (P,)
            objects[n] = torch.where(overlap > 0, which, -1)
    return by_assignment(boxes, objects, targets)


def by_assignment(boxes: Tensor, match: Tensor, targets: Sequence[dict[str, Tensor]]) -> Truth:
    """A prediction belongs to the object that an assigner gave it: the positives of the training.

    Args:
        boxes: (B, P, 4) predicted, xyxy.
        match: (B, P) int64 object of the image, negative: none; see :func:`vfnet_edu.assigners.assign_images`.
        targets: one ``{"boxes": (G, 4), "labels": (G,)}`` per image.
    """
    told = match >= 0
    true_boxes, true_labels = matched_truth(list(targets), match, *told.nonzero(as_tuple=True))
    labels = torch.zeros_like(match).masked_scatter(told, true_labels)
    wanted = boxes.masked_scatter(told[..., None], true_boxes)
    ious = torch.where(told, iou(boxes, wanted), 0.0)
    return Truth(match.clamp(min=-1), labels, wanted, ious)


# ------------------------------------------------------------------ one part at a time
def replace_score(scores: Tensor, truth: Truth, values: Tensor) -> Tensor:
    """The score of the true class becomes `values`, every other score stays: table 1's way.  (B, P, K), (B, P)

    Derived in chapter 8.
    """
    place = F.one_hot(truth.labels, scores.shape[2]).bool() & truth.told[..., None]  # (B, P, K)
    return torch.where(place, values[..., None], scores)


def only_score(scores: Tensor, truth: Truth, values: Tensor, labels: Tensor | None = None) -> Tensor:
    """One score per told prediction, `values` (B, P), at `labels` or else at the true class; all others are 0."""
    where = truth.labels if labels is None else labels
    place = F.one_hot(where, scores.shape[2]).bool() & truth.told[..., None]  # (B, P, K)
    return torch.where(place, values[..., None], torch.zeros_like(scores))


def tell_class(scores: Tensor, truth: Truth) -> Tensor:
    """Told predictions keep the score of their true class alone.  (B, P, K) -> (B, P, K)"""
    keep = F.one_hot(truth.labels, scores.shape[2]).bool() | ~truth.told[..., None]
    return torch.where(keep, scores, torch.zeros_like(scores))


def sort_within(values: Tensor, truth: Truth, ious: Tensor) -> Tensor:
    """The same values, dealt out anew among the rivals of each object: the highest to the best box, and so on.

    The rivals of an object are the predictions that belong to it and have an IoU of HIT or more.  (B, P) -> (B, P)

    Derived in chapter 8.
    """
    sorted_values = values.clone()
    for n, objects in enumerate(truth.objects):
        for g in range(int(objects.max()) + 1):
            rivals = ((objects == g) & (ious[n] >= HIT)).nonzero()[:, 0]  # (R,)
            best_first = rivals[ious[n, rivals].argsort(descending=True, stable=True)]
            sorted_values[n, best_first] = values[n, rivals].sort(descending=True).values
    return sorted_values


def true_centerness(points: Tensor, truth: Truth) -> Tensor:
    """Centerness of each point in the true box of its object; 0 outside, and for predictions of no object.

    It is what FCOS's centerness branch is taught, not what such a branch would say.  (P, 2) -> (B, P)
    """
    inside = truth.told & (xyxy_to_ltrb(points, truth.boxes) > 0).all(-1)
    return torch.where(inside, centerness(points, truth.boxes), 0.0)  # where it lies outside, a square root of < 0


# ------------------------------------------------------------------ any of them together
@dataclass(frozen=True)
class Switches:
    """Which parts are replaced; each default is the detector's own."""

    score: Literal["own", "sorted", "iou", "one"] = "own"
    """sorted: its own scores, see :func:`sort_within`; iou: the IoU of the box that is reported; one: 1 for a hit"""
    label: Literal["own", "true"] = "own"
    box: Literal["own", "true"] = "own"
    center: Literal["none", "true"] = "none"
    """true: the score is multiplied by :func:`true_centerness`"""


def switched(candidates: Candidates, truth: Truth, points: Tensor, switches: Switches) -> Candidates:
    """What the detector would have answered, had it known what `switches` name.

    Args:
        candidates: its own answer, B images of P predictions.
        truth: see :func:`by_overlap`.
        points: (P, 2) the point of each prediction, pixels.
        switches: what is replaced.

    Returns:
        Candidates of the same shapes.  A hit is a told prediction whose reported box has an IoU of HIT or more.
    """
    scores, boxes = candidates.scores, candidates.boxes
    ious = truth.ious
    if switches.box == "true":
        boxes, ious = truth.boxes, truth.told.to(ious)
    if switches.score in ("own", "sorted"):
        values = scores.gather(2, truth.labels[..., None])[..., 0]  # (B, P): of the true class
        if switches.score == "sorted":
            values = sort_within(values, truth, ious)
        scores = replace_score(scores, truth, values)
        scores = tell_class(scores, truth) if switches.label == "true" else scores
    else:
        values = ious if switches.score == "iou" else (ious >= HIT).to(ious)
        scores = only_score(scores, truth, values, None if switches.label == "true" else scores.argmax(2))
    factor = true_centerness(points, truth) if switches.center == "true" else candidates.factor
    return candidates._replace(scores=scores, boxes=boxes, factor=factor)


def reordered(candidates: Candidates, order: Tensor) -> Candidates:
    """The same answers in another order of memory, (B, P): which decides nothing but ties.

    Levels are lost, so the limit per level must not bite.
    """
    scores = candidates.scores.gather(1, order[..., None].expand_as(candidates.scores))
    boxes = candidates.boxes.gather(1, order[..., None].expand_as(candidates.boxes))
    factor = None if candidates.factor is None else candidates.factor.gather(1, order)
    return Candidates(scores, boxes, [order.shape[1]], factor)
