"""ATSS (Zhang et al. 2020): one square anchor per point, three branches; the score is class times centerness.

With the varifocal loss the class branch learns the IoU of its box; centerness stays and is multiplied in as before.
(The authors' published ATSS + VFL configuration loses its flag in a parent's constructor and uses the focal loss; this
one does what that configuration says.)
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfnet_edu.assigners import IGNORED, assign_images, atss, matched_truth
from vfnet_edu.boxes import centerness, centers, decode_deltas, iou
from vfnet_edu.losses import MIN_IOU, focal_loss, giou_loss, varifocal_loss
from vfnet_edu.models.layers import flatten_levels, init_normal, mean_over_ranks, start_scores, tower
from vfnet_edu.postprocess import Candidates
from vfnet_edu.priors import pyramid_anchors

STDS = (0.1, 0.1, 0.2, 0.2)  # unit of the deltas


@dataclass(frozen=True)
class ATSSConfig:
    """Everything that shapes the head and its losses."""

    classes: int = 80
    score_std: float = 0.01  # std of the last classification layer's first weights; from scratch 0.1 to 0.3 is better
    channels: int = 256
    depth: int = 4  # convolutions per tower
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    anchor_size: float = 8.0  # side of the anchors, in strides
    atss_topk: int = 9
    loss: Literal["varifocal", "focal"] = "varifocal"
    alpha: float = 0.75  # varifocal: weight of negatives; focal: use 0.25
    gamma: float = 2.0
    box_weight: float = 2.0  # GIoU loss
    centerness_weight: float = 1.0

    def build(self, in_channels: int) -> "ATSSHead":
        """The head for a pyramid of `in_channels`, with fresh weights."""
        return ATSSHead(self, in_channels)


class ATSSOutput(NamedTuple):
    logits: Tensor  # (B, P, K)  before the sigmoid
    boxes: Tensor  # (B, P, 4)  xyxy pixels
    centerness: Tensor  # (B, P)  before the sigmoid
    anchors: Tensor  # (P, 4)
    level_shapes: list[tuple[int, int]]  # (H, W) of every level


class ATSSHead(nn.Module):
    """One head for all levels; only the box gains differ from level to level.

    Args:
        config: its shape and its losses.
        in_channels: channels of the pyramid; by default those of the head.
    """

    def __init__(self, config: ATSSConfig = ATSSConfig(), in_channels: int | None = None):
        super().__init__()
        self.config, c = config, config.channels
        self.cls_tower = tower(in_channels or c, c, config.depth)
        self.reg_tower = tower(in_channels or c, c, config.depth)
        self.score_out = nn.Conv2d(c, config.classes, 3, padding=1)
        self.delta_out = nn.Conv2d(c, 4, 3, padding=1)
        self.box_gain = nn.Parameter(torch.ones(len(config.strides)))
        self.center_out = nn.Conv2d(c, 1, 3, padding=1)
        init_normal(self)
        start_scores(self.score_out, config.score_std)

    # ------------------------------------------------------------------ predict
    def forward(self, pyramid: list[Tensor]) -> ATSSOutput:
        """L maps (B, C, H, W) -> predictions at all P points of all levels"""
        cls = [self.cls_tower(x) for x in pyramid]  # (B, C, H, W) each
        reg = [self.reg_tower(x) for x in pyramid]
        deltas = [(self.delta_out(x) * self.box_gain[i]).float() for i, x in enumerate(reg)]  # (B, 4, H, W) each
        shapes = [(x.shape[-2], x.shape[-1]) for x in pyramid]
        strides, size = self.config.strides, self.config.anchor_size
        anchors = pyramid_anchors(shapes, strides, (size,), device=pyramid[0].device)  # (P, 4)
        return ATSSOutput(
            logits=flatten_levels([self.score_out(x) for x in cls], self.config.classes).float(),
            boxes=decode_deltas(anchors, flatten_levels(deltas, 4), STDS),
            centerness=flatten_levels([self.center_out(x) for x in reg], 1)[..., 0].float(),
            anchors=anchors,
            level_shapes=shapes,
        )

    # ------------------------------------------------------------------ learn
    def loss(
        self, out: ATSSOutput, targets: list[dict[str, Tensor]], image_sizes: list[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """Classification, GIoU weighted by centerness, centerness.  -> {"cls", "box", "centerness"}, to be summed"""
        config = self.config
        match = assign_images(
            lambda anchors, sizes, boxes, labels: atss(anchors, sizes, boxes, config.atss_topk),
            out.anchors, out.level_shapes, config.strides, targets, image_sizes, unmapped=IGNORED,
        )  # (B, P)  # fmt: skip
        image, point = torch.nonzero(match >= 0, as_tuple=True)  # (N,), (N,) the positives
        true_box, label = matched_truth(targets, match, image, point)  # (N, 4), (N,)
        box = out.boxes[image, point]  # (N, 4)
        central = centerness(centers(out.anchors[point]), true_box)  # (N,)

        # every rank must take part in these two means, even one without a positive
        positives = (match >= 0).sum(1).clamp(min=1).sum().float()  # an image without a positive counts as one
        positives = mean_over_ranks(positives).clamp(min=1)
        sum_central = mean_over_ranks(central.sum())
        sum_central = sum_central.where(sum_central > 1e-12, 1.0)  # the authors floor only 0; mmdet 3 floors at 1

        target = torch.zeros_like(out.logits)  # (B, P, K)
        if config.loss == "focal":
            target[image, point, label] = 1.0
            loss_cls = focal_loss(out.logits, target, config.alpha, config.gamma) * (match != IGNORED)[..., None]
        else:  # cells of batch padding count as negatives, as they do in VarifocalNet
            target[image, point, label] = iou(box.detach(), true_box).clamp(min=MIN_IOU)
            loss_cls = varifocal_loss(out.logits, target, config.alpha, config.gamma)
        loss_box = (giou_loss(box, true_box) * central).sum() / sum_central
        loss_center = F.binary_cross_entropy_with_logits(out.centerness[image, point], central, reduction="sum")
        return {
            "cls": loss_cls.sum() / positives,
            "box": config.box_weight * loss_box,
            "centerness": config.centerness_weight * loss_center / positives,
        }

    # ------------------------------------------------------------------ answer
    def candidates(self, out: ATSSOutput, image_sizes: list[tuple[int, int]]) -> Candidates:
        """Class score times centerness, with either loss."""
        sizes = [h * w for h, w in out.level_shapes]
        return Candidates(out.logits.sigmoid(), out.boxes, sizes, out.centerness.sigmoid())
