"""Exercises of chapter 12."""

import math

import torch

from vfnet_edu.exercises.engine import Exercise


# ---- decode a refinement --------------------------------------------------------------------------------------------
def _refined(point, ltrb, answers, gain):
    return _around(point, _times(ltrb, _factors(answers, gain)))


def _factors(answers, gain):
    return [math.exp(gain * v) for v in answers]


def _times(ltrb, factors):
    return [side * factor for side, factor in zip(ltrb, factors, strict=True)]


def _around(point, sides, ways=(-1, -1, 1, 1)):
    return [p + way * side for p, way, side in zip((*point, *point), ways, sides, strict=True)]


def _added(point, ltrb, answers, gain):
    return _around(point, [side + factor for side, factor in zip(ltrb, _factors(answers, gain), strict=True)])


def _added_plainly(point, ltrb, answers, gain):
    return _around(point, [side + gain * v for side, v in zip(ltrb, answers, strict=True)])


def _corners_scaled(point, ltrb, answers, gain):
    return _times(_around(point, ltrb), _factors(answers, gain))


refine = Exercise(
    name="refine",
    reference=_refined,
    cases=[
        ((64.0, 40.0), (20.0, 10.0, 30.0, 15.0), (0.1, 0.0, -0.2, 0.05), 0.5),
        ((8.0, 96.0), (7.5, 31.0, 12.25, 4.0), (-0.4, 0.3, 0.15, -0.05), 1.3),
        ((32.0, 32.0), (16.0, 16.0, 16.0, 16.0), (0.25, -0.5, 0.75, 0.5), 0.8),
    ],
    mistakes=[
        (
            lambda point, ltrb, answers, gain: _times(ltrb, _factors(answers, gain)),
            "These are the four new distances. One step is left: go that far from the point, to get x1, y1, x2, y2.",
        ),
        (_added, "You add the factors to the distances. A factor multiplies: an answer of 0 must change nothing."),
        (
            _added_plainly,
            "You add the answers as if they were pixels. They are logarithms of factors: take exp, then multiply.",
        ),
        (
            lambda point, ltrb, answers, gain: _around(point, _times(ltrb, [gain * v for v in answers])),
            "The exponential is missing: an answer of 0 would make the side 0 pixels long. exp(0) = 1 leaves it alone.",
        ),
        (
            lambda point, ltrb, answers, gain: _around(point, _times(ltrb, [1 + gain * v for v in answers])),
            "1 + v is only close to exp(v) where v is small, and it can become negative. Take the exponential.",
        ),
        (
            lambda point, ltrb, answers, gain: _around(point, _times(ltrb, [gain * math.exp(v) for v in answers])),
            "The gain stands outside the exponential. It belongs inside, with the answer: exp(gain * v).",
        ),
        (
            lambda point, ltrb, answers, gain: _refined(point, ltrb, answers, 1.0),
            "The gain of the level is not used. It multiplies the answer before the exponential.",
        ),
        (
            lambda point, ltrb, answers, gain: _refined(point, ltrb, answers, -gain),
            "Every factor is upside down: an answer above 0 makes a side longer, not shorter. Check the sign in exp.",
        ),
        (
            _corners_scaled,
            "You scale the corners of the box, so a box on the right of the image would move most. Scale the four "
            "distances from the point, then decode.",
        ),
        (
            lambda point, ltrb, answers, gain: _around(point, _factors(answers, gain)),
            "The first box is forgotten: the factors are no distances. Multiply the first box's distances by them.",
        ),
        (
            lambda point, ltrb, answers, gain: _around(point, ltrb),
            "This is the first box. The refinement multiplies each of its distances by a factor.",
        ),
        (
            lambda point, ltrb, answers, gain: _around(point, _times(ltrb, _factors(answers, gain)), (1, 1, 1, 1)),
            "Left and top are subtracted: x1 = x - l, y1 = y - t.",
        ),
        (
            lambda point, ltrb, answers, gain: _around(point, _times(ltrb, _factors(answers, gain)), (1, 1, -1, -1)),
            "The signs are the wrong way round: left and top are subtracted from the point, right and bottom added.",
        ),
        (
            lambda point, ltrb, answers, gain: _refined(point[::-1], ltrb, answers, gain),
            "The point is (x, y): l and r belong to x, t and b to y.",
        ),
        (
            lambda point, ltrb, answers, gain: [_refined(point, ltrb, answers, gain)[k] for k in (1, 0, 3, 2)],
            "The values are right, but as y1, x1, y2, x2. Boxes here are x1, y1, x2, y2.",
        ),
        (
            lambda point, ltrb, answers, gain: [_refined(point, ltrb, answers, gain)[k] for k in (0, 2, 1, 3)],
            "The values are right, but as x1, x2, y1, y2. Boxes here are x1, y1, x2, y2.",
        ),
        (
            lambda point, ltrb, answers, gain: _refined(point, ltrb, [sum(answers) / 4] * 4, gain),
            "One factor for all sides could only grow or shrink the box. Each side has a factor of its own.",
        ),
    ],
    right="Four factors, one for each side. An answer of 0 leaves a side where it is, and no side can become negative.",
    hint="new distance = old distance * exp(gain * answer); then x1 = x - l, y1 = y - t, x2 = x + r, y2 = y + b.",
    describe=lambda case: f"point {case[0]}, l t r b {case[1]}, answers {case[2]}, gain {case[3]}",
)


