"""The small parts that necks and heads share."""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vfnet_edu.ops.dcn import ModulatedDeformConv2d


class ConvNorm(nn.Module):
    """3x3 convolution, then GroupNorm(32), then optionally ReLU.  (B, C, H, W) -> (B, C', H', W')

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
            x = self.norm(x.contiguous() if self.slow_as_rows(x) else x)
        return x.relu_() if self.relu else x

    def slow_as_rows(self, x: Tensor) -> bool:
        """Whether PyTorch's GroupNorm is slow on a channels_last `x`: on a CPU with few channels to a group.

        Measured with 2 channels to a group, (8, 64, 16, 16): 30 times as slow as on a contiguous one; with 8, as fast.
        """
        assert self.norm is not None
        return x.device.type == "cpu" and self.norm.num_channels < 8 * self.norm.num_groups


def tower(c_in: int, channels: int, depth: int, norm: bool = True, dcn_on_last: bool = False) -> nn.Sequential:
    """`depth` convolutions in a row, each with ReLU: the trunk of a branch.  (B, c_in, H, W) -> (B, channels, H, W)"""
    return nn.Sequential(
        *[
            ConvNorm(c_in if i == 0 else channels, channels, norm=norm, relu=True, dcn=dcn_on_last and i == depth - 1)
            for i in range(depth)
        ]
    )


def init_normal(module: nn.Module, std: float = 0.01) -> None:
    """Plain convolutions from N(0, std), biases 0; a deformable one keeps its own initialisation."""
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
    classes differ from the first step, and the head does not spend hundreds of steps telling object from background.

    Derived in chapter 7.
    """
    nn.init.normal_(conv.weight, std=std)
    nn.init.constant_(conv.get_parameter("bias"), -math.log((1 - probability) / probability))


def flatten_levels(maps: Sequence[Tensor], depth: int) -> Tensor:
    """L maps (B, A*depth, H, W) -> one list of predictions (B, P, depth), P = sum of H*W*A.  See chapter 4."""
    return torch.cat([m.permute(0, 2, 3, 1).reshape(m.shape[0], -1, depth) for m in maps], dim=1)


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Identity forward; gradient times `factor` backward.  (What for: chapter 12.)"""
    return x.detach() * (1 - factor) + x * factor


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of `x` over all processes: every rank must call this, even one without a positive, or all hang.

    Only where gradients are computed: in an evaluation ranks may hold different numbers of batches.
    """
    if dist.is_available() and dist.is_initialized() and torch.is_grad_enabled():
        x = x.detach().clone()
        dist.all_reduce(x.div_(dist.get_world_size()))
    return x
