"""Does a score rank?  A detector whose boxes are held still, so that nothing but its scores can differ.

Two detectors that were trained with two losses have two sets of boxes, and nobody can say what made the difference.
Here the backbone, the pyramid and the boxes of one detector are computed once; whoever gives new scores to the same
boxes is judged on the same ground.  Derived in chapter 10.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vfnet_edu.assigners import IGNORED, assign_images, atss, matched_truth
from vfnet_edu.boxes import iou
from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.evaluation.calibration import Calibration, score_iou_pairs, spearman
from vfnet_edu.evaluation.scores import candidate_scores
from vfnet_edu.losses import MIN_IOU
from vfnet_edu.models.detector import Detector
from vfnet_edu.models.heads.vfnet import VFNetHead
from vfnet_edu.postprocess import Candidates, DetectConfig
from vfnet_edu.runtime.errors import UserError


@dataclass(frozen=True)
class Frozen:
    """S scenes as a detector sees them: P cells each on L levels, K classes, N positives in all."""

    pyramid: list[Tensor]  # L maps (S, C, H, W)
    ltrb: list[Tensor]  # the initial boxes, whose stars are read: L of (S, 4, H, W), pixels
    boxes: Tensor  # (S, P, 4) the refined boxes, xyxy, pixels
    initial: Tensor  # (S, P, 4) the initial ones in the same form
    logits: Tensor  # (S, P, K) the detector's own
    level_shapes: list[tuple[int, int]]
    size: tuple[int, int]  # height and width of every scene
    truth: list[dict[str, Tensor]]
    image: Tensor  # (N,) scene of each positive
    cell: Tensor  # (N,) its cell
    label: Tensor  # (N,) the class it answers for
    true_box: Tensor  # (N, 4)
    q: Tensor  # (N,) IoU of its refined box with its object

    def targets(self) -> Tensor:
        """q at the positives, 0 everywhere else, never 0 at a positive.  -> (S, P, K)"""
        target = torch.zeros_like(self.logits)
        target[self.image, self.cell, self.label] = self.q.clamp(min=MIN_IOU)
        return target


class Marks(NamedTuple):
    """What scores are worth on fixed boxes.  `positives`, `winners` and `all` are Spearman's rank correlations."""

    positives: float  # of score and IoU at the cells that are responsible for an object: where the loss asks for q
    winners: float  # over the boxes that are kept, one per object: which results can be trusted?
    all: float  # over all boxes that overlap an object by 0.3 or more
    kept: float  # mean IoU of the boxes that are kept
    AP: float  # percent


@torch.no_grad()
def freeze(model: Detector, images: Sequence[Tensor], truth: list[dict[str, Tensor]]) -> Frozen:
    """Run a VFNet once on S scenes of one size, and note its positives (ATSS) and the IoU of their boxes.

    Args:
        model: a VFNet in evaluation mode, as `vfnet_edu.load` returns it.
        images: S of (3, H, W), uint8.
        truth: the objects of each: ``{"boxes": (G, 4) xyxy, "labels": (G,)}``.

    Raises:
        UserError: the model has another head.
    """
    head, size = vfnet_head(model), (images[0].shape[-2], images[0].shape[-1])
    config = head.config
    pyramid = model.neck(model.backbone(model.stack(images)))
    ltrb = [head.initial_box(i, head.reg_tower(x)) for i, x in enumerate(pyramid)]
    out = head(pyramid)
    match = assign_images(
        lambda anchors, sizes, boxes, labels: atss(anchors, sizes, boxes, config.atss_topk),
        out.anchors, out.level_shapes, config.strides, truth, [size] * len(truth), unmapped=IGNORED,
    )  # (S, P)  # fmt: skip
    image, cell = torch.nonzero(match >= 0, as_tuple=True)
    true_box, label = matched_truth(truth, match, image, cell)
    q = iou(out.refined[image, cell], true_box)
    return Frozen(pyramid, ltrb, out.refined, out.boxes, out.logits, out.level_shapes, size, truth, image, cell,
                  label, true_box, q)  # fmt: skip


def vfnet_head(model: Detector) -> VFNetHead:
    """The head of a VFNet.  Raises UserError where it is another one: only a VFNet has stars to freeze."""
    if not isinstance(model.head, VFNetHead):
        raise UserError(f"{type(model.head).__name__} has no star", remedy="give a VFNet, e.g. vfnet_tiny")
    return model.head


def one_class(frozen: Frozen) -> Frozen:
    """The same scenes with the question "is there an object?": every label is 0, and a cell has one score, its best."""
    truth = [{**t, "labels": torch.zeros_like(t["labels"])} for t in frozen.truth]
    logits = frozen.logits.amax(-1, keepdim=True)
    return dataclasses.replace(frozen, truth=truth, logits=logits, label=torch.zeros_like(frozen.label))


def judge(scores: Tensor, frozen: Frozen, index: CocoIndex, detect: DetectConfig = DetectConfig()) -> Marks:
    """What `scores` (S, P, K) are worth on the frozen boxes.

    Args:
        scores: in [0, 1].
        frozen: the scenes, from :func:`freeze`; with K = 1 also :func:`one_class`.
        index: the same scenes as a data set, for AP; its classes do not count where K = 1.
        detect: thresholds, for AP.
    """
    kept = winners(scores, frozen)  # (O, 3)
    every = Calibration()
    for n, target in enumerate(frozen.truth):
        every.add(n, score_iou_pairs(scores[n], frozen.boxes[n], target))
    own = scores[frozen.image, frozen.cell, frozen.label]  # (N,)
    return Marks(
        positives=spearman(own, frozen.q),
        winners=spearman(kept[:, 2], kept[:, 0]),
        all=every.spearman(),
        kept=float(kept[:, 0].mean()),
        AP=ap_of(scores, frozen, index, detect),
    )


def winners(scores: Tensor, frozen: Frozen) -> Tensor:
    """IoU of the box kept, best IoU among its rivals, score of the box kept: a row for each object.  -> (O, 3)

    The rivals of an object are the boxes with an IoU of 0.5 or more with it that overlap no other object more; objects
    with fewer than two are left out, for there is nothing to choose.
    """
    rows = []
    for n, target in enumerate(frozen.truth):
        overlap = iou(frozen.boxes[n][:, None], target["boxes"])  # (P, G)
        nearest = overlap.argmax(1)
        for g, label in enumerate(target["labels"].tolist()):
            mine = ((nearest == g) & (overlap[:, g] >= 0.5)).nonzero()[:, 0]
            if len(mine) > 1:
                score, fit = scores[n, mine, label], overlap[mine, g]
                rows.append(torch.stack([fit[score.argmax()], fit.max(), score.max()]))
    return torch.stack(rows)


def ap_of(scores: Tensor, frozen: Frozen, index: CocoIndex, detect: DetectConfig) -> float:
    """AP in percent of `scores` (S, P, K) on the frozen boxes, after NMS."""
    if scores.shape[-1] == 1:
        alike = np.zeros_like(index.labels)
        index = dataclasses.replace(index, labels=alike, classes=("object",), category_ids=np.array([1]))
    offer = Candidates(scores, frozen.boxes, [h * w for h, w in frozen.level_shapes])
    return 100 * candidate_scores(offer, index, frozen.size, detect).numbers["AP"]
