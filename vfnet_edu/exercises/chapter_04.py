"""Exercises of chapter 4: the window of a cell, the shapes of a pyramid, the level for an object."""

import math
from collections.abc import Callable, Sequence

from vfnet_edu.exercises.engine import Exercise


# ------------------------------------------------------------------ the window of a cell
def _window(layers: Sequence[tuple[int, int]]) -> int:
    side = 1
    for kernel, stride in reversed(layers):
        side = (side - 1) * stride + kernel
    return side


def _own_stride_first(layers: Sequence[tuple[int, int]]) -> int:
    """A layer's own stride spreads its own taps already."""
    side, apart = 1, 1
    for kernel, stride in layers:
        apart *= stride
        side += (kernel - 1) * apart
    return side


def _stride_on_the_way_out(layers: Sequence[tuple[int, int]]) -> int:
    side = 1
    for kernel, stride in reversed(layers):
        side = side * stride + kernel
    return side


window = Exercise(
    name="window",
    reference=_window,
    cases=[
        ([(3, 2), (3, 1)],),
        ([(3, 1)],),
        ([(7, 2), (3, 2), (3, 1), (3, 1)],),
        ([(5, 1), (3, 2), (3, 1)],),
        ([(3, 2), (1, 1), (3, 2), (5, 1)],),
    ],
    mistakes=[
        (
            lambda layers: 1 + sum(k - 1 for k, _ in layers),
            "The strides are missing: behind a stride of 2, neighbouring cells lie two pixels apart.",
        ),
        (
            lambda layers: sum(k for k, _ in layers),
            "You add the kernels. A second 3x3 adds one cell on each side, not three; strides spread what follows.",
        ),
        (
            lambda layers: math.prod(k for k, _ in layers),
            "You multiply the kernels. Neighbouring cells overlap in what they read, so a window grows more slowly.",
        ),
        (
            lambda layers: math.prod(s for _, s in layers),
            "That is the stride of the map: how far apart two cells are. How much does one cell read?",
        ),
        (
            lambda layers: _window(layers[::-1]),
            "You go through the layers from the picture on. Begin at the cell, with the last layer, and walk back.",
        ),
        (
            _own_stride_first,
            "You let the stride of a layer spread its own taps. It spreads the cells of the layers that come after it.",
        ),
        (
            _stride_on_the_way_out,
            "Nearly: n cells that are `stride` apart span (n - 1) * stride, and then the kernel is added.",
        ),
        (
            lambda layers: _window(layers) ** 2,
            "That is the number of pixels in the window. The question is its side.",
        ),
        (
            lambda layers: (_window(layers) - 1) // 2,
            "That is the reach to one side. Take both sides, and the pixel in the middle.",
        ),
        (
            lambda layers: _window(layers[:-1]),
            "The last layer is missing: it reads several cells of the map before it.",
        ),
        (
            lambda layers: _window(layers[1:]),
            "The first layer is missing: the one that reads the picture itself.",
        ),
    ],
    right="Walking back, every kernel adds to the window and every stride multiplies it. That is what a cell could "
    "see; how much of it the cell does see has to be measured.",
    hint="Begin with one cell. Walk back: n cells of a layer read (n - 1) * stride + kernel cells of the layer before.",
    tolerance=0.0,
    describe=lambda case: f"layers (kernel, stride) = {case[0]}",
)


# ------------------------------------------------------------------ the shapes of a pyramid
Shapes = Sequence[tuple[int, int, int]]


