"""The small parts that necks and heads share."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vfnet_edu.ops.dcn import ModulatedDeformConv2d
from vfnet_edu.priors import ceil32, valid_cells


class ConvNorm(nn.Module):
    """3x3 convolution, then GroupNorm(32), then perhaps ReLU.  (B, C, H, W) -> (B, C', H', W')

    With a norm the convolution has no bias, without one it has.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 3,
        stride: int = 1,
        norm: bool = True,
        relu: bool = False,
        dcn: bool = False,
    ):
        super().__init__()
        if dcn:
            self.conv = ModulatedDeformConv2d(c_in, c_out, stride)
        else:
            self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=not norm)
        self.norm = nn.GroupNorm(32, c_out) if norm else None
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return x.relu_() if self.relu else x


def tower(c_in: int, channels: int, depth: int, norm: bool = True, dcn_on_last: bool = False) -> nn.Sequential:
    """`depth` convolutions in a row, each with ReLU: the trunk of a branch.  (B, c_in, H, W) -> (B, channels, H, W)"""
    return nn.Sequential(
        *[
            ConvNorm(c_in if i == 0 else channels, channels, norm=norm, relu=True, dcn=dcn_on_last and i == depth - 1)
            for i in range(depth)
        ]
    )


def init_normal(module: nn.Module, std: float = 0.01) -> None:
    """Plain convolutions from N(0, std), biases 0; a deformable one keeps its own start."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.normal_(m.weight, std=std)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    for m in module.modules():  # the offset predictors are nn.Conv2d too, but must start at zero
        if isinstance(m, ModulatedDeformConv2d):
            m.start_as_plain()


def start_scores(conv: nn.Conv2d, std: float = 0.01, probability: float = 0.01) -> None:
    """Start the last classification layer with every score near `probability` (RetinaNet, section 3.3).

    `std` is that of its weights, 0.01 in every published row.  Without ImageNet weights 0.1 to 0.3 is better: the
    classes differ from the first step, and the head does not spend hundreds of steps on telling object from background.
    """
    nn.init.normal_(conv.weight, std=std)
    nn.init.constant_(conv.bias, -math.log((1 - probability) / probability))


def flatten_levels(maps: Sequence[Tensor], depth: int) -> Tensor:
    """L maps (B, A*depth, H, W) -> one list of predictions (B, P, depth), P = sum of H*W*A"""
    return torch.cat([m.permute(0, 2, 3, 1).reshape(m.shape[0], -1, depth) for m in maps], dim=1)


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Identity forward; gradient times `factor` backward."""
    return x.detach() * (1 - factor) + x * factor


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of `x` over all processes: every rank must call this, also one without a positive, or all hang.

    Only where gradients are taken: in an evaluation ranks may hold different numbers of batches.
    """
    if dist.is_available() and dist.is_initialized() and torch.is_grad_enabled():
        x = x.detach().clone()
        dist.all_reduce(x.div_(dist.get_world_size()))
    return x


def assign_images(
    assign: Callable[[Tensor, list[int], Tensor, Tensor], Tensor],
    priors: Tensor,
    level_shapes: list[tuple[int, int]],
    strides: Sequence[int],
    targets: list[dict[str, Tensor]],
    image_sizes: list[tuple[int, int]],
    unmapped: int,
    per_cell: int = 1,
) -> Tensor:
    """Run an assigner image by image on the priors that lie on the image.  -> (B, P) int64

    Args:
        assign: (priors (V, ·), level sizes, gt boxes (G, 4), gt labels (G,)) -> match (V,).
        priors: (P, ·) of all levels, shared by the images, or (B, P, ·) of each image.
        level_shapes: (H, W) of each level.
        strides: of each level.
        targets: per image ``{"boxes": (G, 4), "labels": (G,)}``.
        image_sizes: (height, width) of each image without padding.
        unmapped: the mark of a prior on batch padding.
        per_cell: priors per cell.
    """
    device, matches = priors.device, []
    for i, (target, size) in enumerate(zip(targets, image_sizes, strict=True)):
        padded = (ceil32(size[0]), ceil32(size[1]))
        levels = [
            valid_cells(hw, s, padded, device).repeat_interleave(per_cell)
            for hw, s in zip(level_shapes, strides, strict=True)
        ]
        valid = torch.cat(levels)  # (P,)
        match = torch.full_like(valid, unmapped, dtype=torch.int64)
        own = (priors if priors.dim() == 2 else priors[i])[valid]
        match[valid] = assign(own, [int(v.sum()) for v in levels], target["boxes"], target["labels"])
        matches.append(match)
    return torch.stack(matches)


def matched_truth(targets: list[dict[str, Tensor]], match: Tensor, image: Tensor, prior: Tensor):
    """The box and the class that each of N positives must predict.  -> (N, 4), (N,)

    match (B, P) holds gt indices within their image; (image, prior) name the positives.
    """
    counts = torch.tensor([0] + [len(t["labels"]) for t in targets[:-1]], device=match.device)
    row = match[image, prior] + counts.cumsum(0)[image]
    return torch.cat([t["boxes"] for t in targets])[row], torch.cat([t["labels"] for t in targets])[row]
