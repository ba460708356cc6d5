"""Exercises of chapter 11."""

import math

import torch

from vfnet_edu.exercises.engine import Exercise
from vfnet_edu.ops.star.operator import star_offsets


# ---- the offsets of the star ----------------------------------------------------------------------------------------
def _offsets(left, top, right, bottom, stride):
    ltrb = torch.tensor([left, top, right, bottom], dtype=torch.float64).view(1, 4, 1, 1)
    return star_offsets(ltrb, stride).flatten().tolist()


def _shift(offsets, factor):
    """Add `factor` times the base grid to offsets in the order (dy, dx)."""
    grid = [way for i in (-1, 0, 1) for j in (-1, 0, 1) for way in (i, j)]
    return [value + factor * way for value, way in zip(offsets, grid, strict=True)]


def _pairs(offsets):
    return [offsets[k : k + 2] for k in range(0, 18, 2)]


def _swapped(*box):
    return [value for dy, dx in _pairs(_offsets(*box)) for value in (dx, dy)]


def _column_by_column(*box):
    pairs = _pairs(_offsets(*box))
    return [value for j in range(3) for i in range(3) for value in pairs[3 * i + j]]


def _point_first(*box):
    """The order of the paper's list, the point itself first."""
    pairs = _pairs(_offsets(*box))
    return [value for k in (4, 3, 1, 5, 7, 0, 2, 6, 8) for value in pairs[k]]


def _side_midpoints(left, top, right, bottom, stride):
    """Taps 2, 4, 6 and 8 in the middle of the sides, as if the point were the centre of the box."""
    pairs = _pairs(_offsets(left, top, right, bottom, stride))
    x, y = (right - left) / 2 / stride, (bottom - top) / 2 / stride
    for k, axis, middle in ((1, 1, x), (7, 1, x), (3, 0, y), (5, 0, y)):
        pairs[k] = [middle if axis == i else value for i, value in enumerate(pairs[k])]
    return [value for pair in pairs for value in pair]


def _signs_forgotten(left, top, right, bottom, stride):
    return _offsets(-left, -top, right, bottom, stride)