# ---- from nine pulls to four sides ----------------------------------------------------------------------------------
ROWS, COLUMNS = ((0, 1, 2), (3, 4, 5), (6, 7, 8)), ((0, 3, 6), (1, 4, 7), (2, 5, 8))


def _sides(pulls, stride, left=COLUMNS[0], top=ROWS[0], right=COLUMNS[2], bottom=ROWS[2]):
    dy, dx = pulls.unbind(1)
    left, right = dx[list(left)].sum(), dx[list(right)].sum()
    top, bottom = dy[list(top)].sum(), dy[list(bottom)].sum()
    return torch.stack([-left, -top, right, bottom]) / stride


def _both_parts(pulls, stride):
    """As if a tap on a side moved along both axes with it."""
    both = pulls.sum(1, keepdim=True).expand(-1, 2)
    return _sides(both, stride)


four_sides = Exercise(
    name="four_sides",
    reference=_sides,
    cases=[
        (torch.tensor([[1.0, 2], [0, 4], [3, -1], [2, 6], [5, 5], [-2, 1], [4, -3], [1, 0], [2, 8]]), 8),
        (torch.tensor([[0.5, -2], [3, 1], [-1, 4], [0, 2], [7, -7], [1, 3], [-2, 5], [6, 1], [1.5, -14]]), 16),
    ],
    mistakes=[
        (
            lambda pulls, stride: _sides(pulls, stride).abs(),
            "A pull has a sign: take no absolute value, for a side may be pulled in or out.",
        ),
        (
            lambda pulls, stride: _sides(pulls, stride) * torch.tensor([-1.0, -1, 1, 1]),
            "The taps of the left side sit at x - l: when l grows, they move to the left. So l and t need a minus.",
        ),
        (
            lambda pulls, stride: _sides(pulls, stride) * torch.tensor([1.0, 1, -1, -1]),
            "The minus belongs to l and t, whose taps sit at x - l and y - t. You have it on r and b.",
        ),
        (
            lambda pulls, stride: -_sides(pulls, stride),
            "Every sign is flipped. This would be the way a step goes; asked for is the gradient itself.",
        ),
        (
            lambda pulls, stride: _sides(pulls, 1),
            "This is for distances in cells. One pixel more is only 1 / stride of a cell.",
        ),
        (
            lambda pulls, stride: _sides(pulls, 1 / stride),
            "You multiply by the stride. A position in cells is the distance in pixels divided by the stride.",
        ),
        (
            lambda pulls, stride: _sides(pulls, stride, [3], [1], [5], [7]),
            "You count the side's middle tap alone. The two corners move with the side, too: three taps each.",
        ),
        (
            lambda pulls, stride: _sides(pulls, stride, [0, 6], [0, 2], [2, 8], [6, 8]),
            "You count the corners alone. The tap between them sits on the side as well: three taps each.",
        ),
        (
            lambda pulls, stride: _sides(pulls, stride) / 3,
            "You take the mean of three taps. All three move when the side moves: their pulls add up.",
        ),
        (
            lambda pulls, stride: _sides(pulls.flip(1), stride),
            "dy and dx are exchanged: each pull is (dy, dx). The left and right side move taps along x.",
        ),
        (
            lambda pulls, stride: _sides(pulls, stride, ROWS[0], COLUMNS[0], ROWS[2], COLUMNS[2]),
            "The taps go row by row: 0, 3, 6 are the left column, 0, 1, 2 the top row. You read them column by column.",
        ),
        (
            lambda pulls, stride: _sides(pulls, stride)[[1, 0, 3, 2]],
            "The values are right, but as t, l, b, r. The order is l, t, r, b.",
        ),
        (
            lambda pulls, stride: _sides(pulls, stride)[[0, 2, 1, 3]],
            "The values are right, but as l, r, t, b. The order is l, t, r, b.",
        ),
        (
            _both_parts,
            "You add dy and dx. The left side moves its taps along x and never along y: only dx counts for it.",
        ),
        (
            lambda pulls, stride: _sides(pulls, stride).sum(),
            "You add the four sides up. Each side has its own pull: return four numbers.",
        ),
        (
            lambda pulls, stride: _sides(pulls, stride, range(9), range(9), range(9), range(9)),
            "You add up all nine taps. A tap in the middle column stays where it is when l changes: it counts 0.",
        ),
    ],
    right="Three taps sit on each side, and a corner belongs to two. This is all that a star tells its box.",
    hint="Which taps move when l grows by one pixel, which way, and by how many cells?",
    describe=lambda case: f"the pulls {case[0].tolist()}, stride {case[1]}",
)


