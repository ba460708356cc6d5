"""Exercises of chapter 13."""

import math
from collections.abc import Callable

from vfnet_edu.exercises.engine import Exercise


# ---- the border mask ------------------------------------------------------------------------------------------------
def _four(inside: Callable[[int, int], bool], y: float, x: float, whole: Callable = math.floor) -> list[bool]:
    """`inside` of the cells upper left, upper right, lower left and lower right of a position."""
    row, column = whole(y), whole(x)
    return [inside(row + i, column + j) for i in (0, 1) for j in (0, 1)]


def _on_the_map(height: int, width: int) -> Callable[[int, int], bool]:
    return lambda row, column: 0 <= row < height and 0 <= column < width


def _masks(y, x, height, width):
    return _four(_on_the_map(height, width), y, x)


def _by_address(y, x, height, width):
    return _four(lambda row, column: 0 <= row * width + column < height * width, y, x)


def _by_position(y, x, height, width):
    return [0 <= y <= height - 1 and 0 <= x <= width - 1] * 4


masks = Exercise(
    name="masks",
    reference=_masks,
    cases=[
        (1.3, 2.6, 5, 7),
        (-0.5, 3.2, 5, 7),
        (2.5, -0.25, 5, 7),
        (4.0, 6.0, 5, 7),
        (0.0, 0.0, 5, 7),
        (4.7, 1.5, 5, 7),
        (1.5, 6.5, 5, 7),
        (5.5, 2.2, 5, 7),
        (-1.5, 2.5, 5, 7),
    ],
    mistakes=[
        (
            lambda y, x, h, w: _four(lambda row, column: row < h and column < w, y, x),
            "Row −1 passes your test, and so does column −1. Ask for the lower bound, too: at least 0.",
        ),
        (
            lambda y, x, h, w: _four(lambda row, column: row >= 0 and column >= 0, y, x),
            "Nothing stops a position beyond the last row or column. A map of 5 rows has rows 0 to 4.",
        ),
        (
            lambda y, x, h, w: _four(lambda row, column: 0 <= row <= h and 0 <= column <= w, y, x),
            "One too many: rows are counted from 0, so a map of 5 rows has no row 5. Use <, not <=.",
        ),
        (
            lambda y, x, h, w: _four(lambda row, column: 0 < row < h and 0 < column < w, y, x),
            "Row 0 and column 0 are part of the map: use >=, not >.",
        ),
        (
            lambda y, x, h, w: _four(_on_the_map(h, w), y, x, int),
            "int() cuts towards 0, so −0.5 becomes 0 and you are inside again. Round down: floor.",
        ),
        (
            lambda y, x, h, w: _four(_on_the_map(h, w), y, x, round),
            "You round to the nearest cell. The first of the four is the one above and to the left: floor.",
        ),
        (
            _by_address,
            "You test the address. Column −1 of row 2 has the address of the last cell of row 1: valid, and wrong. "
            "Test row and column.",
        ),
        (
            _by_position,
            "You test the position, and so all four alike. At y = −0.5 the two lower cells are on the map: test each.",
        ),
        (
            lambda y, x, h, w: [_on_the_map(h, w)(math.floor(y), math.floor(x))] * 4,
            "You test the first cell and believe the other three. Each of the four has a mask of its own.",
        ),
        (
            lambda *case: [_masks(*case)[k] for k in (0, 2, 1, 3)],
            "The four masks are right and their order is not: upper left, upper right, lower left, lower right.",
        ),
        (
            lambda y, x, h, w: _masks(y, x, w, h),
            "Height and width are swapped: rows are compared with the height, columns with the width.",
        ),
        (
            lambda y, x, h, w: _masks(x, y, h, w),
            "y and x are swapped: y counts rows and comes first.",
        ),
        (
            lambda y, x, h, w: _four(lambda row, column: 0 <= row < h, y, x),
            "You look at the rows only. Columns end, too.",
        ),
        (
            lambda y, x, h, w: _four(lambda row, column: 0 <= column < w, y, x),
            "You look at the columns only. Rows end, too.",
        ),
        (
            lambda *case: [not mask for mask in _masks(*case)],
            "The other way round: a mask is True where the fetch may happen.",
        ),
        (
            lambda *case: [True] * 4,
            "You fetch all four. Outside the map there are other numbers, or no memory at all.",
        ),
    ],
    right="Row and column, each against both ends. Where the mask is False, the load gives 0 and touches no memory.",
    hint="The rows are floor(y) and the one below, the columns floor(x) and the next. Each of the four cells is on the "
    "map if its row is from 0 to height − 1 and its column from 0 to width − 1.",
    describe=lambda case: f"y = {case[0]}, x = {case[1]} on a map of {case[2]} x {case[3]}",
)


