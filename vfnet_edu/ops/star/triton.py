"""The star-deformable convolution as a PyTorch operator on the Triton kernels: layout, launches, gradients.

Imported only where a CUDA device or Triton's interpreter does the work; everything else runs without Triton. The layout
of the arrays is described in :mod:`vfnet_edu.ops.star.triton_kernels`.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, islice

import torch
import torch.nn.functional as F
from torch import Tensor

from vfnet_edu.ops.star.reference import READS_PER_TAP, star_reads
from vfnet_edu.ops.star.triton_kernels import (
    launch_options,
    pack_level,
    star_backward_input,
    star_backward_weight,
    star_forward,
    star_gather_gradient,
)
from vfnet_edu.runtime.errors import UserError


def star_conv2d_pyramid_triton(
    branches: Sequence[tuple[Sequence[Tensor], Tensor]], ltrbs: Sequence[Tensor], strides: Sequence[int]
) -> list[list[Tensor]]:
    """See :func:`vfnet_edu.ops.star.operator.star_conv2d_pyramid`. The maps come back channels_last."""
    outputs, channels = branches[0][1].shape[:2]
    more_in, more_out = -channels % 32, -outputs % 32  # the kernels take multiples of 32 only
    width = max(channels + more_in, outputs + more_out)
    largest = max(ltrb[:, 0].numel() for ltrb in ltrbs)
    if largest * width >= 2**31:
        raise UserError(
            f"star engine 'triton': a level of {largest} locations and {width} channels exceeds 32-bit indices",
            remedy="use a smaller batch, or VFNET_EDU_STAR=torchvision",
        )
    xs, weights = [x for xs, _ in branches for x in xs], [weight for _, weight in branches]
    if more_in:
        xs = [F.pad(x, (0, 0, 0, 0, 0, more_in)) for x in xs]
    if more_in or more_out:
        weights = [F.pad(weight, (0, 0, 0, 0, 0, more_in, 0, more_out)) for weight in weights]
    outs = star_conv(xs, list(ltrbs), weights, list(strides))
    if more_out:
        outs = [out[:, :outputs] for out in outs]
    return [outs[i : i + len(ltrbs)] for i in range(0, len(outs), len(ltrbs))]


@torch.library.custom_op("vfnet_edu::star_conv", mutates_args=())
def star_conv(
    xs: Sequence[Tensor], ltrbs: Sequence[Tensor], weights: Sequence[Tensor], strides: Sequence[int]
) -> list[Tensor]:
    """All levels of all branches: xs branch by branch, each (B, C, H, W), ltrbs (B, 4, H, W), to (B, O, H, W)."""
    xs, ltrbs, weights = map(_rows, (xs, ltrbs, weights))
    outs = _outs(xs, weights)
    channels, outputs = xs[0].shape[1], weights[0].shape[0]
    options = _options("forward", xs[0], weights[0])
    levels, tiles = _levels(ltrbs, strides, options["M"])
    _launch(
        star_forward, (tiles, outputs // options["N"], len(weights)), xs[0],
        xs, ltrbs, weights, outs, levels, len(xs[0]), C=channels, OUT=outputs, **options,
    )  # fmt: skip
    return outs


@star_conv.register_fake
def _(xs, ltrbs, weights, strides):
    return _outs(xs, weights)


@torch.library.custom_op("vfnet_edu::star_conv_backward", mutates_args=())
def star_conv_backward(
    grads: Sequence[Tensor],
    xs: Sequence[Tensor],
    ltrbs: Sequence[Tensor],
    weights: Sequence[Tensor],
    strides: Sequence[int],
) -> list[Tensor]:
    """Gradients of all xs, all ltrbs, all weights, in this order."""
    grads, xs, ltrbs, weights = map(_rows, (grads, xs, ltrbs, weights))
    dweights = _weight_gradients(grads, xs, ltrbs, weights, strides)
    atomic = not torch.are_deterministic_algorithms_enabled()
    if atomic:
        dxs = [torch.zeros_like(x, dtype=torch.float32) for x in xs]
    else:
        dxs = _ordered_dxs(grads, ltrbs, weights, strides)
    branches, batch = len(weights), len(xs[0])
    dltrbs = [ltrb.new_empty(branches, batch, *ltrb.shape[2:], 4) for ltrb in ltrbs]
    options = _options("backward_input", xs[0], weights[0])
    levels, tiles = _levels(ltrbs, strides, options["M"])
    _launch(
        star_backward_input, (tiles, branches), xs[0],
        grads, xs, ltrbs, weights, dxs, dltrbs, levels, batch,
        C=xs[0].shape[1], OUT=weights[0].shape[0], ATOMIC=atomic, **options,
    )  # fmt: skip
    for i in reversed(range(len(xs))):
        dxs[i] = dxs[i].to(xs[i].dtype)  # one after the other, the largest last: each makes room for the next
    return [*dxs, *(dltrb.sum(0).permute(0, 3, 1, 2) for dltrb in dltrbs), *dweights]


@star_conv_backward.register_fake
def _(grads, xs, ltrbs, weights, strides):
    return [torch.empty_like(t, memory_format=torch.channels_last) for t in (*xs, *ltrbs, *weights)]


def _setup_context(ctx, inputs, output):
    xs, ltrbs, weights, ctx.strides = inputs
    ctx.save_for_backward(*xs, *ltrbs, *weights)
    ctx.parts = len(xs), len(ltrbs), len(weights)


def _split(tensors: Sequence[Tensor], parts: Sequence[int]) -> list[list[Tensor]]:
    stream = iter(tensors)
    return [list(islice(stream, n)) for n in parts]


def _backward(ctx, grads):
    found = star_conv_backward(grads, *_split(ctx.saved_tensors, ctx.parts), ctx.strides)
    return *_split(found, ctx.parts), None


star_conv.register_autograd(_backward, setup_context=_setup_context)


def _rows(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps whose locations are rows in memory: the same ones, if they are channels_last."""
    return [t.contiguous(memory_format=torch.channels_last) for t in maps]


