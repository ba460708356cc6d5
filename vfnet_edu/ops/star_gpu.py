"""The star-deformable convolution as a PyTorch operator on the Triton kernels: layout, launches, gradients.

Reached only when a CUDA device or Triton's interpreter computes; everything else runs without Triton. The layout of the
arrays is described in :mod:`vfnet_edu.ops.star_triton`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vfnet_edu.errors import UserError
from vfnet_edu.ops.star_reference import READS_PER_TAP, star_reads
from vfnet_edu.ops.star_triton import (
    launch_options,
    pack_level,
    star_backward_input,
    star_backward_weight,
    star_forward,
    star_gather_gradient,
)


def star_conv2d_pyramid_triton(
    branches: Sequence[tuple[Sequence[Tensor], Tensor]], ltrbs: Sequence[Tensor], strides: Sequence[int]
) -> list[list[Tensor]]:
    """See :func:`vfnet_edu.ops.star.star_conv2d_pyramid`. The maps come back channels_last."""
    batch = len(ltrbs[0])
    outputs, channels = branches[0][1].shape[:2]
    padding = -channels % 32, -outputs % 32  # the kernels know multiples of 32
    sizes = [ltrb[:, 0].numel() for ltrb in ltrbs]
    width = max(channels + padding[0], outputs + padding[1])
    if sum(sizes) * width >= 2**31:
        raise UserError(
            f"star engine 'triton': {sum(sizes)} locations of {width} channels exceed 32-bit indices",
            remedy="use a smaller batch, or VFNET_EDU_STAR=torchvision",
        )
    x = torch.cat([_rows(x) for xs, _ in branches for x in xs]).view(len(branches), -1, channels)  # (R, P, C)
    edges = torch.cat([_rows(ltrb) for ltrb in ltrbs])  # (P, 4)
    weight = torch.stack([weight.permute(0, 2, 3, 1).flatten(1, 2) for _, weight in branches])  # (R, O, 9, C)
    if any(padding):
        x = F.pad(x, (0, padding[0]))
        weight = F.pad(weight, (0, padding[0], 0, 0, 0, padding[1]))
    levels = [n for ltrb, stride in zip(ltrbs, strides, strict=True) for n in (*ltrb.shape[2:], stride)]
    out = star_conv(x, edges, weight, batch, levels).flatten(0, 1)  # (R P, O)
    if any(padding):
        out = out[:, :outputs]
    rows = iter(out.split(sizes * len(branches)))
    return [
        [next(rows).view(batch, *ltrb.shape[2:], outputs).permute(0, 3, 1, 2) for ltrb in ltrbs]  # (B, O, H, W) each
        for _ in branches
    ]


def _rows(maps: Tensor) -> Tensor:
    """(B, C, H, W) to (B H W, C): a view if the maps are channels_last."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


