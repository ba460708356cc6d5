"""VarifocalNet (Zhang et al. 2021): predict a box, look at its star, refine the box, score it by its IoU.

pyramid level (B, C, H, W)
    ├── reg tower ── initial box ltrb ─┬─ star ── refine ──── refined box ltrb
    └── cls tower ─────────────────────┴─ star ── classify ── IoU-aware score (IACS)
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vfnet_edu.assigners import IGNORED, assign_images, atss, matched_truth
from vfnet_edu.boxes import centers, iou, ltrb_to_xyxy
from vfnet_edu.losses import MIN_IOU, focal_loss, giou_loss, quality_focal_loss, varifocal_loss
from vfnet_edu.models.layers import (
    ConvNorm,
    flatten_levels,
    init_normal,
    mean_over_ranks,
    scale_gradient,
    start_scores,
    tower,
)
from vfnet_edu.ops.star.operator import star_conv2d_pyramid
from vfnet_edu.postprocess import Candidates
from vfnet_edu.priors import pyramid_anchors


@dataclass(frozen=True)
class VFNetConfig:
    """Everything that shapes the head and its losses; the defaults are the paper's."""

    classes: int = 80
    score_std: float = 0.01  # std of the last classification layer's first weights; from scratch 0.1 to 0.3 is better
    star_std: float = 0.01  # std of the star convolutions' first weights
    channels: int = 256
    depth: int = 3  # convolutions per tower
    dcn: bool = False  # DCNv2 in the last convolution of each tower
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    box_unit: float = 8.0  # in strides: what exp(0) stands for (64, 128, 256, 512, 1024 pixels)
    star: bool = True  # read features at the nine points of the initial box
    refine: bool = True  # correct the initial box from what the star has read
    star_gradient: float = 0.1  # share of the star's gradient that reaches the initial box (gradient_mul)
    anchor_size: float = 8.0  # side of the ATSS anchors, in strides
    atss_topk: int = 9
    loss: Literal["varifocal", "focal", "quality_focal"] = "varifocal"
    alpha: float = 0.75  # varifocal: weight of negatives; focal: use 0.25
    gamma: float = 2.0  # focusing power; the beta of the quality focal loss
    iou_weighted: bool = True  # varifocal: weight a positive by its IoU
    box_weight: float = 1.5  # GIoU loss of the initial box (lambda_0)
    refine_weight: float = 2.0  # GIoU loss of the refined box (lambda_1)

    def build(self, in_channels: int) -> "VFNetHead":
        """The head for a pyramid of `in_channels`, with fresh weights."""
        return VFNetHead(self, in_channels)


class VFNetOutput(NamedTuple):
    logits: Tensor  # (B, P, K)  before the sigmoid
    boxes: Tensor  # (B, P, 4)  initial, xyxy pixels
    refined: Tensor  # (B, P, 4)  what we report; the initial ones where `refine` is off
    anchors: Tensor  # (P, 4)  what ATSS matches with
    level_shapes: list[tuple[int, int]]  # (H, W) of every level


