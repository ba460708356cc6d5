"""A scorer of 65 weights on frozen features, small enough to be taught inside a page.

A cell's features are what the detector's own classification tower says at the nine points of the cell's box: nine
samples of C channels, brought down to 64 numbers by their principal directions and stored in one byte each.  The
scorer is a weighted sum of them.  The explorer of chapter 10 teaches it in JavaScript (``widgets/trainer.js``); this is
the same arithmetic in PyTorch, and a test compares the two.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from vfnet_edu.boxes import iou
from vfnet_edu.evaluation.frozen import Frozen
from vfnet_edu.losses import MIN_IOU
from vfnet_edu.models.heads.vfnet import VFNetHead
from vfnet_edu.models.layers import flatten_levels
from vfnet_edu.ops.star.reference import star_neighbours

DIMS = 64  # features of a cell
LIMIT = 4.0  # the byte 127 stands for 4 standard deviations
PRIOR, RATE = 0.1, 1.0  # every score starts at 0.1, so at step 0 nothing is ranked; plain gradient descent
NEAR, FAR = 0.3, 0.03  # parts that are kept of the background whose box has an IoU of 0.3 or more, and of the rest


@dataclass(frozen=True)
class Cells:
    """N cells: what a scorer reads, and what it is asked for."""

    x: Tensor  # (N, 64) int8
    q: Tensor  # (N,) float32: IoU of a positive's box, 0 for background
    weight: Tensor  # (N,) float32: how many cells of its kind a cell stands for

    def features(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """In standard deviations.  -> (N, 64)"""
        return self.x.to(dtype) * (LIMIT / 127)


@dataclass(frozen=True)
class Reduction:
    """From 9 C numbers to 64 bytes, as the lessons were spread."""

    mean: Tensor  # (9 C,)
    deviation: Tensor  # (9 C,)
    directions: Tensor  # (9 C, 64)

    def __call__(self, nine: Tensor) -> Tensor:
        """(N, 9 C) -> (N, 64) int8"""
        x = (nine - self.mean) / self.deviation @ self.directions
        return (x.clamp(-LIMIT, LIMIT) * 127 / LIMIT).round().to(torch.int8)


@torch.no_grad()
def nine_samples(head: VFNetHead, frozen: Frozen) -> Tensor:
    """The classification tower at the star of every cell's initial box.  -> (S, P, 9 C)"""
    levels = []
    for x, ltrb, stride in zip(frozen.pyramid, frozen.ltrb, head.config.strides, strict=True):
        rows, columns = star_neighbours(ltrb, stride)
        image, cells = torch.arange(len(x))[:, None, None], head.cls_tower(x).permute(0, 2, 3, 1)  # (S, H, W, C)
        taps = [  # nine of (S, H, W, C)
            torch.stack([(wy * wx)[..., None] * cells[image, iy, ix] for iy, wy in row for ix, wx in column]).sum(0)
            for row in rows
            for column in columns
        ]
        levels.append(torch.cat(taps, -1).permute(0, 3, 1, 2))
    return flatten_levels(levels, 9 * head.config.channels)


def lessons_from(frozen: Frozen, nine: Tensor, seed: int = 0) -> tuple[Cells, Reduction]:
    """All positives and a part of the background, which is weighted so that it stands for all of it.

    Background is drawn in two kinds, near an object and far from any: only the near kind is ever mistaken.
    """
    q = frozen.targets().amax(-1)  # (S, P)
    best = torch.stack([iou(b[:, None], t["boxes"]).amax(1) for b, t in zip(frozen.boxes, frozen.truth, strict=True)])
    kinds = {1.0: q > 0, NEAR: (q == 0) & (best >= 0.3), FAR: (q == 0) & (best < 0.3)}
    lot = torch.rand(q.shape, generator=torch.Generator().manual_seed(seed))
    weight = torch.zeros_like(q)
    for part, kind in kinds.items():
        taken = kind & (lot < part)
        weight[taken] = kind.sum() / taken.sum()
    drawn = weight > 0
    mean, deviation = nine[drawn].mean(0), nine[drawn].std(0) + 1e-6
    _, spread, axes = torch.linalg.svd((nine[drawn] - mean) / deviation, full_matrices=False)
    reduce = Reduction(mean, deviation, axes[:DIMS].T / (spread[:DIMS] / drawn.sum().sqrt()))
    return Cells(reduce(nine[drawn]), q[drawn], weight[drawn]), reduce


def exam_from(frozen: Frozen, nine: Tensor, reduce: Reduction) -> Cells:
    """The positives of an exam: they must be ranked by their IoU."""
    return Cells(reduce(nine[frozen.image, frozen.cell]), frozen.q.clamp(min=MIN_IOU), torch.ones_like(frozen.q))


def teach_linear(
    lessons: Cells, loss: Callable[[Tensor, Tensor], Tensor], steps: int, marks: Collection[int] = ()
) -> dict[int, Tensor]:
    """Gradient descent on all lessons at once, in double precision.

    Args:
        lessons: N cells.
        loss: (logits, q) -> losses, element by element.
        steps: how many.
        marks: steps at which to note the weights; the last one is always noted.

    Returns:
        step -> (65,) float64: 64 weights and, last, the bias.
    """
    x, q, weight = lessons.features(torch.float64), lessons.q.double(), lessons.weight.double()
    positives = (q > 0).sum()
    weights = torch.zeros(x.shape[1] + 1, dtype=torch.float64)
    weights[-1] = torch.tensor(PRIOR, dtype=torch.float64).logit()
    weights.requires_grad_()
    noted = {}
    for step in range(steps + 1):
        if step in marks or step == steps:
            noted[step] = weights.detach().clone()
        value = (loss(x @ weights[:-1] + weights[-1], q) * weight).sum() / positives
        (gradient,) = torch.autograd.grad(value, weights)
        weights = (weights - RATE * gradient).detach().requires_grad_()
    return noted


def scores_of(cells: Cells, weights: Tensor) -> Tensor:
    """(65,) -> (N,) float64, in [0, 1]"""
    return (cells.features(torch.float64) @ weights[:-1] + weights[-1]).sigmoid()
