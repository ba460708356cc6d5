"""The star-deformable convolution by its definition: slow, any dtype, twice differentiable.

A 3x3 convolution reads the nine cells of a square. The star convolution of VarifocalNet (paper, section 3.3) reads
nine points of the box that the head predicts at a location: the location itself, the points of the four edges straight
above, below, left and right of it, and the four corners. Three rows times three columns::

    (y - t, x - l)   (y - t, x)   (y - t, x + r)
    (y,     x - l)   (y,     x)   (y,     x + r)
    (y + b, x - l)   (y + b, x)   (y + b, x + r)

The moved rows and columns fall between cells, so each is interpolated between two neighbours. The centre row and
column are whole numbers and need no neighbour. That makes 1 + 4*2 + 4*4 = 25 reads per location, where a deformable
convolution with free offsets needs 9*4 = 36.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

READS_PER_TAP = (4, 2, 4, 2, 1, 2, 4, 2, 4)

Neighbours = list[tuple[Tensor, Tensor]]  # (index, weight) of every cell that an interpolation reads, along one axis


def star_conv2d_reference(x: Tensor, ltrb: Tensor, weight: Tensor, stride: int) -> Tensor:
    """See :func:`vfnet_edu.ops.star.operator.star_conv2d`."""
    near_rows, near_columns = star_neighbours(ltrb, stride)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    cells, zero = x.permute(0, 2, 3, 1), x.new_zeros(())  # (B, H, W, C), ()
    samples = [  # nine of (B, H, W, C)
        sum(((wy * wx)[..., None] * cells[image, iy, ix] for iy, wy in near_row for ix, wx in near_column), zero)
        for near_row in near_rows
        for near_column in near_columns
    ]
    kernel = weight.permute(0, 2, 3, 1).flatten(1)  # (O, 9 C), tap by tap
    return F.linear(torch.cat(samples, -1).to(x.dtype), kernel).permute(0, 3, 1, 2)  # (B, O, H, W)


def star_axes(ltrb: Tensor, stride: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The three rows and the three columns of every star, in cells of the map.

    Args:
        ltrb: (B, 4, H, W) distances from a location to the left, top, right and bottom of its box, pixels of the image.
        stride: pixels per cell.

    Returns:
        rows (y - t, y, y + b) and columns (x - l, x, x + r), each of shape (B, H, W).

    Derived in chapter 11.
    """
    left, top, right, bottom = (ltrb / stride).unbind(1)
    height, width = ltrb.shape[2:]
    y = torch.arange(height, dtype=ltrb.dtype, device=ltrb.device)[:, None].expand_as(top)
    x = torch.arange(width, dtype=ltrb.dtype, device=ltrb.device)[None, :].expand_as(left)
    return (y - top, y, y + bottom), (x - left, x, x + right)


def neighbours(coordinate: Tensor, size: int) -> Neighbours:
    """The two cells beside a coordinate and their weights; a cell outside the map weighs 0.

    The slope at a whole number is the one to its right, as in ``torchvision.ops.deform_conv2d``. A coordinate that is
    not a number makes weights that are not numbers, so that it shows in the output; its index stays inside the map.
    """
    # A box comes out of an exponential and may be huge: bring it back to where both neighbours are still outside.
    coordinate = coordinate.clamp(-2, size + 1)
    cell = coordinate.detach().floor()
    far = coordinate - cell
    pairs = []
    for index, weight in (cell, 1 - far), (cell + 1, far):
        inside = (index >= 0) & (index < size)
        pairs.append((index.long().clamp(0, size - 1), weight * inside))
    return pairs


def star_neighbours(ltrb: Tensor, stride: int) -> tuple[list[Neighbours], list[Neighbours]]:
    """:func:`neighbours` of the three rows and of the three columns. The centre's one neighbour is itself."""
    rows, columns = star_axes(ltrb, stride)
    height, width = ltrb.shape[2:]
    near_rows = [neighbours(row, height) for row in rows]
    near_columns = [neighbours(column, width) for column in columns]
    near_rows[1] = [(rows[1].long(), torch.ones_like(rows[1]))]
    near_columns[1] = [(columns[1].long(), torch.ones_like(columns[1]))]
    return near_rows, near_columns


def star_reads(ltrb: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """The 25 reads of every star, tap by tap: cells (y W + x) and weights, two tensors of shape (B, H, W, 25)."""
    near_rows, near_columns = star_neighbours(ltrb, stride)
    width = ltrb.shape[3]
    reads = [
        (iy * width + ix, wy * wx)
        for near_row in near_rows
        for near_column in near_columns
        for iy, wy in near_row
        for ix, wx in near_column
    ]
    cells, weights = zip(*reads, strict=True)
    return torch.stack(cells, -1), torch.stack(weights, -1)
