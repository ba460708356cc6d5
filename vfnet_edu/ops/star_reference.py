"""The star-deformable convolution by its definition: slow, of any dtype, differentiable twice.

A 3x3 convolution reads the nine cells of a square. The star convolution of VarifocalNet (section 3.3) reads nine points of
the box that the head predicts at its location: the location itself, the four points of the box edges straight above,
below, left and right of it, and the four corners. Three rows times three columns::

    (y - t, x - l)   (y - t, x)   (y - t, x + r)
    (y,     x - l)   (y,     x)   (y,     x + r)
    (y + b, x - l)   (y + b, x)   (y + b, x + r)

Moved rows and columns fall between cells, so they are read by linear interpolation of two neighbours each; the centre row
and column are whole numbers and need no neighbour. That makes 1 + 4*2 + 4*4 = 25 reads per location, where a deformable
convolution with free offsets needs 9*4 = 36.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

READS_PER_TAP = (4, 2, 4, 2, 1, 2, 4, 2, 4)


def star_axes(ltrb: Tensor, stride: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The three rows and the three columns of every star, in cells of the map.

    Args:
        ltrb: (B, 4, H, W) distances from a location to the left, top, right and bottom of its box, pixels of the image.
        stride: pixels per cell.

    Returns:
        rows (y - t, y, y + b) and columns (x - l, x, x + r), each of shape (B, H, W).
    """
    l, t, r, b = (ltrb / stride).unbind(1)
    height, width = l.shape[1:]
    y = torch.arange(height, dtype=l.dtype, device=l.device)[:, None].expand_as(l)
    x = torch.arange(width, dtype=l.dtype, device=l.device)[None, :].expand_as(l)
    return (y - t, y, y + b), (x - l, x, x + r)


def neighbours(coordinate: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The two cells beside a coordinate, as (index, weight) pairs; a cell outside the map weighs 0.

    The slope at a whole number is the one to its right, as in ``torchvision.ops.deform_conv2d``. A coordinate that is not
    a number gives weights that are not numbers, so it shows in the output; its index stays inside the map.
    """
    # A box comes out of an exponential and may be huge: bring it back, but stay where both neighbours are outside.
    coordinate = coordinate.clamp(-2, size + 1)
    cell = coordinate.detach().floor()
    far = coordinate - cell
    pairs = []
    for index, weight in (cell, 1 - far), (cell + 1, far):
        inside = (index >= 0) & (index < size)
        pairs.append((index.long().clamp(0, size - 1), weight * inside))
    return pairs


def star_neighbours(ltrb: Tensor, stride: int) -> tuple[list, list]:
    """:func:`neighbours` of the three rows and of the three columns; the centre has one neighbour, itself, of weight 1."""
    rows, columns = star_axes(ltrb, stride)
    height, width = ltrb.shape[2:]
    near_rows = [neighbours(row, height) for row in rows]
    near_columns = [neighbours(column, width) for column in columns]
    near_rows[1] = [(rows[1].long(), torch.ones_like(rows[1]))]
    near_columns[1] = [(columns[1].long(), torch.ones_like(columns[1]))]
    return near_rows, near_columns


def star_reads(ltrb: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """The 25 reads of every star, tap by tap: the cells read (y * W + x) and their weights, two of shape (B, H, W, 25)."""
    near_rows, near_columns = star_neighbours(ltrb, stride)
    width = ltrb.shape[3]
    reads = [
        (iy * width + ix, wy * wx)
        for near_row in near_rows
        for near_column in near_columns
        for iy, wy in near_row
        for ix, wx in near_column
    ]
    cells, factors = zip(*reads, strict=True)
    return torch.stack(cells, -1), torch.stack(factors, -1)


def star_conv2d_reference(x: Tensor, ltrb: Tensor, weight: Tensor, stride: int) -> Tensor:
    """See :func:`vfnet_edu.ops.star.star_conv2d`."""
    near_rows, near_columns = star_neighbours(ltrb, stride)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    cells = x.permute(0, 2, 3, 1)  # (B, H, W, C)
    samples = [
        sum((wy * wx)[..., None] * cells[image, iy, ix] for iy, wy in near_row for ix, wx in near_column)  # (B, H, W, C)
        for near_row in near_rows
        for near_column in near_columns
    ]
    kernel = weight.permute(0, 2, 3, 1).flatten(1)  # (O, 9 C), tap by tap
    return F.linear(torch.cat(samples, -1).to(x.dtype), kernel).permute(0, 3, 1, 2)  # (B, O, H, W)