# ---- a sampler and its gradient -------------------------------------------------------------------------------------
def _parts(cells, y, x):
    i, j = math.floor(y), math.floor(x)
    return i, j, y - i, x - j, cells[i : i + 2, j : j + 2]


def _on_cells(cells, y, x, shares):
    """A map of zeros with four shares around the position."""
    i, j = math.floor(y), math.floor(x)
    around = torch.zeros_like(cells)
    around[i : i + 2, j : j + 2] = torch.as_tensor(shares, dtype=cells.dtype)
    return around


def _shares(down, right):
    return [[(1 - down) * (1 - right), (1 - down) * right], [down * (1 - right), down * right]]


def _rows(a, b, c, d, right):
    """Slope in y of four cells: a b above, c d below."""
    return (1 - right) * (c - a) + right * (d - b)


def _columns(a, b, c, d, down):
    return (1 - down) * (b - a) + down * (d - c)


def _slopes(cells, y, x):
    """(in y, in x)"""
    _, _, down, right, four = _parts(cells, y, x)
    a, b, c, d = four.flatten().tolist()
    return _rows(a, b, c, d, right), _columns(a, b, c, d, down)


def _backward(cells, y, x, push, map_push=None):
    _, _, down, right, _ = _parts(cells, y, x)
    slope_y, slope_x = _slopes(cells, y, x)
    shares = torch.tensor(_shares(down, right), dtype=cells.dtype)
    return _on_cells(cells, y, x, shares * (push if map_push is None else map_push)), push * slope_y, push * slope_x


def _with_shares(make):
    """The right slopes, with other shares: make(down, right)."""

    def answer(cells, y, x, push):
        _, _, down, right, _ = _parts(cells, y, x)
        shares = torch.tensor(make(down, right), dtype=cells.dtype) * push
        return _on_cells(cells, y, x, shares), *_backward(cells, y, x, push)[1:]

    return answer


def _with_slopes(make):
    """The right shares, with other slopes: make(a, b, c, d, down, right) -> in y, in x."""

    def answer(cells, y, x, push):
        _, _, down, right, four = _parts(cells, y, x)
        slope_y, slope_x = make(*four.flatten().tolist(), down, right)
        return _backward(cells, y, x, push)[0], push * slope_y, push * slope_x

    return answer


def _values_in_shares(cells, y, x, push):
    around, slope_y, slope_x = _backward(cells, y, x, push)
    return around * cells, slope_y, slope_x


def _nearest(cells, y, x, push):
    around, slope_y, slope_x = _backward(cells, y, x, push)
    whole = torch.zeros_like(cells)
    whole[round(y), round(x)] = push
    return whole, slope_y, slope_x


def _four_alone(cells, y, x, push):
    i, j, _, _, _ = _parts(cells, y, x)
    around, slope_y, slope_x = _backward(cells, y, x, push)
    return around[i : i + 2, j : j + 2], slope_y, slope_x


