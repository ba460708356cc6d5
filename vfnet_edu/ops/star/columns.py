"""The star-deformable convolution for small maps on a CPU: all samples of all levels and images at once.

Where maps are small, a step is spent on launching operations, not on arithmetic.  So the samples of a whole pyramid are
gathered by one ``embedding_bag`` per branch (see :mod:`vfnet_edu.ops.star.embedding_bag`: its weighted sum of a few
table rows is what interpolation needs), as rows of nine samples, and one matrix product does the rest.  That holds nine
numbers for every number of the maps, which is too much for large maps.

The gradient of a map is the same sum with the roles exchanged: every cell adds up the samples that have read it.
Sorted by cell, the reads are bags again.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vfnet_edu.ops.star.reference import READS_PER_TAP, star_reads

_READS = sum(READS_PER_TAP)  # 25 per location
_TAP_OF_READ = torch.repeat_interleave(torch.arange(9), torch.tensor(READS_PER_TAP))  # (25,)
_FIRST_READ = torch.tensor((0, *READS_PER_TAP[:-1])).cumsum(0)  # (9,) of each tap


def star_conv2d_pyramid_columns(
    branches: Sequence[tuple[Sequence[Tensor], Tensor]], ltrbs: Sequence[Tensor], strides: Sequence[int]
) -> list[list[Tensor]]:
    """See :func:`vfnet_edu.ops.star.operator.star_conv2d_pyramid`. The maps come back channels_last."""
    shapes = [ltrb[:, 0].shape for ltrb in ltrbs]  # (B, H, W) of each level
    cells, factors = _pyramid_reads(ltrbs, strides)  # (M, 25) each, M = sum of B*H*W
    order = _order(cells) if torch.is_grad_enabled() else None
    maps = []
    for xs, weight in branches:
        table = torch.cat([x.permute(0, 2, 3, 1).flatten(0, 2) for x in xs])  # (M, C), a row per cell
        columns = _Columns.apply(table.to(factors.dtype), cells, factors, order)  # (9 M, C)
        columns = columns.view(len(cells), -1).to(weight.dtype)  # (M, 9 C), tap by tap
        rows = F.linear(columns, weight.permute(0, 2, 3, 1).flatten(1))  # (M, O)
        levels = rows.split([shape.numel() for shape in shapes])
        maps.append([level.view(*shape, -1).permute(0, 3, 1, 2) for level, shape in zip(levels, shapes, strict=True)])
    return maps  # R x L x (B, O, H, W)


def _pyramid_reads(ltrbs: Sequence[Tensor], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The 25 reads of every location of all levels and images: row of the table (M, 25) int64, weight (M, 25)."""
    cells, factors, first = [], [], 0
    for ltrb, stride in zip(ltrbs, strides, strict=True):
        images, _, height, width = ltrb.shape
        cell, factor = star_reads(ltrb, stride)  # (B, H, W, 25) each
        image = torch.arange(images)[:, None, None, None] * (height * width)
        cells.append((cell + image + first).flatten(0, 2))
        factors.append(factor.flatten(0, 2))
        first += images * height * width
    return torch.cat(cells), torch.cat(factors)


def _order(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Reads sorted by the cell they read, (25 M,), and where each of the M cells begins, (M + 1,)."""
    flat = cells.flatten()
    if len(cells) < 2**16:  # numpy sorts 16 bits by counting: ten times as fast
        order = torch.from_numpy(np.argsort(flat.numpy().astype(np.uint16), kind="stable"))
    else:
        order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=len(cells))
    return order, F.pad(counts.cumsum(0), (1, 0))


class _Columns(torch.autograd.Function):
    """Nine samples of every location: table (M, C), cells and factors (M, 25) -> (9 M, C)."""

    @staticmethod
    def forward(ctx, table, cells, factors, order):
        starts = (torch.arange(len(cells))[:, None] * _READS + _FIRST_READ).flatten()  # (9 M,)
        ctx.save_for_backward(table, cells, factors, starts)
        ctx.order = order
        return F.embedding_bag(  # detached: for a table that wants gradients it prepares for them, at twice the time
            cells.flatten(), table.detach(), starts, mode="sum", per_sample_weights=factors.flatten()
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        table, cells, factors, starts = ctx.saved_tensors
        grad = grad.contiguous()  # (9 M, C)
        bag = (torch.arange(len(cells))[:, None] * 9 + _TAP_OF_READ).flatten()  # (25 M,) the sample of every read
        dtable = dfactors = None
        if ctx.needs_input_grad[0]:
            order, begin = ctx.order
            dtable = F.embedding_bag(
                bag[order], grad, begin, mode="sum", per_sample_weights=factors.flatten()[order],
                include_last_offset=True,
            )  # fmt: skip
        if ctx.needs_input_grad[2]:  # how much each read cell agrees with what its sample should have been
            dfactors = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                grad, table, cells.flatten(), starts, bag, 0
            ).view_as(factors)
        return dtable, None, dfactors, None