def _pyramid(maps: Shapes, channels: int, extra: int, half: Callable[[float], float] = lambda n: (n + 1) // 2) -> list:
    shapes: list[tuple[int, float, float]] = [(channels, h, w) for _, h, w in maps]
    for _ in range(extra):
        _, h, w = shapes[-1]
        shapes.append((channels, half(h), half(w)))
    return shapes


def _doubled(maps: Shapes, channels: int, extra: int) -> list:
    """The top-down path as `scale_factor=2` would make it: a level is twice the next coarser one."""
    *_, (_, h, w) = maps
    finer = [(channels, h * 2**n, w * 2**n) for n in range(len(maps) - 1, 0, -1)]
    return finer + _pyramid(maps[-1:], channels, extra)


def _of_one_size(maps: Shapes, channels: int, extra: int) -> list:
    _, h, w = maps[0]
    return [(channels, h, w)] * (len(maps) + extra)


def _concatenated(maps: Shapes, channels: int, extra: int) -> list:
    """Every level holds its own channels and those of the next one, which flows down."""
    own = [c for c, _, _ in maps]
    deep = [sum(own[n:]) for n in range(len(own))] + [own[-1]] * extra
    return [(c, h, w) for c, (_, h, w) in zip(deep, _pyramid(maps, channels, extra), strict=True)]


def _from_the_first(maps: Shapes, channels: int, extra: int) -> list:
    """Every extra level from the last map of the backbone, not from one another."""
    last = _pyramid(maps, channels, 1)[-1]
    return _pyramid(maps, channels, 0) + [last] * extra


def _own_channels(maps: Shapes, channels: int, extra: int) -> list:
    coarse = _pyramid(maps, maps[-1][0], extra)[len(maps) :]
    return list(maps) + coarse


pyramid = Exercise(
    name="pyramid",
    reference=_pyramid,
    cases=[
        ([(512, 100, 168), (1024, 50, 84), (2048, 25, 42)], 256, 2),
        ([(512, 42, 63), (1024, 21, 32), (2048, 11, 16)], 256, 2),
        ([(40, 16, 16), (80, 8, 8), (160, 4, 4)], 64, 0),
        ([(64, 19, 13), (128, 10, 7), (256, 5, 4)], 96, 3),
    ],
    mistakes=[
        (
            lambda maps, c, extra: _pyramid(maps, c, extra, half=lambda n: n // 2),
            "You halve and round down. A convolution of stride 2 with padding begins at the first cell and reads every "
            "second one: 25 rows become 13.",
        ),
        (
            lambda maps, c, extra: _pyramid(maps, c, extra, half=lambda n: n / 2),
            "There are no half cells: 25 rows become 13.",
        ),
        (
            _doubled,
            "You make a level twice the next coarser one. 11 rows enlarged to fit 21 must become 21, not 22: the finer "
            "map says how large.",
        ),
        (
            _of_one_size,
            "All levels have the size of the finest here. They keep their own sizes: nothing has to be resized for the "
            "head.",
        ),
        (
            _own_channels,
            "You keep the backbone's channels. The 1x1 convolutions give every level the same number: `channels`.",
        ),
        (
            _concatenated,
            "You put maps behind one another. What comes from above is *added*, so the number of channels stays.",
        ),
        (
            lambda maps, c, extra: _pyramid(maps, c, 0),
            "The extra levels are missing: each halves the one before.",
        ),
        (
            lambda maps, c, extra: _pyramid(maps, c, extra)[::-1],
            "All shapes are right, but the coarsest comes first. The pyramid begins with P3, the finest.",
        ),
        (
            lambda maps, c, extra: [(h, w) for _, h, w in _pyramid(maps, c, extra)],
            "Rows and columns are right. Put the number of channels before them.",
        ),
        (
            lambda maps, c, extra: [(h, w, c) for c, h, w in _pyramid(maps, c, extra)],
            "In this package channels come first: (channels, rows, columns).",
        ),
        (
            lambda maps, c, extra: [(c, w, h) for c, h, w in _pyramid(maps, c, extra)],
            "Rows and columns are exchanged: a shape names the rows first.",
        ),
        (
            _from_the_first,
            "You make every extra level from P5. P6 comes from P5, but P7 comes from P6: it halves once more.",
        ),
        (
            lambda maps, c, extra: _pyramid(maps, c, extra, half=lambda n: n),
            "The extra levels have the size of P5. Their convolutions have a stride of 2: each level halves.",
        ),
        (
            lambda maps, c, extra: [(1, *shape) for shape in _pyramid(maps, c, extra)],
            "A batch of one is more than was asked for: (channels, rows, columns).",
        ),
        (
            lambda maps, c, extra: [(c, h * w) for c, h, w in _pyramid(maps, c, extra)],
            "You have laid the maps flat. That is for the head's answers; a level itself is (channels, rows, columns).",
        ),
    ],
    right="Levels keep the sizes of the backbone's maps, all have the same channels, and after P5 every side halves, "
    "rounded up.",
    hint="P3 to P5 have the rows and columns of C3 to C5. Then each extra level has half the rows and columns, rounded "
    "up. All have `channels` channels.",
    tolerance=0.0,
)


# ------------------------------------------------------------------ which level for an object
def _clamp(n: float, levels: Sequence[int]) -> int:
    return int(min(max(n, levels[0]), levels[-1]))


def _by(size: float, unit: float, levels: Sequence[int], whole: Callable[[float], float] = round) -> int:
    """The level whose square, unit * 2**n pixels wide, is as large as an object of this size."""
    return _clamp(whole(math.log2(size / unit)), levels)


def _level(width: float, height: float, unit: float, levels: Sequence[int]) -> int:
    return _by(math.sqrt(width * height), unit, levels)


def _nearest_by_difference(width: float, height: float, unit: float, levels: Sequence[int]) -> int:
    return min(levels, key=lambda n: abs(unit * 2**n - math.sqrt(width * height)))


level = Exercise(
    name="level",
    reference=_level,
    cases=[
        (100, 50, 8, (3, 4, 5, 6, 7)),
        (300, 290, 8, (3, 4, 5, 6, 7)),
        (93, 93, 8, (3, 4, 5, 6, 7)),
        (400, 100, 8, (3, 4, 5, 6, 7)),
        (20, 12, 8, (3, 4, 5, 6, 7)),
        (2500, 2200, 8, (3, 4, 5, 6, 7)),
        (60, 50, 4, (3, 4, 5)),
        (900, 20, 4, (3, 4, 5, 6, 7)),
    ],
    mistakes=[
        (
            lambda w, h, unit, levels: _by(math.sqrt(w * h), unit, levels, math.floor),
            "You round down. The nearest square may also be the larger one.",
        ),
        (
            lambda w, h, unit, levels: _by(math.sqrt(w * h), unit, levels, math.ceil),
            "You round up: the first square that holds the object. The nearest one may be smaller than it.",
        ),
        (
            lambda w, h, unit, levels: _by(max(w, h), unit, levels),
            "You take the longest side. The size here is the root of width times height: a square of the same area.",
        ),
        (
            lambda w, h, unit, levels: _by(min(w, h), unit, levels),
            "You take the shortest side. The size here is the root of width times height: a square of the same area.",
        ),
        (
            lambda w, h, unit, levels: _by((w + h) / 2, unit, levels),
            "You take the mean of the sides. A square of the same area has the root of width times height.",
        ),
        (
            lambda w, h, unit, levels: _by(w * h, unit, levels),
            "You compare an area with a side: take the root of width times height first.",
        ),
        (
            lambda w, h, unit, levels: round(math.log2(math.sqrt(w * h) / unit)),
            "You leave the pyramid. What is too small goes to the finest level, what is too large to the coarsest.",
        ),
        (
            lambda w, h, unit, levels: 2 ** _level(w, h, unit, levels),
            "That is the stride of the level. Return its number n: the stride is 2**n.",
        ),
        (
            lambda w, h, unit, levels: unit * 2 ** _level(w, h, unit, levels),
            "That is the side of the square. Return the number n of its level.",
        ),
        (
            lambda w, h, unit, levels: _level(w, h, unit, levels) - levels[0],
            "You count levels from 0. Return the number that the level is called by: 3 for P3.",
        ),
        (
            lambda w, h, unit, levels: _by(math.sqrt(w * h), 1, levels),
            "`unit` is missing: the square of level n is unit * 2**n pixels wide.",
        ),
        (
            lambda w, h, unit, levels: _clamp(round(math.log(math.sqrt(w * h) / unit)), levels),
            "That is the natural logarithm. From level to level the squares double: take the logarithm to base 2.",
        ),
        (
            _nearest_by_difference,
            "You compare differences. Sizes are compared by their ratio: 93 is 1.45 times 64, but 128 is only 1.38 "
            "times 93.",
        ),
        (
            lambda w, h, unit, levels: f"P{_level(w, h, unit, levels)}",
            "Right, in words. Return the number alone: 3 for P3.",
        ),
    ],
    right="A level up for every doubling of the size. So all objects look about equally large to the head, counted in "
    "cells.",
    hint="Size: the root of width times height. Which n makes unit * 2**n nearest to it, by ratio? Round the logarithm "
    "to base 2 of size / unit, and stay inside `levels`.",
    tolerance=0.0,
    describe=lambda case: f"an object of {case[0]} x {case[1]} pixels, unit {case[2]}, levels {case[3]}",
)