def _exchanged(cells, y, x, push):
    around, slope_y, slope_x = _backward(cells, y, x, push)
    return around, slope_x, slope_y


_MAP = torch.tensor([[0.0, 2.0, 1.0, 5.0], [3.0, 1.0, 4.0, -2.0], [-1.0, 6.0, 2.0, 0.5]], dtype=torch.float64)

sampler = Exercise(
    name="sampler",
    reference=_backward,
    cases=[(_MAP, 0.25, 1.5, 2.0), (_MAP, 1.4, 2.125, -1.0), (_MAP, 0.75, 0.2, 0.5)],
    mistakes=[
        (
            lambda cells, y, x, push: _backward(cells, y, x, 1.0),
            "These are the slopes of the value itself. The chain rule is missing: multiply everything by `push`.",
        ),
        (
            lambda cells, y, x, push: _backward(cells, y, x, push, 1.0),
            "The slopes in y and x are right. On the map, `push` is missing.",
        ),
        (
            lambda cells, y, x, push: _backward(cells, y, x, 1.0, push),
            "The map is right. The slopes in y and x are those of the value: multiply them by `push`, too.",
        ),
        (_exchanged, "The last two are exchanged: the slope in y comes first, then the one in x."),
        (
            _with_slopes(lambda a, b, c, d, down, right: (-_rows(a, b, c, d, right), -_columns(a, b, c, d, down))),
            "Both slopes have the wrong sign. Moving down, the lower row gains and the upper row loses.",
        ),
        (
            _with_slopes(lambda a, b, c, d, down, right: (c - a, b - a)),
            "Each slope looks at one pair of cells only. There are two pairs along each axis; the nearer weighs more.",
        ),
        (
            _with_slopes(lambda a, b, c, d, down, right: (c - a + d - b, b - a + d - c)),
            "You add the differences of two pairs in full. Weigh the pairs by nearness, as the value does.",
        ),
        (
            _with_slopes(lambda a, b, c, d, down, right: ((c - a + d - b) / 2, (b - a + d - c) / 2)),
            "You take the mean of two pairs, wherever the position lies. The nearer pair weighs more.",
        ),
        (
            _with_slopes(lambda a, b, c, d, down, right: (_rows(a, b, c, d, down), _columns(a, b, c, d, right))),
            "The weights in the slopes are those of the wrong axis: the slope in y is weighed along x, and the other "
            "way round.",
        ),
        (
            _with_slopes(
                lambda a, b, c, d, down, right: (_rows(a, b, c, d, 1 - right), _columns(a, b, c, d, 1 - down))
            ),
            "In the slopes the farther pair weighs more. Just after a cell its own pair should have almost all.",
        ),
        (
            _with_slopes(lambda a, b, c, d, down, right: (0.0, 0.0)),
            "The slopes are 0, as if the position were rounded. Between cells the value changes with the position.",
        ),
        (
            _with_slopes(
                lambda a, b, c, d, down, right: (down * _rows(a, b, c, d, right), right * _columns(a, b, c, d, down))
            ),
            "You multiply a slope by the distance already gone. The value is linear along an axis: the slope is the "
            "same all the way from one cell to the next.",
        ),
        (_values_in_shares, "On the map each cell's share is multiplied by the cell itself. The share alone is asked."),
        (_nearest, "You give the whole push to the nearest cell. Four cells made the value, so four are told."),
        (
            _with_shares(lambda down, right: [[0.25, 0.25], [0.25, 0.25]]),
            "On the map all four cells get the same. Each gets the weight with which it was read.",
        ),
        (
            _with_shares(lambda down, right: _shares(right, down)),
            "On the map the weights of y and x are exchanged: y mixes the two rows, x the two columns.",
        ),
        (
            _with_shares(lambda down, right: _shares(1 - down, 1 - right)),
            "On the map the farthest cell gets most. The nearer a cell, the larger its share.",
        ),
        (_four_alone, "These are the right four shares. Put them into a map of zeros, as large as `cells`."),
    ],
    right="The push is dealt out to four cells by their shares, and the position feels the slopes between them.",
    hint="value = (1-down)((1-right) a + right b) + down ((1-right) c + right d): take its derivative by a, b, c, d "
    "(a map of zeros with four entries), by y and by x, and multiply each by `push`.",
    describe=lambda case: f"y = {case[1]}, x = {case[2]}, push = {case[3]}",
)