class VFNetHead(nn.Module):
    """One head for all levels; only the box gains differ from level to level.

    Args:
        config: its shape and its losses.
        in_channels: channels of the pyramid; by default those of the head.
    """

    def __init__(self, config: VFNetConfig = VFNetConfig(), in_channels: int | None = None):
        super().__init__()
        self.config, c, levels = config, config.channels, len(config.strides)
        self.cls_tower = tower(in_channels or c, c, config.depth, dcn_on_last=config.dcn)
        self.reg_tower = tower(in_channels or c, c, config.depth, dcn_on_last=config.dcn)

        self.box_conv = ConvNorm(c, c, relu=True)
        self.box_out = nn.Conv2d(c, 4, 3, padding=1)
        self.box_gain = nn.Parameter(torch.ones(levels))
        if config.refine:
            self.refine_star = nn.Parameter(torch.empty(c, c, 3, 3))
            self.refine_out = nn.Conv2d(c, 4, 3, padding=1)
            self.refine_gain = nn.Parameter(torch.ones(levels))
        if config.star:
            self.score_star = nn.Parameter(torch.empty(c, c, 3, 3))
        else:
            self.score_conv = ConvNorm(c, c, relu=True)
        self.score_out = nn.Conv2d(c, config.classes, 3, padding=1)

        init_normal(self)
        start_scores(self.score_out, config.score_std)
        for star in [p for n, p in self.named_parameters() if n.endswith("_star")]:
            nn.init.normal_(star, std=config.star_std)

    # ------------------------------------------------------------------ predict
    def forward(self, pyramid: list[Tensor]) -> VFNetOutput:
        """L maps (B, C, H, W) -> predictions at all P points of all levels.  (The star: chapter 11.)"""
        config = self.config
        cls = [self.cls_tower(x) for x in pyramid]  # (B, C, H, W) each
        reg = [self.reg_tower(x) for x in pyramid]
        ltrb = [self.initial_box(i, x) for i, x in enumerate(reg)]  # (B, 4, H, W) pixels, float32

        # the star: nine points of the initial box, read once for both branches
        branches = []
        if config.refine:
            branches.append((reg, self.refine_star))
        if config.star:
            branches.append((cls, self.score_star))
        where = [scale_gradient(b, config.star_gradient) for b in ltrb]
        seen = star_conv2d_pyramid(branches, where, config.strides) if branches else []  # (B, C, H, W) each

        refined = ltrb
        if config.refine:
            refined = [self.refined_box(i, x.relu(), ltrb[i]) for i, x in enumerate(seen[0])]
        cls = [x.relu() for x in seen[-1]] if config.star else [self.score_conv(x) for x in cls]
        logits = [self.score_out(x) for x in cls]  # (B, K, H, W) each

        shapes = [(x.shape[-2], x.shape[-1]) for x in pyramid]
        anchors = pyramid_anchors(shapes, config.strides, (config.anchor_size,), device=pyramid[0].device)  # (P, 4)
        points = centers(anchors)  # (P, 2)
        return VFNetOutput(
            logits=flatten_levels(logits, config.classes).float(),
            boxes=ltrb_to_xyxy(points, flatten_levels(ltrb, 4)),
            refined=ltrb_to_xyxy(points, flatten_levels(refined, 4)),
            anchors=anchors,
            level_shapes=shapes,
        )

    def initial_box(self, level: int, reg: Tensor) -> Tensor:
        """(B, C, H, W) -> distances l, t, r, b in pixels of the image, (B, 4, H, W) float32.  (The unit: chapter 5.)"""
        ltrb = self.box_out(self.box_conv(reg)) * self.box_gain[level]
        return ltrb.float().exp() * (self.config.box_unit * self.config.strides[level])

    def refined_box(self, level: int, seen: Tensor, ltrb: Tensor) -> Tensor:
        """Four factors on the initial distances, which are detached (chapter 12).  (B, C, H, W), (B, 4, H, W)"""
        factor = self.refine_out(seen) * self.refine_gain[level]
        return factor.float().exp() * ltrb.detach()

    # ------------------------------------------------------------------ learn
    def loss(
        self, out: VFNetOutput, targets: list[dict[str, Tensor]], image_sizes: list[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """Classification by IACS, and GIoU of both boxes.  -> {"cls", "box", "refine"}, scalars to be summed

        Source: paper equation 3; but as in the authors' code the GIoU of each positive is weighted by its own IoU
        and normalised by the sum of those IoUs, where the paper has the number of positives.
        """
        config = self.config
        match = assign_images(
            lambda anchors, sizes, boxes, labels: atss(anchors, sizes, boxes, config.atss_topk),
            out.anchors, out.level_shapes, config.strides, targets, image_sizes, unmapped=IGNORED,
        )  # (B, P)  # fmt: skip
        image, point = torch.nonzero(match >= 0, as_tuple=True)  # (N,), (N,) the positives
        true_box, label = matched_truth(targets, match, image, point)  # (N, 4), (N,)

        box, refined = out.boxes[image, point], out.refined[image, point]  # (N, 4), (N, 4)
        iou_box = iou(box.detach(), true_box).clamp(min=MIN_IOU)  # (N,)
        iou_refined = iou(refined.detach(), true_box).clamp(min=MIN_IOU)  # (N,)

        # every rank must take part in these three means, even one without a positive
        positives = mean_over_ranks(out.logits.new_full((), len(image))).clamp(min=1)
        sum_iou_box = mean_over_ranks(iou_box.sum()).clamp(min=1)
        sum_iou_refined = mean_over_ranks(iou_refined.sum()).clamp(min=1)

        target = torch.zeros_like(out.logits)  # (B, P, K)
        if config.loss == "focal":
            target[image, point, label] = 1.0
            loss_cls = focal_loss(out.logits, target, config.alpha, config.gamma) * (match != IGNORED)[..., None]
        else:
            target[image, point, label] = iou_refined  # the IoU-aware classification score
            if config.loss == "quality_focal":
                loss_cls = quality_focal_loss(out.logits, target, config.gamma)
            else:  # cells of batch padding count as negatives, as they did for the published weights
                loss_cls = varifocal_loss(out.logits, target, config.alpha, config.gamma, config.iou_weighted)

        losses = {
            "cls": loss_cls.sum() / positives,
            "box": config.box_weight * (giou_loss(box, true_box) * iou_box).sum() / sum_iou_box,
        }
        if config.refine:
            loss_refine = (giou_loss(refined, true_box) * iou_refined).sum() / sum_iou_refined
            losses["refine"] = config.refine_weight * loss_refine
        return losses

    # ------------------------------------------------------------------ answer
    def candidates(self, out: VFNetOutput, image_sizes: list[tuple[int, int]]) -> Candidates:
        """The score *is* the ranking: no centerness to multiply by."""
        return Candidates(out.logits.sigmoid(), out.refined, [h * w for h, w in out.level_shapes])
