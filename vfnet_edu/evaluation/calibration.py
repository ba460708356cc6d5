"""Does the class score say how good the box is?  Pairs of (score, IoU), their rank correlation and reliability curve.

The IACS is a score trained to be the IoU of its own box (paper, section 3.1).  How well a model does that is measured
here over *every* box that touches an object, not over the boxes that survived a score threshold: a selection by score
would favour the loss that made the score.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vfnet_edu.boxes import iou


class Pairs(NamedTuple):
    """One row for every predicted box that overlaps an object: (N,) each, on the CPU."""

    scores: Tensor  # score of the object's class at that box, float32 in [0, 1]
    ious: Tensor  # IoU of the box and the object, float32
    objects: Tensor  # which object of the image, int64


def score_iou_pairs(scores: Tensor, boxes: Tensor, target: dict, min_iou: float = 0.3) -> Pairs:
    """Every (object, predicted box) of one image with IoU >= `min_iou`, whatever the box's score.

    Args:
        scores: (P, K) ranking score of every point and class, in [0, 1].
        boxes: (P, 4) xyxy, pixels of the image the target belongs to.
        target: {"boxes": (G, 4) xyxy, "labels": (G,) int64}.
        min_iou: boxes below it belong to no object.
    """
    overlap = iou(target["boxes"][:, None], boxes)  # (G, P)
    objects, points = (overlap >= min_iou).nonzero(as_tuple=True)  # (N,), (N,)
    found = scores[points, target["labels"][objects]]  # (N,)
    return Pairs(found.float().cpu(), overlap[objects, points].float().cpu(), objects.cpu())


def ranks(values: Tensor) -> Tensor:
    """Rank of each value, 1 for the smallest; equal values share their mean rank.  (N,) -> (N,) float64"""
    _, which, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    return (last.double() - (counts.double() - 1) / 2)[which]


def spearman(x: Tensor, y: Tensor) -> float:
    """Spearman's rank correlation of two (N,) tensors, in [-1, 1]; NaN where one of them is constant or N < 2."""
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(), b - b.mean()
    spread = (a.square().sum() * b.square().sum()).sqrt()
    return float((a * b).sum() / spread) if len(a) > 1 and spread > 0 else float("nan")


class Calibration:
    """Pairs gathered over a data set: a uniform sample of bounded size, and each object's own rank correlation.

    Which pairs are kept depends on the data set's image numbers only, never on the order of the images or on how they
    were shared among processes; an image that is added twice counts once.

    Args:
        size: most pairs kept; 20,000 pin the rank correlation down to about 0.01.
    """

    def __init__(self, size: int = 20_000):
        self.size = size
        self.scores = torch.empty(0)
        self.ious = torch.empty(0)
        self._keys = torch.empty(0, dtype=torch.float64)  # the `size` smallest keys are the sample
        self._within: dict[int, tuple[float, int]] = {}  # image -> sum of its objects' correlations, their number

    def __len__(self) -> int:
        return len(self.scores)

    def add(self, index: int, pairs: Pairs) -> None:
        """Take in the pairs of image number `index` of the data set."""
        generator = torch.Generator().manual_seed(index)
        keys = torch.rand(len(pairs.scores), dtype=torch.float64, generator=generator)
        self._keep(pairs.scores, pairs.ious, keys)
        own = [
            spearman(pairs.scores[mine], pairs.ious[mine])
            for mine in (pairs.objects == g for g in pairs.objects.unique())
            if mine.sum() >= 3  # two boxes always correlate perfectly
        ]
        own = [value for value in own if not math.isnan(value)]
        self._within[index] = (sum(own), len(own))

    def merge(self, other: "Calibration") -> None:
        """Take in what another process gathered."""
        self._keep(other.scores, other.ious, other._keys)
        self._within |= other._within

    def _keep(self, scores: Tensor, ious: Tensor, keys: Tensor) -> None:
        scores, ious, keys = (torch.cat(p) for p in ((self.scores, scores), (self.ious, ious), (self._keys, keys)))
        order = keys.argsort()
        new = torch.ones(len(keys), dtype=torch.bool)
        new[1:] = keys[order].diff() != 0  # the same image again brings the same keys
        order = order[new][: self.size]
        self.scores, self.ious, self._keys = scores[order], ious[order], keys[order]

    def spearman(self) -> float:
        """Rank correlation of score and IoU over all pairs: does the score rank boxes across objects and images?"""
        return spearman(self.scores, self.ious)

    def within_object(self) -> float:
        """Mean over objects of the rank correlation among the boxes of one object: what NMS depends on."""
        total, count = (sum(part) for part in zip(*self._within.values(), strict=True)) if self._within else (0.0, 0)
        return total / count if count else float("nan")

    def reliability(self, bins: int = 10) -> tuple[Tensor, Tensor, Tensor]:
        """Mean IoU of the boxes whose score falls in each of `bins` equal bins of [0, 1].

        Returns:
            Middle of each bin, mean IoU (NaN where empty), number of pairs: (bins,) each.  On the diagonal the score
            *is* the IoU.
        """
        which = (self.scores * bins).long().clamp(0, bins - 1)
        counts = torch.bincount(which, minlength=bins)
        sums = torch.bincount(which, weights=self.ious.double(), minlength=bins)
        return (torch.arange(bins) + 0.5) / bins, (sums / counts).float(), counts
