"""FoveaBox (Kong et al. 2019): the middle of an object predicts its four sides, on the levels that fit its size."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vfnet_edu.assigners import fovea, matched_truth
from vfnet_edu.boxes import clip, iou, ltrb_to_xyxy, xyxy_to_ltrb
from vfnet_edu.losses import MIN_IOU, focal_loss, smooth_l1_loss, varifocal_loss
from vfnet_edu.models.layers import flatten_levels, init_normal, start_scores, tower
from vfnet_edu.postprocess import Candidates
from vfnet_edu.priors import per_point, pyramid_points

MAX_RATIO = 16.0  # a side is learned as at most 16 and at least 1/16 of the level's base edge


@dataclass(frozen=True)
class FoveaBoxConfig:
    """Everything that shapes the head and its losses."""

    classes: int = 80
    score_std: float = 0.01  # std of the last classification layer's first weights; from scratch 0.1 to 0.3 is better
    channels: int = 256
    depth: int = 4  # convolutions per tower, without norm
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    base_edge: float = 2.0  # in strides: the distance that exp(0) stands for (16, 32, 64, 128, 256 pixels)
    scale_ranges: tuple[tuple[float, float], ...] = ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))  # pixels
    shrink: float = 0.4  # share of a box's width and height that is its middle (sigma)
    loss: Literal["varifocal", "focal"] = "varifocal"
    alpha: float = 0.75  # varifocal: weight of negatives; focal: use 0.4
    gamma: float = 2.0  # focal: use 1.5
    box_weight: float = 1.0  # smooth L1 loss of the logarithms
    beta: float = 0.11  # smooth L1: where the parabola ends

    def build(self, in_channels: int) -> "FoveaBoxHead":
        """The head for a pyramid of `in_channels`, with fresh weights."""
        return FoveaBoxHead(self, in_channels)


class FoveaBoxOutput(NamedTuple):
    logits: Tensor  # (B, P, K)  before the sigmoid
    log_ltrb: Tensor  # (B, P, 4)  logarithm of the distances to the four sides, in base edges
    points: Tensor  # (P, 2)  centres of the cells, (x, y) pixels
    edges: Tensor  # (P,)  base edge of the level, pixels
    level_shapes: list[tuple[int, int]]  # (H, W) of every level

    @property
    def boxes(self) -> Tensor:
        """(B, P, 4) xyxy pixels"""
        return ltrb_to_xyxy(self.points, self.log_ltrb.exp() * self.edges[:, None])


class FoveaBoxHead(nn.Module):
    """One head for all levels.

    Args:
        config: its shape and its losses.
        in_channels: channels of the pyramid; by default those of the head.
    """

    def __init__(self, config: FoveaBoxConfig = FoveaBoxConfig(), in_channels: int | None = None):
        super().__init__()
        self.config, c = config, config.channels
        self.cls_tower = tower(in_channels or c, c, config.depth, norm=False)
        self.reg_tower = tower(in_channels or c, c, config.depth, norm=False)
        self.score_out = nn.Conv2d(c, config.classes, 3, padding=1)
        self.side_out = nn.Conv2d(c, 4, 3, padding=1)
        init_normal(self)
        start_scores(self.score_out, config.score_std)

    # ------------------------------------------------------------------ predict
    def forward(self, pyramid: list[Tensor]) -> FoveaBoxOutput:
        """L maps (B, C, H, W) -> predictions at all P cells of all levels"""
        config, device = self.config, pyramid[0].device
        logits = [self.score_out(self.cls_tower(x)) for x in pyramid]  # (B, K, H, W) each
        sides = [self.side_out(self.reg_tower(x)) for x in pyramid]  # (B, 4, H, W) each
        shapes = [(x.shape[-2], x.shape[-1]) for x in pyramid]
        return FoveaBoxOutput(
            logits=flatten_levels(logits, config.classes).float(),
            log_ltrb=flatten_levels(sides, 4).float(),
            points=pyramid_points(shapes, config.strides, 0.5, device),  # the only head here that predicts from centres
            edges=per_point([config.base_edge * s for s in config.strides], shapes, device),
            level_shapes=shapes,
        )

    # ------------------------------------------------------------------ learn
    def loss(
        self, out: FoveaBoxOutput, targets: list[dict[str, Tensor]], image_sizes: list[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """Classification and smooth L1 of the logarithms.  -> {"cls", "box"}, scalars to be summed

        Normalised by the positives of this process alone.  No cell is ignored, not even on batch padding.
        """
        config = self.config
        match = torch.stack(
            [fovea(out.level_shapes, config.strides, config.scale_ranges, t["boxes"], config.shrink) for t in targets]
        )  # (B, P)
        image, cell = torch.nonzero(match >= 0, as_tuple=True)  # (N,), (N,) the positives
        true_box, label = matched_truth(targets, match, image, cell)  # (N, 4), (N,)
        ratio = xyxy_to_ltrb(out.points[cell], true_box) / out.edges[cell, None]  # (N, 4)
        true_log = ratio.clamp(1 / MAX_RATIO, MAX_RATIO).log()

        target = torch.zeros_like(out.logits)  # (B, P, K)
        if config.loss == "focal":
            target[image, cell, label] = 1.0
            loss_cls = focal_loss(out.logits, target, config.alpha, config.gamma)
        else:  # the authors clip all predictions at the last pixel of the first image of the batch
            h, w = image_sizes[0]
            box = clip(out.boxes.detach()[image, cell], (h - 1, w - 1))
            target[image, cell, label] = iou(box, true_box).clamp(min=MIN_IOU)
            loss_cls = varifocal_loss(out.logits, target, config.alpha, config.gamma)
        loss_box = smooth_l1_loss(out.log_ltrb[image, cell], true_log, config.beta).sum()
        return {
            "cls": loss_cls.sum() / (len(image) + len(targets)),
            "box": config.box_weight * loss_box / max(len(image), 1),
        }

    # ------------------------------------------------------------------ answer
    def candidates(self, out: FoveaBoxOutput, image_sizes: list[tuple[int, int]]) -> Candidates:
        """The score alone ranks; boxes end at the last pixel, not at the border."""
        last = [(h - 1, w - 1) for h, w in image_sizes]
        if len(last) == 1:  # one size for all: no loop over images, whose number an exported program does not know
            boxes = clip(out.boxes, last[0])
        else:
            boxes = torch.stack([clip(b, size) for b, size in zip(out.boxes, last, strict=True)])
        return Candidates(out.logits.sigmoid(), boxes, [h * w for h, w in out.level_shapes])