# ---- half a pixel ---------------------------------------------------------------------------------------------------
def _from_the_edge(x, width):
    return (2 * x + 1) / width - 1


half_pixel = Exercise(
    name="half_pixel",
    reference=_from_the_edge,
    cases=[(0.0, 4), (3.0, 4), (-1.5, 8), (2.25, 5), (7.5, 7)],
    mistakes=[
        (
            lambda x, w: 2 * x / w - 1,
            "Half a cell is missing: x = 0 is the middle of the first cell, and −1 is its left edge.",
        ),
        (
            lambda x, w: 2 * x / (w - 1) - 1,
            "That puts −1 and 1 on the middles of the first and the last cell: it is align_corners=True. Here they are "
            "on the outer edges.",
        ),
        (
            lambda x, w: (2 * x + 1) / (w - 1) - 1,
            "From edge to edge there are `width` cells. The `width` - 1 are the steps from middle to middle.",
        ),
        (
            lambda x, w: (2 * x - 1) / w - 1,
            "Half a cell, but to the wrong side: from the left edge to the middle of the first cell it goes right.",
        ),
        (
            lambda x, w: 2 * (x + 1) / w - 1,
            "That is a whole cell. From the edge of a cell to its middle it is half of one.",
        ),
        (
            lambda x, w: (2 * x + 1) / w,
            "This goes from 0 to 2. The middle of the map should be 0: take 1 away.",
        ),
        (
            lambda x, w: (x + 0.5) / w,
            "This is the share of the map to the left of x, from 0 to 1. `grid_sample` wants −1 to 1.",
        ),
        (
            lambda x, w: (x + 0.5) / w - 1,
            "The map is 2 long here, from −1 to 1, so a cell is 2 / `width` wide, not 1 / `width`.",
        ),
        (
            lambda x, w: x / w,
            "Two things: the scale goes from −1 to 1, not from 0 to 1, and x = 0 is half a cell from the edge.",
        ),
        (
            lambda x, w: 2 * x / w,
            "Two things: the left edge is −1, not 0, and x = 0 is half a cell from it.",
        ),
        (
            lambda x, w: 2 * x + 1 / w - 1,
            "Only the 1 is divided here. Put parentheses around 2 * x + 1.",
        ),
        (
            lambda x, w: x - (w - 1) / 2,
            "Right from the middle of the map, but counted in cells. A cell is 2 / `width` wide here.",
        ),
    ],
    right="Half a cell from edge to middle, `width` cells from edge to edge.",
    hint="How many cells is x from the left edge of the map? A cell is 2 / `width` wide, and the edge is at −1.",
    describe=lambda case: f"x = {case[0]}, width {case[1]}",
)


# ---- odd sizes ------------------------------------------------------------------------------------------------------
def _walk(program, sizes, m, tiles_of, finish):
    """Go through the levels until the program is in one; finish(level, number in it, cells, number asked for)."""
    asked = program
    for level, (height, width) in enumerate(sizes):
        if program < tiles_of(height, width, m):
            return finish(level, program, height * width, asked)
        program -= tiles_of(height, width, m)
    return None