@torch.library.custom_op("vfnet_edu::star_conv", mutates_args=())
def star_conv(x: Tensor, ltrb: Tensor, weight: Tensor, batch: int, levels: Sequence[int]) -> Tensor:
    """x (R, P, C), ltrb (P, 4), weight (R, O, 9, C), levels (height, width, stride of each) to (R, P, O)."""
    branches, rows, channels = x.shape
    outputs = weight.shape[1]
    out = x.new_empty(branches, rows, outputs)
    options = _options("forward", x, weight)
    packed, tiles = _levels(batch, levels, options["M"])
    _launch(
        star_forward, (tiles, outputs // options["N"], branches),
        x, ltrb, weight, out, packed, batch, rows, C=channels, OUT=outputs, **options,
    )  # fmt: skip
    return out


@star_conv.register_fake
def _(x, ltrb, weight, batch, levels):
    return x.new_empty(x.shape[0], x.shape[1], weight.shape[1])


@torch.library.custom_op("vfnet_edu::star_conv_backward", mutates_args=())
def star_conv_backward(
    grad: Tensor, x: Tensor, ltrb: Tensor, weight: Tensor, batch: int, levels: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, ltrb and weight, from grad (R, P, O)."""
    branches, rows, channels = x.shape
    outputs = weight.shape[1]
    grad = grad.contiguous()

    atomic = not torch.are_deterministic_algorithms_enabled()
    dx = torch.zeros_like(x, dtype=torch.float32) if atomic else _ordered_dx(grad, ltrb, weight, batch, levels)
    dltrb = ltrb.new_empty(branches, rows, 4)
    options = _options("backward_input", x, weight)
    packed, tiles = _levels(batch, levels, options["M"])
    _launch(
        star_backward_input, (tiles, branches),
        grad, x, ltrb, weight, dx, dltrb, packed, batch, rows, C=channels, OUT=outputs, ATOMIC=atomic, **options,
    )  # fmt: skip

    options = _options("backward_weight", x, weight)
    packed, tiles = _levels(batch, levels, options["M"])
    blocks = 9 * (channels // options["K"]) * (outputs // options["N"])
    parts = max(1, min(tiles, 400 // (blocks * branches)))  # 400 programs: three per multiprocessor of an H200
    part = x.new_empty(parts, branches, 9, channels, outputs, dtype=torch.float32)
    _launch(
        star_backward_weight, (blocks, parts, branches),
        grad, x, ltrb, part, packed, batch, rows, tiles, C=channels, OUT=outputs, PARTS=parts, **options,
    )  # fmt: skip
    dweight = part.sum(0).permute(0, 3, 1, 2)  # (R, O, 9, C)
    return dx.to(x.dtype), dltrb.sum(0), dweight.to(weight.dtype, memory_format=torch.contiguous_format)


@star_conv_backward.register_fake
def _(grad, x, ltrb, weight, batch, levels):
    return torch.empty_like(x), torch.empty_like(ltrb), torch.empty_like(weight)


def _setup_context(ctx, inputs, output):
    x, ltrb, weight, ctx.batch, ctx.levels = inputs
    ctx.save_for_backward(x, ltrb, weight)


def _backward(ctx, grad):
    return *star_conv_backward(grad, *ctx.saved_tensors, ctx.batch, ctx.levels), None, None


star_conv.register_autograd(_backward, setup_context=_setup_context)


def _ordered_dx(grad: Tensor, ltrb: Tensor, weight: Tensor, batch: int, levels: Sequence[int]) -> Tensor:
    """The gradient of x with its additions in one order: write the columns, sort the reads by the cell they read."""
    branches, rows, _ = grad.shape
    channels = weight.shape[3]
    cells, factors, first = [], [], 0
    for height, width, stride in zip(levels[::3], levels[1::3], levels[2::3], strict=True):
        last = first + batch * height * width
        level = ltrb[first:last].view(batch, height, width, 4).permute(0, 3, 1, 2)
        cell, factor = star_reads(level, stride)  # (B, H, W, 25)
        image = first + height * width * torch.arange(batch, device=cell.device)[:, None, None, None]
        cells.append((image + cell).flatten(0, 2))
        factors.append(factor.flatten(0, 2))
        first = last
    cell, factor = torch.cat(cells).flatten(), torch.cat(factors).flatten()  # (25 P,)
    cell = torch.where(factor == 0, rows, cell)  # most often outside the map: sort it behind the last cell, unread
    cell, order = cell.sort(stable=True)
    begin = torch.searchsorted(cell, torch.arange(rows + 1, device=cell.device))
    tap = torch.arange(9, device=cell.device).repeat_interleave(torch.tensor(READS_PER_TAP, device=cell.device))
    column_row = order // 25 * 9 + tap[order % 25]
    dx = grad.new_empty(branches, rows, channels, dtype=torch.float32)
    block = math.gcd(256, channels)
    for branch in range(branches):
        column = grad[branch] @ weight[branch].flatten(1)  # (P, 9 C)
        _launch(
            star_gather_gradient, (rows, channels // block),
            column, column_row, factor[order], begin, dx[branch], C=channels, K=block, READS=16,
        )  # fmt: skip
    return dx


def _levels(batch: int, levels: Sequence[int], tile: int) -> tuple[tuple[int, ...], int]:
    """The levels as the kernels take them, and the number of tiles in all."""
    sizes = list(zip(levels[::3], levels[1::3], levels[2::3], strict=True))
    tiles = sum(-(-batch * height * width // tile) for height, width, _ in sizes)
    return tuple(pack_level(*size) for size in sizes), tiles


def _options(kernel: str, x: Tensor, weight: Tensor) -> dict:
    """:func:`launch_options` for these operands. float32 follows ``torch.set_float32_matmul_precision``, as matmul."""
    product = "16 bit"
    if x.dtype == torch.float32:
        product = "bf16x6" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    capability = torch.cuda.get_device_capability(x.device) if x.is_cuda else (9, 0)
    return launch_options(kernel, product, x.shape[2], weight.shape[1], capability)


def _launch(kernel, grid: tuple[int, ...], *arguments, **options) -> None:
    with torch.cuda.device_of(arguments[0]):  # Triton launches on the current device, wherever the arguments are
        kernel[grid](*arguments, **options)
