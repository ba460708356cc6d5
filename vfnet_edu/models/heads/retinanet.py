"""RetinaNet (Lin et al. 2017): nine anchors per point, matched by their IoU; a class branch and a box branch."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vfnet_edu.assigners import IGNORED, assign_images, matched_truth, max_iou
from vfnet_edu.boxes import decode_deltas, encode_deltas, iou
from vfnet_edu.losses import focal_loss, varifocal_loss
from vfnet_edu.models.layers import flatten_levels, init_normal, start_scores, tower
from vfnet_edu.postprocess import Candidates
from vfnet_edu.priors import pyramid_anchors


@dataclass(frozen=True)
class RetinaNetConfig:
    """Everything that shapes the head and its losses."""

    classes: int = 80
    score_std: float = 0.01  # std of the last classification layer's first weights; from scratch 0.1 to 0.3 is better
    channels: int = 256
    depth: int = 4  # convolutions per tower, without norm
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    anchor_sizes: tuple[float, ...] = (4.0, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3))  # sides, in strides
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    positive_iou: float = 0.5
    negative_iou: float = 0.4  # an anchor in between learns nothing
    loss: Literal["varifocal", "focal"] = "varifocal"
    alpha: float = 0.75  # varifocal: weight of negatives; focal: use 0.25
    gamma: float = 2.0
    box_weight: float = 1.0  # L1 loss of the deltas

    def build(self, in_channels: int) -> "RetinaNetHead":
        """The head for a pyramid of `in_channels`, with fresh weights."""
        return RetinaNetHead(self, in_channels)


class RetinaNetOutput(NamedTuple):
    logits: Tensor  # (B, P, K)  before the sigmoid; P = sum of H*W*A, the A anchors of a point together
    deltas: Tensor  # (B, P, 4)
    anchors: Tensor  # (P, 4)
    level_shapes: list[tuple[int, int]]  # (H, W) of every level

    @property
    def boxes(self) -> Tensor:
        """(B, P, 4) xyxy pixels"""
        return decode_deltas(self.anchors, self.deltas)


class RetinaNetHead(nn.Module):
    """One head for all levels.

    Args:
        config: its shape and its losses.
        in_channels: channels of the pyramid; by default those of the head.
    """

    def __init__(self, config: RetinaNetConfig = RetinaNetConfig(), in_channels: int | None = None):
        super().__init__()
        self.config, c = config, config.channels
        self.per_cell = len(config.anchor_sizes) * len(config.anchor_ratios)
        self.cls_tower = tower(in_channels or c, c, config.depth, norm=False)
        self.reg_tower = tower(in_channels or c, c, config.depth, norm=False)
        self.score_out = nn.Conv2d(c, self.per_cell * config.classes, 3, padding=1)
        self.delta_out = nn.Conv2d(c, self.per_cell * 4, 3, padding=1)
        init_normal(self)
        start_scores(self.score_out, config.score_std)

    # ------------------------------------------------------------------ predict
    def forward(self, pyramid: list[Tensor]) -> RetinaNetOutput:
        """L maps (B, C, H, W) -> predictions for all P anchors of all levels"""
        config = self.config
        logits = [self.score_out(self.cls_tower(x)) for x in pyramid]  # (B, A*K, H, W) each
        deltas = [self.delta_out(self.reg_tower(x)) for x in pyramid]  # (B, A*4, H, W) each
        shapes = [(x.shape[-2], x.shape[-1]) for x in pyramid]
        return RetinaNetOutput(
            logits=flatten_levels(logits, config.classes).float(),
            deltas=flatten_levels(deltas, 4).float(),
            anchors=pyramid_anchors(
                shapes, config.strides, config.anchor_sizes, config.anchor_ratios, device=pyramid[0].device
            ),
            level_shapes=shapes,
        )

    # ------------------------------------------------------------------ learn
    def loss(
        self, out: RetinaNetOutput, targets: list[dict[str, Tensor]], image_sizes: list[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """Classification and L1 of the deltas.  -> {"cls", "box"}, scalars to be summed

        Both are divided by the positives of this process alone, an image without one counting as one.
        """
        config = self.config
        match = assign_images(
            lambda anchors, sizes, boxes, labels: max_iou(anchors, boxes, config.positive_iou, config.negative_iou),
            out.anchors, out.level_shapes, config.strides, targets, image_sizes, IGNORED, self.per_cell,
        )  # (B, P)  # fmt: skip
        image, prior = torch.nonzero(match >= 0, as_tuple=True)  # (N,), (N,) the positives
        true_box, label = matched_truth(targets, match, image, prior)  # (N, 4), (N,)
        anchor, delta = out.anchors[prior], out.deltas[image, prior]  # (N, 4), (N, 4)
        true_delta = encode_deltas(anchor, true_box)  # (N, 4)
        positives = (match >= 0).sum(1).clamp(min=1).sum()

        target = torch.zeros_like(out.logits)  # (B, P, K)
        if config.loss == "focal":
            target[image, prior, label] = 1.0
            loss_cls = focal_loss(out.logits, target, config.alpha, config.gamma)
        else:  # an IoU of 0 is not raised: such a positive becomes a negative, as in the authors' code
            quality = iou(decode_deltas(anchor, delta.detach()), decode_deltas(anchor, true_delta))
            target[image, prior, label] = quality
            loss_cls = varifocal_loss(out.logits, target, config.alpha, config.gamma)
        learned = (match != IGNORED)[..., None]  # all but those between the thresholds or on padding
        return {
            "cls": (loss_cls * learned).sum() / positives,
            "box": config.box_weight * (delta - true_delta).abs().sum() / positives,
        }

    # ------------------------------------------------------------------ answer
    def candidates(self, out: RetinaNetOutput, image_sizes: list[tuple[int, int]]) -> Candidates:
        """The score alone ranks; each anchor counts as a place of its own."""
        return Candidates(out.logits.sigmoid(), out.boxes, [h * w * self.per_cell for h, w in out.level_shapes])