def _outs(xs: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    outputs = weights[0].shape[0]
    shapes = [(x.shape[0], outputs, *x.shape[2:]) for x in xs]
    return [
        torch.empty(s, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        for x, s in zip(xs, shapes, strict=True)
    ]


def _weight_gradients(grads, xs, ltrbs, weights, strides) -> list[Tensor]:
    branches, (outputs, channels) = len(weights), weights[0].shape[:2]
    options = _options("backward_weight", xs[0], weights[0])
    levels, tiles = _levels(ltrbs, strides, options["M"])
    blocks = 9 * (channels // options["K"]) * (outputs // options["N"])
    parts = max(1, min(tiles, round(132 / blocks)))  # a program per branch for each of an H200's 132 multiprocessors
    part = xs[0].new_empty(parts, branches, 9, channels, outputs, dtype=torch.float32)
    _launch(
        star_backward_weight, (blocks, parts, branches), xs[0],
        grads, xs, ltrbs, part, levels, len(xs[0]), tiles, C=channels, OUT=outputs, **options,
    )  # fmt: skip
    dweights = part.sum(0).permute(0, 3, 2, 1).unflatten(3, (3, 3))  # (R, O, C, 3, 3)
    return [
        dw.to(weight.dtype).contiguous(memory_format=torch.channels_last)
        for dw, weight in zip(dweights, weights, strict=True)
    ]


def _ordered_dxs(grads, ltrbs, weights, strides) -> list[Tensor]:
    """The gradients of all xs with their additions in a fixed order: write the columns, sort the reads by cell.

    Branches look at the same boxes, so each level is sorted once for all of them.
    """
    channels = weights[0].shape[1]
    dxs = [grad.new_empty(grad.shape[0], channels, *grad.shape[2:], dtype=torch.float32) for grad in grads]
    dxs = _rows(dxs)
    block = math.gcd(256, channels)
    for i, (ltrb, stride) in enumerate(zip(ltrbs, strides, strict=True)):
        batch, _, height, width = ltrb.shape
        rows, device = batch * height * width, ltrb.device
        cell, factor = star_reads(ltrb, stride)  # (B, H, W, 25)
        cell = cell + height * width * torch.arange(batch, device=device)[:, None, None, None]
        cell, factor = cell.flatten(), factor.flatten()  # (25 B H W,)
        cell = torch.where(factor == 0, rows, cell)  # mostly outside the map: sort it behind the last cell, unread
        cell, order = cell.sort(stable=True)
        begin = torch.searchsorted(cell, torch.arange(rows + 1, device=device))
        tap = sum((order % 25 >= first).long() for first in accumulate(READS_PER_TAP[:-1]))
        column_row, factor = order // 25 * 9 + tap, factor[order]
        for branch, weight in enumerate(weights):
            at = branch * len(ltrbs) + i
            grad = grads[at].permute(0, 2, 3, 1).flatten(0, 2)  # (B H W, O)
            column = grad @ weight.permute(0, 2, 3, 1).flatten(1)  # (B H W, 9 C)
            _launch(
                star_gather_gradient, (rows, channels // block), column,
                column, column_row, factor, begin, dxs[at], C=channels, K=block, READS=16,
            )  # fmt: skip
    return dxs


def _levels(ltrbs: Sequence[Tensor], strides: Sequence[int], tile: int) -> tuple[tuple[int, ...], int]:
    """The levels as the kernels take them, and the number of tiles in all."""
    sizes = [(ltrb.shape[2], ltrb.shape[3]) for ltrb in ltrbs]
    tiles = sum(-(-len(ltrbs[0]) * height * width // tile) for height, width in sizes)
    return tuple(pack_level(*size, stride) for size, stride in zip(sizes, strides, strict=True)), tiles


def _options(kernel: str, x: Tensor, weight: Tensor) -> dict:
    """:func:`launch_options` for these operands; float32 obeys ``torch.set_float32_matmul_precision``, like matmul."""
    product = "16 bit"
    if x.dtype == torch.float32:  # asked for this way, it also knows what was set through torch.backends
        product = "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "bf16x6"
    capability = torch.cuda.get_device_capability(x.device) if x.is_cuda else (9, 0)
    return launch_options(kernel, product, x.shape[1], weight.shape[0], capability)


def _launch(kernel, grid: tuple[int, ...], on: Tensor, *arguments, **options) -> None:
    """Start a kernel. Lists of tensors go in as tuples."""
    arguments = (tuple(a) if isinstance(a, list) else a for a in arguments)
    with torch.cuda.device_of(on):  # Triton launches on the current device, wherever the arguments are
        kernel[grid](*arguments, **options)
