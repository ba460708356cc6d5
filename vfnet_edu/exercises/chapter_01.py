"""Exercises of chapter 1: how many cells, which box, which pairs of a row and a class."""

import math

import torch
from torch import Tensor

from vfnet_edu.boxes import ltrb_to_xyxy
from vfnet_edu.exercises.engine import Exercise
from vfnet_edu.priors import ceil32


# ------------------------------------------------------------------ how many cells a detector has
def _cells(height: float, width: float, strides: tuple[int, ...], whole=math.ceil) -> int:
    return sum(whole(height / s) * whole(width / s) for s in strides)


cells = Exercise(
    name="cells",
    reference=lambda height, width, strides: _cells(ceil32(height), ceil32(width), strides),
    cases=[
        (800, 1333, (8, 16, 32, 64, 128)),
        (800, 1088, (8, 16, 32, 64, 128)),
        (427, 640, (8, 16, 32, 64, 128)),
        (128, 128, (8, 16, 32)),
        (333, 500, (8, 16, 32, 64, 128)),
    ],
    mistakes=[
        (
            lambda height, width, strides: _cells(height, width, strides),
            "You divide the image as it is. It is first padded to a multiple of 32 in both directions, and the "
            "padding has cells too: 1333 becomes 1344.",
        ),
        (
            lambda height, width, strides: _cells(ceil32(height), ceil32(width), strides, whole=math.floor),
            "You round down. A stride that has only begun still gets a cell: 25 rows of P5 become 13 of P6, not 12.",
        ),
        (
            lambda height, width, strides: _cells(height, width, strides, whole=math.floor),
            "Two things: the image is padded to a multiple of 32 first, and a level's map rounds up, not down.",
        ),
        (
            lambda height, width, strides: _cells(ceil32(height), ceil32(width), strides, whole=float),
            "A map has whole cells. Round each side up before you multiply.",
        ),
        (
            lambda height, width, strides: sum(math.ceil(ceil32(height) * ceil32(width) / s**2) for s in strides),
            "You round the product. Each side is rounded on its own: 12.5 x 21 cells are a map of 13 x 21.",
        ),
        (
            lambda height, width, strides: _cells(ceil32(height), ceil32(width), strides[:-1]),
            "The coarsest level is missing. Go through all strides.",
        ),
        (
            lambda height, width, strides: _cells(ceil32(height), ceil32(width), strides[1:]),
            "The finest level is missing, and it holds about three quarters of all cells.",
        ),
        (
            lambda height, width, strides: _cells(ceil32(height), ceil32(width), strides[:1]),
            "That is the first level alone. Is your `return` inside the loop?",
        ),
        (
            lambda height, width, strides: _cells(height + height % 32, width + width % 32, strides),
            "You add the remainder. What is missing to the next multiple of 32 is 32 minus the remainder, or nothing.",
        ),
        (
            lambda height, width, strides: _cells(32 * (height // 32 + 1), 32 * (width // 32 + 1), strides),
            "A side that is a multiple of 32 already gets no padding: 800 stays 800.",
        ),
        (
            lambda height, width, strides: _cells(32 * (height // 32), 32 * (width // 32), strides),
            "You cut the image to a multiple of 32. Pad it: go up to the next multiple.",
        ),
        (
            lambda height, width, strides: _cells(ceil32(height), ceil32(width), strides, whole=lambda x: int(x) + 1),
            "`// + 1` gives one cell too many where the stride divides the side: round up only where there is a rest.",
        ),
        (
            lambda height, width, strides: _cells(ceil32(height), ceil32(width), strides[-1:]),
            "That is the last level alone. Add up the cells of all levels.",
        ),
        (
            lambda height, width, strides: [_cells(ceil32(height), ceil32(width), (s,)) for s in strides],
            "These are the right numbers, level by level: add them up.",
        ),
    ],
    right="Padding first, then every level rounds up on each side. You can now say how long a detector's answer is "
    "before it has seen the image.",
    hint="For each stride s, the map has ceil(H / s) x ceil(W / s) cells of the padded image.",
    tolerance=0.0,  # a count is right or wrong
)


# ------------------------------------------------------------------ the box that a cell predicts
def _box(row: float, column: float, stride: int, ltrb: Tensor) -> Tensor:
    return ltrb_to_xyxy(torch.tensor([column * stride, row * stride], dtype=torch.float32), ltrb)


def _corner_and_size(row: int, column: int, stride: int, ltrb: Tensor) -> Tensor:
    """(x1, y1, width, height)"""
    box = _box(row, column, stride, ltrb)
    return torch.cat([box[:2], box[2:] - box[:2]])


def _middle_and_size(box: Tensor) -> Tensor:
    return torch.cat([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])


def _all_added(row: int, column: int, stride: int, ltrb: Tensor) -> Tensor:
    return _box(row, column, stride, ltrb * torch.tensor([-1.0, -1.0, 1.0, 1.0]))


box = Exercise(
    name="box",
    reference=_box,
    cases=[
        (5, 9, 8, torch.tensor([20.0, 12.0, 16.0, 30.0])),
        (0, 3, 32, torch.tensor([7.0, 0.5, 50.0, 41.0])),
        (7, 2, 16, torch.tensor([31.0, 64.0, 3.0, 14.0])),
    ],
    mistakes=[
        (
            lambda row, column, stride, ltrb: _box(column, row, stride, ltrb),
            "x and y are swapped. The column counts to the right, so it gives x; the row counts downwards and gives y.",
        ),
        (
            lambda row, column, stride, ltrb: _box(row, column, 1, ltrb),
            "The stride is missing: row and column count cells, the box is in pixels.",
        ),
        (
            lambda row, column, stride, ltrb: _box(row + 0.5, column + 0.5, stride, ltrb),
            "You start from the middle of the cell. VFNet's point is its upper left corner: no half stride is added.",
        ),
        (
            lambda row, column, stride, ltrb: _box(row, column, stride, ltrb * stride),
            "The distances are pixels already. Multiply the cell's indices by the stride, not the distances.",
        ),
        (
            lambda row, column, stride, ltrb: _box(row, column, stride, ltrb[[0, 2, 1, 3]]),
            "You read the distances as left, right, top, bottom. Their order is left, top, right, bottom: "
            "first the two to subtract, then the two to add.",
        ),
        (
            lambda row, column, stride, ltrb: _box(row, column, stride, ltrb[[1, 0, 3, 2]]),
            "You take left for top: the first and the third distance are horizontal and belong to x.",
        ),
        (
            lambda row, column, stride, ltrb: _box(row, column, stride, ltrb)[[0, 2, 1, 3]],
            "The four numbers are right, but their order is not. A box is x1, y1, x2, y2: one corner, then the other.",
        ),
        (
            _all_added,
            "You add all four. Left and top are distances *back* from the point: subtract them.",
        ),
        (
            _corner_and_size,
            "The first two numbers are right; the last two are a width and a height. Return the lower right corner.",
        ),
        (
            lambda row, column, stride, ltrb: _box(row, column, stride, ltrb)[[1, 0, 3, 2]],
            "Your box is y1, x1, y2, x2. Arrays name the row first, boxes name x first.",
        ),
        (
            lambda row, column, stride, ltrb: _box(row, column, stride, ltrb[[2, 3, 0, 1]]),
            "Left and right are exchanged, and so are top and bottom: the first two distances are subtracted.",
        ),
        (
            lambda row, column, stride, ltrb: _box(0, 0, stride, ltrb),
            "You measure from the corner of the picture. The distances are measured from the point of the cell.",
        ),
        (
            lambda row, column, stride, ltrb: _box(row, column, stride, -ltrb),
            "Every sign is flipped: left and top are subtracted, right and bottom are added.",
        ),
        (
            lambda row, column, stride, ltrb: _middle_and_size(_box(row, column, stride, ltrb)),
            "That is the middle of the box, its width and its height. Return two corners: x1, y1, x2, y2.",
        ),
        (
            lambda row, column, stride, ltrb: torch.cat([_box(row, column, stride, ltrb)[:2], ltrb[2:]]),
            "The first two numbers are right. The last two are still distances: add them to the point.",
        ),
        (
            lambda row, column, stride, ltrb: _box(row, column, stride, ltrb) - torch.cat([0 * ltrb[:2], ltrb[:2]]),
            "You add right and bottom to the upper left corner. All four distances start from the point.",
        ),
        (
            lambda row, column, stride, ltrb: _box(row, column, stride, ltrb * torch.tensor([1.0, 1.0, -1.0, -1.0])),
            "You subtract all four. The right and the lower side lie beyond the point: add right and bottom.",
        ),
        (
            lambda row, column, stride, ltrb: _box(row, column, stride, ltrb).view(2, 2),
            "Two right corners. Put their four numbers into one row: x1, y1, x2, y2.",
        ),
        (
            lambda row, column, stride, ltrb: ltrb,
            "These are the distances as they came. The point is missing.",
        ),
    ],
    right="The cell gives the point, the point and four distances give the box.",
    hint="The point is (column * stride, row * stride); subtract left and top from it, add right and bottom.",
)


# ------------------------------------------------------------------ what survives the threshold
def _pairs(logits: Tensor, threshold: float) -> Tensor:
    return torch.nonzero(logits.sigmoid() > threshold)


def _best_class_only(logits: Tensor, threshold: float) -> Tensor:
    score, label = logits.sigmoid().max(dim=1)
    row = torch.nonzero(score > threshold)[:, 0]
    return torch.stack([row, label[row]], dim=1)


pairs = Exercise(
    name="pairs",
    reference=_pairs,
    cases=[
        (torch.tensor([[2.0, 1.0, -3.0], [-2.0, -2.5, -4.0], [0.0, 3.0, -0.25]]), 0.5),
        (torch.tensor([[0.0, -0.4], [-0.4, 0.3], [1.5, 1.4], [-6.0, -5.0]]), 0.4),
        (torch.tensor([[-1.0, 0.2], [0.0, 0.6]]), 0.5),
    ],
    mistakes=[
        (
            lambda logits, threshold: torch.nonzero(logits > threshold),
            "These are logits, not scores yet: a sigmoid turns each into a number between 0 and 1.",
        ),
        (
            lambda logits, threshold: torch.nonzero(logits.softmax(dim=1) > threshold),
            "A softmax makes the classes of a cell compete, and then every cell must see something. Each class has its "
            "own sigmoid.",
        ),
        (
            _best_class_only,
            "You keep only the best class of a cell. Two classes of one cell may both pass: each is a pair of its own.",
        ),
        (
            lambda logits, threshold: torch.nonzero(logits.sigmoid() >= threshold),
            "A score *equal* to the threshold does not pass: strictly above.",
        ),
        (
            lambda logits, threshold: torch.nonzero(logits.sigmoid().T > threshold),
            "Your pairs are (class, row). Each line should be (row, class), in the order of `torch.nonzero`.",
        ),
        (
            lambda logits, threshold: torch.nonzero(logits.sigmoid().amax(dim=1) > threshold)[:, 0],
            "You say which cells pass, but not for which class. Return pairs (row, class).",
        ),
        (
            lambda logits, threshold: torch.nonzero(logits.sigmoid().sigmoid() > threshold),
            "One sigmoid too many. It turns a logit into a score; a score needs no second one.",
        ),
        (
            lambda logits, threshold: torch.nonzero(logits.sigmoid() < threshold),
            "These are the pairs that do *not* pass: keep what is above the threshold.",
        ),
        (
            lambda logits, threshold: (logits.sigmoid() > threshold).long(),
            "A map of yes and no is right so far. `torch.nonzero` turns it into the list of pairs.",
        ),
        (
            lambda logits, threshold: (logits.sigmoid() > threshold).sum(),
            "You count the pairs. Return the pairs themselves: `torch.nonzero`.",
        ),
        (
            lambda logits, threshold: _pairs(logits, threshold).flip(1),
            "The class stands first in each of your pairs. The row comes first: (row, class).",
        ),
        (
            lambda logits, threshold: torch.nonzero(logits.sigmoid() > threshold, as_tuple=True),
            "Rows and classes, apart from each other. Without `as_tuple` they come as pairs.",
        ),
        (
            lambda logits, threshold: logits.sigmoid()[logits.sigmoid() > threshold],
            "These are the scores that pass. Wanted is where they stand: the pairs (row, class).",
        ),
        (
            lambda logits, threshold: torch.nonzero(logits.sigmoid().amax(dim=1) > threshold),
            "One column: these are the rows that pass with their best class. Return a pair for each class that passes.",
        ),
        (
            lambda logits, threshold: torch.nonzero(logits.exp() > threshold),
            "The exponential is half of the way: the sigmoid is 1 / (1 + exp(-logit)).",
        ),
        (
            lambda logits, threshold: torch.nonzero((logits.sigmoid() > threshold).flatten())[:, 0],
            "You count through the whole table. Keep its two axes, and `torch.nonzero` gives pairs.",
        ),
    ],
    right="Every pair of a cell and a class is judged on its own: one sigmoid each, strictly above the threshold.",
    hint="Take the sigmoid of every logit, compare with the threshold, return `torch.nonzero` of that.",
    describe=lambda case: f"logits {case[0].tolist()} with threshold {case[1]}",
)