offsets = Exercise(
    name="offsets",
    reference=_offsets,
    cases=[(16.0, 8.0, 24.0, 32.0, 8), (76.0, 128.0, 92.0, 112.0, 16), (5.0, 40.0, 0.0, 12.0, 32)],
    mistakes=[
        (_swapped, "Every pair is the wrong way round: a deformable convolution wants dy first, then dx."),
        (
            lambda l, t, r, b, stride: _offsets(l, t, r, b, 1),
            "These are pixels. The taps move on the feature map: divide by the stride.",
        ),
        (
            lambda *box: _shift(_offsets(*box), 1),
            "This is where the taps should land. The convolution adds its own 3x3 grid: take the grid away first.",
        ),
        (
            lambda *box: _shift(_offsets(*box), 2),
            "The base grid has the wrong sign. The convolution adds it once: take it away, do not add it again.",
        ),
        (_column_by_column, "The taps go column by column. A kernel is stored row by row: top left, top, top right, …"),
        (
            _point_first,
            "The taps are in the order of a list in prose, the point first. A kernel's first tap is its top left one.",
        ),
        (
            lambda *box: _offsets(*box)[0::2] + _offsets(*box)[1::2],
            "All dy come first, then all dx. They must alternate: dy and dx of tap 1, dy and dx of tap 2, …",
        ),
        (
            _side_midpoints,
            "Taps 2, 4, 6 and 8 are in the middle of the sides. They belong straight above and beside the point, which "
            "need not be the centre of the box.",
        ),
        (
            lambda *box: _offsets(*box)[:8] + _offsets(*box)[10:],
            "Eight pairs: the point itself, tap 5, is missing. Its offset is (0, 0), but it must be there.",
        ),
        (
            lambda *box: _pairs(_offsets(*box)),
            "Nine pairs, and all are right. Put their 18 numbers into one flat list.",
        ),
        (
            lambda *box: [-value for value in _offsets(*box)],
            "Every sign is flipped. Up and left are negative, down and right are positive.",
        ),
        (_signs_forgotten, "Left and up are negative directions: the distances to the left and top side need a minus."),
        (
            lambda left, top, right, bottom, stride: _offsets(top, left, bottom, right, stride),
            "Rows and columns are swapped: top and bottom move taps along y, left and right along x.",
        ),
        (
            lambda l, t, r, b, stride: _offsets(l // stride, t // stride, r // stride, b // stride, 1),
            "You round to whole cells. Keep the fraction: the convolution interpolates between cells.",
        ),
        (
            lambda l, t, r, b, stride: [value / stride for value in _offsets(l, t, r, b, 1)],
            "You take a grid of cells away from pixels. Divide the distances by the stride first.",
        ),
        (
            lambda *box: [value * box[4] for value in _offsets(*box)],
            "Nearly: this is right in pixels. A deformable convolution counts in cells: divide by the stride.",
        ),
        (
            lambda *box: _shift(_swapped(*box), 1),
            "Two things at once: this is where the taps should land, and every pair is (x, y). Take the grid away, "
            "and put y first.",
        ),
        (
            lambda *box: [-v if k % 2 == 0 else v for k, v in enumerate(_offsets(*box))],
            "Your y grows upwards. In a picture it grows downwards: up is negative, down is positive.",
        ),
        (
            lambda *box: [value for k in (6, 7, 8, 3, 4, 5, 0, 1, 2) for value in _pairs(_offsets(*box))[k]],
            "Your rows go from the bottom to the top. Tap 1 is the top left one.",
        ),
        (
            lambda *box: [value for k in (0, 1, 2, 5, 8, 7, 6, 3, 4) for value in _pairs(_offsets(*box))[k]],
            "The taps go around the point. A kernel is stored row by row: three taps at the top, three in the middle, "
            "three at the bottom.",
        ),
        (
            lambda *box: [_offsets(*box)[0::2], _offsets(*box)[1::2]],
            "All dy in one list and all dx in another. Make one list of 18: dy and dx of tap 1, dy and dx of tap 2, …",
        ),
        (
            lambda l, t, r, b, stride: _shift(_offsets(l, t, r, b, 1), 1),
            "Two things at once: these are pixels, and it is where the taps should land. Divide by the stride, then "
            "take the grid away.",
        ),
        (
            lambda left, top, right, bottom, stride: _offsets(right, bottom, left, top, stride),
            "Left and right are exchanged, and so are top and bottom: the first tap of a row goes to the left side.",
        ),
    ],
    right="Nine pairs (dy, dx), in cells, relative to the grid: the star as any deformable convolution understands it.",
    hint="Where should the tap land, in cells from the point? Then take away where the plain 3x3 grid has it.",
)


# ---- reading between cells ------------------------------------------------------------------------------------------
def _mix(cells, y, x, wy, wx):
    """wy, wx: weights of the row and of the column after the position."""
    i, j = math.floor(y), math.floor(x)
    upper = (1 - wx) * cells[i, j] + wx * cells[i, j + 1]
    lower = (1 - wx) * cells[i + 1, j] + wx * cells[i + 1, j + 1]
    return (1 - wy) * upper + wy * lower


def _bilinear(cells, y, x):
    return _mix(cells, y, x, y - math.floor(y), x - math.floor(x))


def _mean(cells, y, x):
    i, j = math.floor(y), math.floor(x)
    return cells[i : i + 2, j : j + 2].mean()


def _between_floor_and_ceil(cells, y, x):
    """Weights ceil - y and y - floor: both are 0 at a whole number."""
    (i, j), (below, after) = (math.floor(y), math.floor(x)), (math.ceil(y), math.ceil(x))
    upper = (after - x) * cells[i, j] + (x - j) * cells[i, after]
    lower = (after - x) * cells[below, j] + (x - j) * cells[below, after]
    return (below - y) * upper + (y - i) * lower


def _by_distance(cells, y, x):
    i, j = math.floor(y), math.floor(x)
    corners = [(row, column) for row in (i, i + 1) for column in (j, j + 1)]
    weights = [1 / max(math.hypot(y - row, x - column), 1e-9) for row, column in corners]
    return sum(w * cells[at] for w, at in zip(weights, corners, strict=True)) / sum(weights)


_CELLS = torch.tensor([[0.0, 7, 3, 10], [20, 1, 8, 6], [5, 30, 2, 14], [9, 4, 40, 11]])

read_between = Exercise(
    name="read_between",
    reference=_bilinear,
    cases=[(_CELLS, 1.25, 0.5), (_CELLS, 0.7, 2.1), (_CELLS, 2.0, 1.0), (_CELLS, 1.9, 1.6)],
    mistakes=[
        (
            lambda cells, y, x: cells[round(y), round(x)],
            "You read the nearest cell. A small move of the box then changes nothing, and no gradient can move it.",
        ),
        (
            lambda cells, y, x: cells[math.floor(y), math.floor(x)],
            "You cut off the fraction and read one cell. Mix the four around the position.",
        ),
        (
            lambda cells, y, x: _mix(cells, y, x, 1 - y + math.floor(y), 1 - x + math.floor(x)),
            "The weights are swapped: at y = 1.25 you are close to row 1, so row 1 weighs 0.75, not 0.25.",
        ),
        (
            lambda cells, y, x: _bilinear(cells, x, y),
            "Row and column are swapped: cells[row, column], and y counts rows.",
        ),
        (
            lambda cells, y, x: _mix(cells, y, x, x - math.floor(x), y - math.floor(y)),
            "The fractions are swapped: the one of y mixes the two rows, the one of x the two columns.",
        ),
        (lambda *case: 4 * _mean(*case), "You add four cells. Their weights must add up to 1; nearer ones get more."),
        (_mean, "All four neighbours weigh the same here, wherever the position lies between them. Weigh by nearness."),
        (
            lambda cells, y, x: _mix(cells, y, x, 0, x - math.floor(x)),
            "You mix along x only. There are four neighbours: do the same between the two rows.",
        ),
        (
            lambda cells, y, x: _mix(cells, y, x, y - math.floor(y), 0),
            "You mix along y only. There are four neighbours: do the same between the two columns.",
        ),
        (
            lambda cells, y, x: cells[math.ceil(y), math.ceil(x)],
            "You round up and read one cell. Mix the four around the position.",
        ),
        (
            lambda cells, y, x: 2 * _mix(cells, y, x, 0.5, x - math.floor(x)),
            "You add the two rows. Mix them: their weights must add up to 1, too.",
        ),
        (
            lambda cells, y, x: _mix(cells, y, x, 0.5, x - math.floor(x)),
            "Both rows weigh the same here. The nearer one weighs more.",
        ),
        (
            lambda cells, y, x: _mix(cells, y, x, 1 - y + math.floor(y), x - math.floor(x)),
            "The two rows have each other's weight: at y = 1.25 row 1 is the nearer one.",
        ),
        (
            lambda cells, y, x: _mix(cells, y, x, y - math.floor(y), 1 - x + math.floor(x)),
            "The two columns have each other's weight: at x = 2.1 column 2 is the nearer one.",
        ),
        (
            _between_floor_and_ceil,
            "At a whole number floor and ceil are the same, and both of your weights are 0. Take floor + 1 for the "
            "second neighbour.",
        ),
        (
            _by_distance,
            "You weigh by one over the distance. Bilinear weights are products: nearness in y times nearness in x.",
        ),
    ],
    right="Bilinear. The value now changes smoothly as the position moves, so a gradient can say where to move it.",
    hint="Four neighbours: floor(y) and the row below, floor(x) and the column after it; the nearer weighs more.",
    describe=lambda case: f"y = {case[1]}, x = {case[2]}",
)


# ---- how large an ordinary kernel would have to be ------------------------------------------------------------------
def _kernel(left, top, right, bottom, stride):
    return 2 * math.ceil(max(left, top, right, bottom) / stride) + 1


kernel_size = Exercise(
    name="kernel_size",
    reference=_kernel,
    cases=[
        (100.0, 60.0, 100.0, 60.0, 8),
        (8.0, 8.0, 8.0, 8.0, 8),
        (20.0, 90.0, 30.0, 5.0, 16),
        (3.0, 1.0, 2.0, 1.0, 32),
    ],
    mistakes=[
        (
            lambda l, t, r, b, s: 2 * math.ceil(max(l, t, r, b) / s),
            "The middle cell is missing: n cells to either side and the one in the middle make 2 n + 1.",
        ),
        (
            lambda l, t, r, b, s: 2 * math.floor(max(l, t, r, b) / s) + 1,
            "You round down. A kernel of whole cells that stops short of the side has not seen it: round up.",
        ),
        (
            lambda l, t, r, b, s: 2 * math.ceil(max(l, t, r, b)) + 1,
            "That counts pixels. One cell is `stride` pixels.",
        ),
        (
            lambda l, t, r, b, s: math.ceil(max(l, t, r, b) / s) + 1,
            "That is one half of the kernel. It reaches as far to the other side, too.",
        ),
        (
            lambda l, t, r, b, s: 2 * math.ceil(min(l, t, r, b) / s) + 1,
            "That reaches the nearest side only. It has to reach the farthest of the four.",
        ),
        (
            lambda l, t, r, b, s: math.ceil(max(l + r, t + b) / s) + 1,
            "That fits a box around its point. A kernel is symmetric: the farthest side counts, twice.",
        ),
        (
            lambda l, t, r, b, s: 2 * math.ceil(max(l + r, t + b) / s) + 1,
            "That reaches a whole box to each side. From the point it is only as far as the farthest side.",
        ),
        (
            lambda l, t, r, b, s: 2 * max(l, t, r, b) / s + 1,
            "A kernel has whole cells: round the number of cells up before you double it.",
        ),
        (
            lambda l, t, r, b, s: math.ceil(2 * max(l, t, r, b) / s) + 1,
            "You round after doubling, and k may become even. Round the cells of one side up, then double.",
        ),
        (
            lambda l, t, r, b, s: 2 * round(max(l, t, r, b) / s) + 1,
            "You round to the nearest whole number. A kernel that stops short of the side has not seen it: round up.",
        ),
        (
            lambda l, t, r, b, s: _kernel(l, t, r, b, s) ** 2,
            "That is the number of taps. The question is the side of the kernel.",
        ),
        (
            lambda l, t, r, b, s: math.ceil(max(l, t, r, b) / s),
            "That many cells it must reach to one side. The kernel goes as far to the other side, and has a middle.",
        ),
        (
            lambda l, t, r, b, s: 2 * math.ceil(max(l, t, r, b) / s) - 1,
            "The middle cell comes on top of the cells on either side: 2 n + 1, not 2 n - 1.",
        ),
        (
            lambda l, t, r, b, s: math.ceil(max(l + r, t + b) / s),
            "That is the box in cells. A kernel has its middle on the point, and reaches as far to either side.",
        ),
        (lambda l, t, r, b, s: _kernel(l, 0, r, 0, s), "You look at left and right only. Top and bottom count, too."),
        (lambda l, t, r, b, s: _kernel(0, t, 0, b, s), "You look at top and bottom only. Left and right count, too."),
        (
            lambda l, t, r, b, s: 2 * (math.floor(max(l, t, r, b) / s) + 1) + 1,
            "`floor + 1` is one too many where the side falls exactly on a cell. Round up instead.",
        ),
    ],
    right="The cost of an ordinary kernel grows with the square of its reach. The star goes anywhere with nine taps.",
    hint="How many cells away is the farthest side, rounded up? Then the same to the other side, and the middle.",
)
