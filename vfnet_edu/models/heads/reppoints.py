"""RepPoints (Yang et al. 2019): nine free points per location are both the box and what the head looks at.

    reg tower ── nine points ─┬─ deformable convolution ── moved points ── box
    cls tower ────────────────┴─ deformable convolution ── score

VarifocalNet's star is the same idea with four numbers instead of eighteen.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vfnet_edu.assigners import IGNORED, assign_images, matched_truth, max_iou, nearest_point
from vfnet_edu.boxes import iou
from vfnet_edu.losses import focal_loss, smooth_l1_loss, varifocal_loss
from vfnet_edu.models.layers import flatten_levels, init_normal, scale_gradient, start_scores, tower
from vfnet_edu.ops.dcn import GRID, deformable_conv2d
from vfnet_edu.postprocess import Candidates
from vfnet_edu.priors import per_point, pyramid_points


@dataclass(frozen=True)
class RepPointsConfig:
    """Everything that shapes the head and its losses."""

    classes: int = 80
    score_std: float = 0.01  # std of the last classification layer's first weights; from scratch 0.1 to 0.3 is better
    channels: int = 256
    depth: int = 3  # convolutions per tower
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    point_gradient: float = 0.1  # share of the deformable convolutions' gradient that reaches the first points
    moment_gradient: float = 0.01  # share of the gradient that reaches `log_spread`
    base_scale: float = 4.0  # in strides: the box size a level is for, and unit of its box losses
    positive_iou: float = 0.5  # second stage: IoU of the first box with the truth
    negative_iou: float = 0.4
    loss: Literal["varifocal", "focal"] = "varifocal"
    alpha: float = 0.75  # varifocal: weight of negatives; focal: use 0.25
    gamma: float = 2.0
    box_weight: float = 0.5  # smooth L1 loss of the first box
    refine_weight: float = 1.0  # smooth L1 loss of the second
    beta: float = 0.11  # smooth L1: where the parabola ends

    def build(self, in_channels: int) -> "RepPointsHead":
        """The head for a pyramid of `in_channels`, with fresh weights."""
        return RepPointsHead(self, in_channels)


class RepPointsOutput(NamedTuple):
    logits: Tensor  # (B, P, K)  before the sigmoid
    boxes: Tensor  # (B, P, 4)  of the first nine points, xyxy pixels
    refined: Tensor  # (B, P, 4)  of the moved points: what we report
    first: Tensor  # (B, P, 9, 2)  where they lie: (x, y) in strides, from the location
    moved: Tensor  # (B, P, 9, 2)
    points: Tensor  # (P, 3)  the locations: (x, y) pixels and the stride
    level_shapes: list[tuple[int, int]]  # (H, W) of every level


class RepPointsHead(nn.Module):
    """One head for all levels.

    Args:
        config: its shape and its losses.
        in_channels: channels of the pyramid; by default those of the head.
    """

    def __init__(self, config: RepPointsConfig = RepPointsConfig(), in_channels: int | None = None):
        super().__init__()
        self.config, c = config, config.channels
        self.cls_tower = tower(in_channels or c, c, config.depth)
        self.reg_tower = tower(in_channels or c, c, config.depth)
        self.points_conv = nn.Conv2d(c, c, 3, padding=1)
        self.points_out = nn.Conv2d(c, 18, 1)
        self.refine_points = nn.Parameter(torch.empty(c, c, 3, 3))
        self.refine_out = nn.Conv2d(c, 18, 1)
        self.score_points = nn.Parameter(torch.empty(c, c, 3, 3))
        self.score_out = nn.Conv2d(c, config.classes, 1)
        self.log_spread = nn.Parameter(torch.zeros(2))  # x, y: from standard deviation to half a side
        init_normal(self)
        start_scores(self.score_out, config.score_std)
        for weight in (self.refine_points, self.score_points):
            nn.init.normal_(weight, std=0.01)

    # ------------------------------------------------------------------ predict
    def forward(self, pyramid: list[Tensor]) -> RepPointsOutput:
        """L maps (B, C, H, W) -> predictions at all P points of all levels"""
        config, device = self.config, pyramid[0].device
        logits, first, moved = [], [], []
        for x in pyramid:
            cls, reg = self.cls_tower(x), self.reg_tower(x)  # (B, C, H, W), (B, C, H, W)
            yx = self.points_out(self.points_conv(reg).relu()).float()  # (B, 18, H, W) in strides, from the location
            # the convolution adds its grid: subtract it first
            offset = scale_gradient(yx, config.point_gradient) - yx.new_tensor(GRID).view(18, 1, 1)
            seen = deformable_conv2d(reg, offset, self.refine_points).relu()  # (B, C, H, W)
            first.append(yx)
            moved.append(self.refine_out(seen).float() + yx.detach())
            logits.append(self.score_out(deformable_conv2d(cls, offset, self.score_points).relu()))
        shapes = [(x.shape[-2], x.shape[-1]) for x in pyramid]
        centre = pyramid_points(shapes, config.strides, device=device)  # (P, 2)
        points = torch.cat([centre, per_point(config.strides, shapes, device)[:, None]], 1)  # (P, 3)
        first, moved = (flatten_levels(yx, 18).unflatten(-1, (9, 2)).flip(-1) for yx in (first, moved))  # (B, P, 9, 2)
        return RepPointsOutput(
            logits=flatten_levels(logits, config.classes).float(),
            boxes=self.box_of(first, points),
            refined=self.box_of(moved, points),
            first=first,
            moved=moved,
            points=points,
            level_shapes=shapes,
        )

    def box_of(self, nine: Tensor, points: Tensor) -> Tensor:
        """Nine points to a box by their moments.  (B, P, 9, 2) in strides, (P, 3) -> (B, P, 4) xyxy pixels

        Source: paper, section 3.3: the centre is their mean, half a side their standard deviation times a factor that
        is learned for all boxes together.
        """
        spread = scale_gradient(self.log_spread, self.config.moment_gradient).exp()
        middle, half = nine.mean(-2), nine.std(-2) * spread  # (B, P, 2), (B, P, 2)
        return torch.cat([middle - half, middle + half], -1) * points[:, 2:] + points[:, :2].repeat(1, 2)

    # ------------------------------------------------------------------ learn
    def loss(
        self, out: RepPointsOutput, targets: list[dict[str, Tensor]], image_sizes: list[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """Classification, and smooth L1 of both boxes.  -> {"cls", "box", "refine"}, scalars to be summed

        The first box is learned by the one point nearest to each object, the second box and the class by all points
        whose first box already fits.  Normalised by the positives of this process alone.
        """
        config = self.config
        where = (out.level_shapes, config.strides, targets, image_sizes, IGNORED)
        match = assign_images(
            lambda points, sizes, boxes, labels: nearest_point(points, boxes, config.base_scale), out.points, *where
        )  # (B, P)
        image, point = torch.nonzero(match >= 0, as_tuple=True)
        true_box, _ = matched_truth(targets, match, image, point)
        loss_box = self.box_loss(out.boxes[image, point], true_box, out.points[point])
        first_positives = (match >= 0).sum(1).clamp(min=1).sum()  # an image without a positive counts as one

        match = assign_images(
            lambda boxes, sizes, truth, labels: max_iou(boxes, truth, config.positive_iou, config.negative_iou),
            out.boxes.detach(), *where,
        )  # (B, P)  # fmt: skip
        image, point = torch.nonzero(match >= 0, as_tuple=True)  # (N,), (N,) the positives
        true_box, label = matched_truth(targets, match, image, point)  # (N, 4), (N,)
        refined = out.refined[image, point]  # (N, 4)
        loss_refine = self.box_loss(refined, true_box, out.points[point])
        positives = (match >= 0).sum(1).clamp(min=1).sum()

        target = torch.zeros_like(out.logits)  # (B, P, K)
        if config.loss == "focal":
            target[image, point, label] = 1.0
            loss_cls = focal_loss(out.logits, target, config.alpha, config.gamma)
        else:  # an IoU of 0 is not raised: such a positive becomes a negative, as in the authors' code
            target[image, point, label] = iou(refined.detach(), true_box)
            loss_cls = varifocal_loss(out.logits, target, config.alpha, config.gamma)
        learned = (match != IGNORED)[..., None]  # all but those between the thresholds or on padding
        return {
            "cls": (loss_cls * learned).sum() / positives,
            "box": config.box_weight * loss_box / first_positives,
            "refine": config.refine_weight * loss_refine / positives,
        }

    def box_loss(self, boxes: Tensor, truth: Tensor, points: Tensor) -> Tensor:
        """Smooth L1 in units of the level's base scale, summed.  (N, 4), (N, 4), (N, 3) -> scalar"""
        unit = self.config.base_scale * points[:, 2:]
        return smooth_l1_loss(boxes / unit, truth / unit, self.config.beta).sum()

    # ------------------------------------------------------------------ answer
    def candidates(self, out: RepPointsOutput, image_sizes: list[tuple[int, int]]) -> Candidates:
        """The score alone ranks."""
        return Candidates(out.logits.sigmoid(), out.refined, [h * w for h, w in out.level_shapes])
