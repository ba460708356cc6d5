"""Where predictions live: one point, or A anchors, per cell of every pyramid level."""

from collections.abc import Sequence

import torch
from torch import Tensor

Device = torch.device | str | None  # None: torch's default


def grid_points(size: tuple[int, int], stride: int, offset: float = 0.0, device: Device = None) -> Tensor:
    """Image coordinates of every cell of a map of `size` = (H, W).  -> (H*W, 2) as (x, y) pixels, row by row

    `offset` in cells: 0 is the corner of the cell (VFNet, ATSS, RetinaNet, RepPoints: released weights were trained
    without a half-stride shift), 0.5 its centre (FoveaBox).  Derived in chapter 1.
    """
    h, w = size
    y, x = torch.meshgrid(
        torch.arange(h, device=device, dtype=torch.float32),
        torch.arange(w, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return (torch.stack([x, y], -1).reshape(-1, 2) + offset) * stride


def base_anchors(sides: tuple[float, ...], ratios: tuple[float, ...] = (1.0,)) -> Tensor:
    """Anchors of one cell around the origin: ratio h/w outermost, side inside.  -> (len(ratios)*len(sides), 4)"""
    root = torch.tensor(ratios, dtype=torch.float32).sqrt()
    side = torch.tensor(sides, dtype=torch.float32)
    w, h = (side / root[:, None]).flatten(), (side * root[:, None]).flatten()
    return torch.stack([-w, -h, w, h], dim=-1) / 2


def grid_anchors(points: Tensor, base: Tensor) -> Tensor:
    """Every base anchor at every point, the anchors of one point together.  (P, 2), (A, 4) -> (P*A, 4)"""
    shift = points.repeat(1, 2)  # (P, 4)
    return (shift[:, None] + base.to(points, non_blocking=True)).reshape(-1, 4)


# ------------------------------------------------------------------ all levels of a pyramid, one after the other
def pyramid_points(
    shapes: Sequence[tuple[int, int]], strides: Sequence[int], offset: float = 0.0, device: Device = None
) -> Tensor:
    """:func:`grid_points` of every level, whose map has the shape (H, W).  -> (P, 2), P = sum of H*W"""
    return torch.cat([grid_points(hw, s, offset, device) for hw, s in zip(shapes, strides, strict=True)])


def pyramid_anchors(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    sides: tuple[float, ...],
    ratios: tuple[float, ...] = (1.0,),
    device: Device = None,
) -> Tensor:
    """:func:`grid_anchors` of every level; `sides` are in strides, so coarse levels hold large anchors.  -> (P*A, 4)"""
    return torch.cat(
        [
            grid_anchors(grid_points(hw, s, device=device), base_anchors(tuple(side * s for side in sides), ratios))
            for hw, s in zip(shapes, strides, strict=True)
        ]
    )


def per_point(values: Sequence[float], shapes: Sequence[tuple[int, int]], device: Device = None) -> Tensor:
    """A number of each level, repeated for all its points.  -> (P,)"""
    return torch.cat([torch.full((h * w,), float(v), device=device) for v, (h, w) in zip(values, shapes, strict=True)])


# ------------------------------------------------------------------ padding
def valid_cells(size: tuple[int, int], stride: int, padded: tuple[int, int], device: Device = None) -> Tensor:
    """Cells of a map of `size` = (H, W) that hold image, not batch padding.  -> (H*W,) bool

    `padded` is the (height, width) of the image after its own padding to a multiple of 32, which the authors' pipeline
    does before it pads the batch to its largest member.
    """
    h, w = size
    rows, columns = (min(-(-side // stride), n) for side, n in zip(padded, size, strict=True))
    y = torch.arange(h, device=device) < rows
    x = torch.arange(w, device=device) < columns
    return (y[:, None] & x).flatten()


def ceil32(n: int) -> int:
    """The next multiple of 32: the stride at which every level still has whole cells."""
    return -(-n // 32) * 32
