"""The star-deformable convolution for the CPU: stretch the map threefold, then convolve it with stride 3.

In the stretched map the nine samples of a location lie side by side, a 3x3 block of their own, so what remains is an
ordinary convolution that visits each block once. The stretching reads whole rows of C numbers with ``embedding_bag``.
That function is made for word vectors, but its weighted sum of a few table rows is just what interpolation needs, when
the table is the feature map with one row per cell.

The stretched map is nine times as large as the map. It is made strip by strip, so that each stays in the cache; where
gradients are wanted the strips are kept, up to a limit, and recomputed beyond it: time for memory. Maps that are
small enough take another path, all levels and images at once (:mod:`vfnet_edu.ops.star.columns`).
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

from vfnet_edu.ops.star.columns import star_conv2d_pyramid_columns
from vfnet_edu.ops.star.reference import star_reads

STRIP = 1024  # locations at a time: 9 C numbers each, 9 MB for C = 256
KEPT = 2**28  # bytes of samples, per image and branch, that are kept for the gradients
AT_ONCE = 2**25  # bytes of samples, per branch, up to which all at once is faster where no gradients are wanted


@torch.compiler.disable()  # a compiler would unroll all strips and reads, for minutes, to arrive at the same calls
def star_conv2d_pyramid_embedding_bag(
    branches: Sequence[tuple[Sequence[Tensor], Tensor]], ltrbs: Sequence[Tensor], strides: Sequence[int]
) -> list[list[Tensor]]:
    """See :func:`vfnet_edu.ops.star.operator.star_conv2d_pyramid`. Fastest when the maps are channels_last."""
    if _fits(branches, ltrbs):
        return star_conv2d_pyramid_columns(branches, ltrbs, strides)
    return [
        [star_conv2d_embedding_bag(x, ltrb, weight, stride) for x, ltrb, stride in zip(xs, ltrbs, strides, strict=True)]
        for xs, weight in branches
    ]


def _fits(branches: Sequence[tuple[Sequence[Tensor], Tensor]], ltrbs: Sequence[Tensor]) -> bool:
    """Whether the samples of all levels and images may be held at once."""
    xs, weight = branches[0]
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in (*xs, *ltrbs, weight))
    return 9 * sum(x.numel() for x in xs) * max(weight.element_size(), 4) <= (KEPT if learns else AT_ONCE)


def star_conv2d_embedding_bag(x: Tensor, ltrb: Tensor, weight: Tensor, stride: int) -> Tensor:
    """See :func:`vfnet_edu.ops.star.operator.star_conv2d`. Fastest when x is channels_last."""
    cells, factors = (_interleave(reads) for reads in star_reads(ltrb, stride))  # (B, H, 25 W)
    tables = x.permute(0, 2, 3, 1).contiguous().flatten(1, 2)  # (B, HW, C)
    weight = weight.contiguous(memory_format=torch.channels_last)
    return torch.cat([_Image.apply(*t, weight) for t in zip(tables, cells, factors, strict=True)])  # (B, O, H, W)


def _interleave(reads: Tensor) -> Tensor:
    """(B, H, W, 25) to (B, H, 25 W), the order of the stretched map.

    A row of W locations becomes three rows of 3 W samples, which take 10 W, 5 W and 10 W reads.
    """
    return torch.cat([row.flatten(2) for row in reads.split((10, 5, 10), -1)], 2)


def _image(table: Tensor, cells: Tensor, factors: Tensor, weight: Tensor) -> Tensor:
    """table (HW, C), reads (H, 25 W) to (1, O, H, W)."""
    wide = table.to(factors.dtype)  # once, not strip by strip
    stretched = (_stretch(wide, cell, factor).to(table.dtype) for cell, factor in _strips(cells, factors))
    return torch.cat([F.conv2d(strip, weight, stride=3) for strip in stretched], 2)


def _strips(cells: Tensor, factors: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """As many whole rows at a time as STRIP allows."""
    rows = max(1, STRIP * 25 // cells.shape[1])
    return zip(cells.split(rows), factors.split(rows), strict=True)


def _stretch(table: Tensor, cell: Tensor, factor: Tensor) -> Tensor:
    """table (HW, C) and reads (rows, 25 W) to (1, C, 3 rows, 3 W), interpolated in at least float32."""
    rows, width = len(cell), cell.shape[1] // 25
    of_row = torch.tensor([4, 2, 4] * width + [2, 1, 2] * width + [4, 2, 4] * width, device=cell.device)
    sizes = of_row.repeat(rows)
    starts = sizes.cumsum(0) - sizes
    bags = F.embedding_bag(
        cell.flatten(), table.to(factor.dtype), starts, mode="sum", per_sample_weights=factor.flatten()
    )  # (9 rows W, C)
    return bags.view(1, 3 * rows, 3 * width, -1).permute(0, 3, 1, 2).to(table.dtype)


class _Image(torch.autograd.Function):
    """:func:`_image` that keeps what the gradients need if it is small, and otherwise recomputes it."""

    @staticmethod
    def forward(ctx, table, cells, factors, weight):
        ctx.save_for_backward(table, cells, factors, weight)
        ctx.strips = []
        if not any(ctx.needs_input_grad) or 9 * table.numel() * table.element_size() > KEPT:
            return _image(table, cells, factors, weight)
        ctx.strips = [_strip(table, cell, factor) for cell, factor in _strips(cells, factors)]
        return torch.cat([F.conv2d(strip[-1].detach(), weight, stride=3) for strip in ctx.strips], 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        table, cells, factors, weight = ctx.saved_tensors
        dtable = torch.zeros_like(table, dtype=factors.dtype)
        dweight = torch.zeros_like(weight, dtype=factors.dtype)
        dfactors, row = [], 0
        strips = ctx.strips or (_strip(table, cell, factor) for cell, factor in _strips(cells, factors))
        for first, near, factor, stretched in strips:
            g = grad[:, :, row : row + stretched.shape[2] // 3]
            dstretched = conv2d_input(stretched.shape, weight, g, stride=3)
            dweight += conv2d_weight(stretched.detach(), weight.shape, g, stride=3)
            dnear, dfactor = torch.autograd.grad(stretched, (near, factor), dstretched, retain_graph=True)
            dtable[first : first + len(near)] += dnear
            dfactors.append(dfactor)
            row += stretched.shape[2] // 3
        return dtable.to(table.dtype), None, torch.cat(dfactors), dweight.to(weight.dtype)


def _strip(table: Tensor, cell: Tensor, factor: Tensor) -> tuple[int, Tensor, Tensor, Tensor]:
    """A stretched strip with its own small graph: (first row of the map it reads, those rows, factors, strip)."""
    first, last = int(cell.min()), int(cell.max()) + 1  # a strip reads the map near itself: skip the rest
    near, factor = table[first:last].detach().requires_grad_(), factor.detach().requires_grad_()
    with torch.enable_grad():
        return first, near, factor, _stretch(near, cell - first, factor)