def _ceil(height, width, m):
    return -(-height * width // m)


def _whole(level, number, cells, m):
    return level, number * m, min(m, cells - number * m)


def _tile(program, sizes, m) -> tuple[int, int, int]:
    found = _walk(program, sizes, m, _ceil, lambda level, number, cells, _: _whole(level, number, cells, m))
    assert found, "there are not so many programs"
    return found


def _run_on(program, sizes, m):
    """Tiles over all cells of the pyramid, as if it were one long map."""
    first = program * m
    for level, (height, width) in enumerate(sizes):
        if first < height * width:
            return level, first, min(m, height * width - first)
        first -= height * width
    return None


def _row_by_row(program, sizes, m):
    for level, (height, width) in enumerate(sizes):
        per_row = -(-width // m)
        if program < height * per_row:
            row, part = divmod(program, per_row)
            return level, row * width + part * m, min(m, width - part * m)
        program -= height * per_row
    return None


def _remainder(program, sizes, m):
    """The last tile has cells % m lanes: none where the tiles fit exactly."""

    def finish(level, number, cells, _):
        last = number == _ceil(cells, 1, m) - 1
        return level, number * m, cells % m if last else m

    return _walk(program, sizes, m, _ceil, finish)


def _from_the_start(program, sizes, m):
    level, first, count = _tile(program, sizes, m)
    return level, first + sum(h * w for h, w in sizes[:level]), count


_ODD, _EVEN = [(7, 9), (4, 5), (2, 3)], [(4, 4), (2, 2)]

tile = Exercise(
    name="tile",
    reference=_tile,
    cases=[(3, _ODD, 8), (7, _ODD, 8), (8, _ODD, 8), (10, _ODD, 8), (11, _ODD, 8), (1, _EVEN, 8), (2, _EVEN, 8)],
    mistakes=[
        (
            lambda program, sizes, m: _walk(
                program, sizes, m, lambda h, w, m: h * w // m, lambda k, n, cells, _: _whole(k, n, cells, m)
            ),
            "You round the number of tiles down: the last cells of a level get no program. Round up.",
        ),
        (
            lambda program, sizes, m: _walk(
                program, sizes, m, lambda h, w, m: h * w // m + 1, lambda k, n, cells, _: _whole(k, n, cells, m)
            ),
            "One tile too many where the cells fit exactly: 16 cells make 2 tiles of 8. Round up, do not add 1.",
        ),
        (
            _run_on,
            "Your tiles run from one level into the next. A tile belongs to one level, so each begins with a new one.",
        ),
        (
            lambda *case: (*_tile(*case)[:2], case[2]),
            "The last tile of a level is cut short. How many of its lanes have a cell?",
        ),
        (
            _remainder,
            "The remainder is 0 where the tiles fit exactly. Take the smaller of m and the cells that are left.",
        ),
        (
            _from_the_start,
            "The first cell is counted from the start of the pyramid. Count it within its own level.",
        ),
        (
            lambda program, sizes, m: _walk(
                program, sizes, m, _ceil, lambda k, n, cells, asked: (k, asked * m, min(m, cells - n * m))
            ),
            "In a later level, take away the tiles of the levels before it first, then multiply by m.",
        ),
        (
            lambda program, sizes, m: _walk(
                program, sizes, m, _ceil, lambda k, n, cells, _: (k, n, min(m, cells - n * m))
            ),
            "You return the number of the tile in its level. Its first cell is m times as far.",
        ),
        (
            lambda program, sizes, m: _tile(program - 1, sizes, m),
            "You count programs from 1. The first one is number 0.",
        ),
        (
            _row_by_row,
            "Your tiles end at the end of a row of cells. They go on in the next row: the cells are one long list.",
        ),
        (
            lambda *case: (_tile(*case)[0], _tile(*case)[1], sum(_tile(*case)[1:])),
            "You return where the tile ends. The question is how many cells it has.",
        ),
        (
            lambda *case: (_tile(*case)[0], _tile(*case)[1], sum(_tile(*case)[1:]) - 1),
            "You return the last cell. The question is how many cells the tile has.",
        ),
        (
            lambda *case: (*_tile(*case)[:2], case[2] - _tile(*case)[2]),
            "You count the lanes that have nothing to do. The question is how many have a cell.",
        ),
        (
            lambda *case: (_tile(*case)[0] + 3, *_tile(*case)[1:]),
            "These are names, P3 and so on. Count the levels from 0.",
        ),
    ],
    right="Each level rounds up for itself. Only the last tile of a level is cut short, and a mask takes care of that.",
    hint="Go through the levels. Each has as many tiles as its cells divided by m, rounded up. If the program is among "
    "them, stop; else take them away and go on.",
    describe=lambda case: f"program {case[0]}, sizes {case[1]}, m = {case[2]}",
)
