"""Deformable convolutions: the nine samples of a 3x3 kernel are moved, by offsets that are given or predicted."""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

GRID = (-1, -1, -1, 0, -1, 1, 0, -1, 0, 0, 0, 1, 1, -1, 1, 0, 1, 1)  # (y, x) of the nine taps, row by row, in cells


def deformable_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    stride: int = 1,
    bias: Tensor | None = None,
) -> Tensor:
    """Deformable 3x3 convolution.  (B, C, H, W) -> (B, C', H/stride, W/stride)

    Args:
        x: (B, C, H, W) features.
        offset: (B, 18, H/stride, W/stride) in cells: (dy, dx) of the nine taps, as displacements from :data:`GRID`.
        weight: (C', C/groups, 3, 3); the number of groups follows from its shape.
        mask: (B, 9, H/stride, W/stride) factor of each sample (DCNv2); None: all ones (DCNv1).
        stride: of the convolution.
        bias: (C',).

    Source: Dai et al. 2017 (Deformable ConvNets), equation 2; Zhu et al. 2019 (v2), equation 1.  Samples are bilinear,
    and 0 outside the map.  An exported program gets :func:`by_grid_sample`, made of standard operators.
    """
    # torchvision samples in one precision and has no bfloat16: leave autocast here, for at least float32
    dtype = torch.promote_types(x.dtype, torch.float32)
    # torchvision turns a NaN into an address and crashes
    outside = 2.0**20  # cells: farther than any sample
    safe = offset.to(dtype).nan_to_num(nan=outside).clamp(-outside, outside)
    with _no_autocast(x):
        mask, bias = (None if t is None else t.to(dtype) for t in (mask, bias))
        if torch.compiler.is_exporting():
            y = by_grid_sample(x.to(dtype), safe, weight.to(dtype), mask, stride, bias)
        else:
            y = deform_conv2d(x.to(dtype), safe, weight.to(dtype), bias, (stride, stride), padding=(1, 1), mask=mask)
    return y.masked_fill(offset.isnan().any(1, keepdim=True), torch.nan).to(x.dtype)


def by_grid_sample(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None = None, stride: int = 1, bias: Tensor | None = None
) -> Tensor:
    """:func:`deformable_conv2d` in its plain form: nine maps of samples, then a 1x1 convolution over all of them.

    No format of other programs has torchvision's operator, but all have this one.  It holds nine times the memory of
    `x`; offsets have to be numbers.
    """
    batch, channels, height, width = x.shape
    rows, columns = offset.shape[-2:]
    taps = offset.new_tensor(GRID).view(9, 2, 1, 1)
    moved = offset.reshape(batch, 9, 2, rows, columns) + taps  # (B, 9, 2, H', W') from the middle of the kernel
    y = moved[:, :, 0] + torch.arange(rows, device=x.device, dtype=x.dtype)[:, None] * stride  # (B, 9, H', W') cells
    x_ = moved[:, :, 1] + torch.arange(columns, device=x.device, dtype=x.dtype) * stride
    grid = torch.stack([(2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1], -1)  # -1 .. 1 from border to border
    grid = grid.reshape(batch, 9 * rows, columns, 2)
    samples = F.grid_sample(x, grid, align_corners=False).reshape(batch, channels, 9, rows, columns)
    if mask is not None:
        samples = samples * mask[:, None]
    samples = samples.reshape(batch, channels * 9, rows, columns)
    return F.conv2d(samples, weight.flatten(1)[:, :, None, None], bias, groups=channels // weight.shape[1])


def _no_autocast(x: Tensor):
    """Off while inside; there is none to switch off on the meta device."""
    device = x.device.type
    return contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


class ModulatedDeformConv2d(nn.Module):
    """Modulated deformable 3x3 convolution (DCNv2), no bias.  (B, C, H, W) -> (B, C', H/stride, W/stride)

    Source: Zhu et al. 2019 (Deformable ConvNets v2), equation 1.  One plain convolution predicts 27 numbers per
    place: nine (dy, dx) offsets, then nine masks.  Offsets start at 0 and masks at sigmoid(0) = 0.5, so at first it
    is half a plain convolution; published weights expect exactly this, without a factor of two.
    """

    bias: nn.Parameter | None

    def __init__(self, c_in: int, c_out: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(c_out, c_in // groups, 3, 3))
        self.register_parameter("bias", None)  # none of its own; one that a norm is folded into (models/fold.py)
        self.conv_offset = nn.Conv2d(c_in, 27, 3, stride, padding=1)
        bound = (9 * c_in) ** -0.5  # the authors divide by all input channels, even with groups
        nn.init.uniform_(self.weight, -bound, bound)
        self.start_as_plain()

    def start_as_plain(self) -> None:
        """Offsets 0 and masks one half: the regular grid."""
        for parameter in self.conv_offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        with _no_autocast(x):  # positions need more than 8 bits
            wide = x.to(self.weight.dtype)
            offset, mask = self.conv_offset(wide).split([18, 9], dim=1)  # (B, 18, H', W'), (B, 9, H', W')
        return deformable_conv2d(wide, offset, self.weight, mask.sigmoid(), self.stride, self.bias).to(x.dtype)
