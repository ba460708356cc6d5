"""ShapeScenes, the data set inside the package: pictures of paper and enamel shapes, with exact boxes.

A shape is one short function f(x, y): negative inside, zero on the outline, positive outside. Divided by the length of
its gradient it is the signed distance to the outline in pixels, to first order (Taubin, "Distance approximations for
rasterizing implicit curves", 1994), however the shape is stretched and turned. The distance gives all the rest: the
smooth edge, the bevel, the rim and the soft shadow.

A scene is a function of (seed, index) alone, and the same picture at every size: its lengths are fractions of
sqrt(height * width). Pixels are float32 and see only + - * / sqrt, comparison and rounding, which IEEE 754 fixes to
the last bit, so that every machine draws the same.
"""

import functools
import hashlib
import json
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.runtime.files import locked

# What makes the set hard: how small, turned, hidden, and similar to the ground. Lengths: fractions of sqrt(h * w).
SMALLEST, LARGEST = 0.14, 0.63  # across, uniform in the logarithm: 18 to 80 pixels at 128 x 128
LEAST_VISIBLE = 0.65  # fraction of an object that stays in sight: a nearer one that would hide more is not placed
LEAST_AREA = 0.002  # fraction of the image that every object fills (32 pixels at 128 x 128)
LARGEST_TURN = 0.35  # radians, either way
CONTRAST = 0.3  # least difference of an ink from the ground, in the channel of [0, 1] where it is largest
VAL_START = 1_000_000  # index of the first validation scene: the same scenes, however many we train on
SPECIFICATION = "shape_scenes.json"  # marks a folder as ours, and says what is in it

PALETTES = (  # two grounds (light, dark), then five inks; any class may wear any ink
    "f3e9d6 1f3a4a d95f43 2f8f8b e8b04b 87bcc0 3d5a80",
    "f1efe0 2d3b2d b8413a 7a9e4b e3a93c d97b66 46653f",
    "f2e8ee 33243f 8e4585 d9748b f0b67f 4c5fa3 a7a3d1",
    "eceff1 263238 5b8db8 c9553d e0b656 7d9d8c 44546a",
    "f6e6cf 4a2c2a c8643c 8a9a5b 3f7f8c e5a04f a4465a",
    "f5f2ea 22252b 3b4a6b b23a48 d8c690 6f8f9c 8b5e3c",
    "e9f0e2 24403a e07a5f f2cc8f 6fa88c 3d6e8f a35c8c",
    "fbeef0 3a3050 ef7f92 6fb7d6 f6c65b 9a7fd1 5dbb9a",
    "f4ead5 3b2a20 c4552d e09f3e 9b2f2f 5f7a61 2c6e7a",
    "e8e6f0 1c2541 5f7fbf e58f65 c65b7c f3d17a 5aa7a7",
)


# ---- The shapes: f(x, y) with y down, about as large as the square [-1, 1] x [-1, 1] --------------------------------


def _length(x, y):
    return np.sqrt(x * x + y * y)


def _box(x, y, a, b):
    x, y = np.abs(x) - a, np.abs(y) - b
    return _length(np.maximum(x, 0), np.maximum(y, 0)) + np.minimum(np.maximum(x, y), 0)


def _star(x, y):
    """Fold the plane along the five axes of symmetry: one straight edge is left, from tip (0, 1.08) to notch."""
    x, y = np.abs(x), -y
    for ax, ay in ((0.809, -0.588), (-0.809, -0.588)):
        fold = 2 * np.maximum(ax * x + ay * y, 0)
        x, y = x - fold * ax, y - fold * ay
    return 0.82 * np.abs(x) + 0.57 * (y - 1.08)


def _heart(x, y):
    """A square on its corner and two half discs (after Inigo Quilez, "2D distance functions")."""
    x, y = 0.61 * np.abs(x), 0.56 - 0.61 * y
    along = np.maximum(x + y, 0) / 2
    side = np.minimum(_length(x, y - 1), _length(x - along, y - along))
    return np.where(x + y > 1, _length(x - 0.25, y - 0.75) - 0.35355, np.where(x > y, side, -side))


SHAPES = {
    "ellipse": lambda x, y: _length(x, y) - 1,
    "rectangle": lambda x, y: _box(x, y, 0.82, 0.82) - 0.06,  # a distance less r: corners rounded with radius r
    "triangle": lambda x, y: np.maximum(y - 0.827, 0.866 * np.abs(x) - 0.5 * y - 0.452),  # inside three half-planes
    "star": _star,
    "ring": lambda x, y: np.abs(_length(x, y) - 0.75) - 0.25,
    "cross": lambda x, y: np.minimum(_box(x, y, 0.96, 0.27), _box(x, y, 0.27, 0.96)) - 0.04,  # either of two bars
    "crescent": lambda x, y: np.maximum(_length(x - 0.2, y) - 1, 0.82 - _length(x - 0.65, y)),  # a disc less a disc
    "heart": _heart,
}
CLASSES = tuple(SHAPES)


@functools.cache
def _area(name: str) -> float:
    """Area of the unit shape, by counting."""
    x = np.linspace(-1.25, 1.25, 500, dtype=np.float32)
    return float((SHAPES[name](x, x[:, None]) < 0).mean() * 2.5**2)


# ---- Brushes: grey is (h, w), colour is (3, h, w), y is (h, 1) and x is (1, w) in unit lengths ----------------------


def _stream(*key: int) -> np.random.Generator:
    """Random numbers that depend on the key alone."""
    return np.random.Generator(np.random.PCG64(key))


def _mix(a, b, t):
    return a + (b - a) * t


def _smooth(t):
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _wave(t):
    """Triangle wave between 0 and 1, of period 1."""
    t = t - np.floor(t)
    return 2 * np.minimum(t, 1 - t)


def _noise(rng, y, x, fy, fx):
    """(h, w) around 0.5: a quadratic B-spline with random coefficients, fy and fx of them to the unit length."""
    knots = 2 * rng.random((int(fy * y[-1, 0]) + 3, int(fx * x[0, -1]) + 3), dtype=np.float32) - 0.5
    for t in (fy * y, fx * x[0, :, None]):  # one axis, then the other
        i, t = t[:, 0].astype(int), t - np.floor(t)
        knots = 0.5 * (knots[i] * (1 - t) ** 2 + knots[i + 1] * (1 + 2 * t * (1 - t)) + knots[i + 2] * t**2)
        knots = knots.T
    return knots


def _colours(rng):
    """Ground, second tone of the ground, and two to seven inks that stand out from both: each (3, 1, 1)."""
    words = PALETTES[rng.integers(len(PALETTES))].split()
    rgb = np.array([[int(word[i : i + 2], 16) / 255 for i in (0, 2, 4)] for word in words], np.float32)
    light, dark, *inks = rgb[..., None, None] + rng.uniform(-0.05, 0.05, (7, 3, 1, 1)).astype(np.float32)
    ground = (light, light, dark, _mix(inks[0], light, 0.55), _mix(inks[1], dark, 0.55))[rng.integers(5)]
    tone, far = _mix(ground, inks[rng.integers(5)], 0.3), light if ground.mean() < 0.5 else dark
    distinct = [ink for ink in inks if min(np.abs(ink - ground).max(), np.abs(ink - tone).max()) > CONTRAST]
    return ground, tone, [*distinct, _mix(far, inks[0], 0.15), _mix(far, inks[1], 0.35)]


# ---- Grounds: how much of the second tone, (h, w); ``way`` is the direction of the light ----------------------------


def _wood(rng, y, x, way):
    rings = 7 * y + 3 * _noise(rng, y, x, 3, 1.2)
    return 0.6 * _smooth(_wave(rings)) + 0.25 * _wave(3 * rings) + 0.35 * _noise(rng, y, x, 60, 4)


def _bokeh(rng, y, x, way):
    glow = 0.15 * y
    for _ in range(12):
        cy, cx, radius, power = rng.random(4, dtype=np.float32) * np.array([1, 1, 0.11, 0.35], np.float32)
        glow = glow + power * _smooth((radius + 0.04 - _length(x - cx, y - cy)) / (0.02 + radius / 2))
    return glow


def _linen(rng, y, x, way):
    threads = np.maximum(_wave(24 * x) * _noise(rng, y, x, 6, 48), _wave(24 * y) * _noise(rng, y, x, 48, 6))
    return 0.9 * threads + 0.3 * _noise(rng, y, x, 3, 3)


GROUNDS = {
    "gradient": lambda rng, y, x, way: _smooth(0.5 + 0.9 * (way[0] * (x - 0.5) + way[1] * (y - 0.5))),
    "clouds": lambda rng, y, x, way: _smooth(_noise(rng, y, x, 3, 3) + 0.6 * _noise(rng, y, x, 8, 8) - 0.3),
    "paper": lambda rng, y, x, way: 0.5 * _noise(rng, y, x, 50, 50) + 0.5 * _noise(rng, y, x, 90, 9),
    "wood": _wood,
    "linen": _linen,
    "stripes": lambda rng, y, x, way: 0.6 * _smooth(3 * _wave((way[0] * x + way[1] * y) * rng.uniform(3, 8)) - 1),
    "squared": lambda rng, y, x, way: 0.8 * _smooth(8 * np.maximum(_wave(10 * x + 0.5), _wave(10 * y + 0.5)) - 7),
    "bokeh": _bokeh,
}


def _background(rng, y, x, light, ground, tone, inks, texture=None):
    """(3, h, w): two tones and a texture, a few pencil lines and crumbs that are no class, and the falling light."""
    texture = texture or tuple(GROUNDS.values())[rng.integers(len(GROUNDS))]
    grain = texture(rng, y, x, light) if rng.random() < 0.5 else texture(rng, x.T, y.T, light).T
    canvas = _mix(ground, tone, grain)
    for _ in range(rng.integers(4)):
        cx, cy, turn, reach = rng.random(4).tolist()
        cos, sin = math.cos(math.tau * turn), math.sin(math.tau * turn)
        u, v = (x - cx) * cos + (y - cy) * sin, (y - cy) * cos - (x - cx) * sin
        away = _length(np.maximum(np.abs(u) - max(0.5 * reach - 0.2, 0), 0), v)
        canvas = _mix(canvas, inks[rng.integers(len(inks))], 0.5 * _smooth((0.012 - away) / 0.008))
    return canvas * (1 + 0.12 * (light[0] * (x - 0.5) + light[1] * (y - 0.5)))


# ---- One object ----------------------------------------------------------------------------------------------------


class _Object:
    """A shape somewhere in the picture: a window of pixels, and over that window the distance to the outline."""

    def __init__(self, label, radius, stretch, turn, centre, y, x, unit):
        """Radius and centre (y, x) in unit lengths; y, x: of the whole picture; ``unit``: pixels to the unit length."""
        self.label, self.radius = label, radius
        rx, ry, cos, sin = radius * stretch, radius / stretch, math.cos(turn), math.sin(turn)
        self.full_area = _area(CLASSES[label]) * rx * ry * unit**2  # pixels

        cy, cx = centre
        high, wide = (1.1 * (abs(rx * a) + abs(ry * b)) + 0.06 for a, b in ((sin, cos), (cos, sin)))  # 0.06: the shadow
        rows = slice(max(int((cy - high) * unit), 0), int((cy + high) * unit))
        columns = slice(max(int((cx - wide) * unit), 0), int((cx + wide) * unit))
        self.window = rows, columns
        y, x = y[rows] - cy, x[:, columns] - cx
        self.u, self.v = x * cos + y * sin, y * cos - x * sin  # along the axes of the object, in unit lengths

        f = SHAPES[CLASSES[label]](self.u / rx, self.v / ry)
        fy, fx = np.gradient(f)
        slope = np.maximum(_length(fy, fx), 0.6 / (unit * max(rx, ry)))  # it would vanish on the ridges inside
        self.distance = f / slope  # pixels, negative inside
        self.normal = fy / slope, fx / slope
        self.inside = f < 0

    @classmethod
    def at_random(cls, rng, y, x, unit):
        label = int(rng.integers(len(CLASSES)))
        radius = SMALLEST / 2 * (LARGEST / SMALLEST) ** rng.random()
        stretch, turn = 1.35 ** rng.uniform(-1, 1), rng.uniform(-LARGEST_TURN, LARGEST_TURN)  # at most 1.8 : 1
        margin = 0.8 * radius  # the border may cut off a little
        centre = rng.uniform(margin, len(y) / unit - margin), rng.uniform(margin, x.size / unit - margin)
        return cls(label, radius, stretch, turn, centre, y, x, unit)

    def paint(self, rng, canvas, unit, light, inks):
        """Shadow, then body: a pattern of two inks, lit along its bevel."""
        canvas = canvas[:, *self.window]
        height = rng.uniform(0.01, 0.04)  # above the ground: how far the shadow falls, and how soft it is
        rows, columns = (
            np.clip(np.arange(n) + round(way * height * unit), 0, n - 1)
            for n, way in zip(self.distance.shape, (light[1], light[0]), strict=True)
        )
        shadow = _smooth(0.5 - self.distance[rows[:, None], columns] / (1.5 * height * unit))
        canvas *= 1 - shadow * np.array([0.5, 0.46, 0.4], np.float32)[:, None, None]

        first = rng.integers(len(inks))
        second = (first + rng.integers(1, len(inks))) % len(inks)
        colour = _mix(inks[first], inks[second], self._pattern(rng, unit))
        bevel = np.clip(1 + self.distance / (rng.uniform(0.2, 0.7) * self.radius * unit), 0, 1)
        facing = (self.normal[0] * light[1] + self.normal[1] * light[0]) * bevel * rng.uniform(0.1, 0.45)
        sheen = (self.u * light[0] + self.v * light[1]) * (0.15 / self.radius)
        colour = colour * (1 + facing + sheen) + 0.3 * np.maximum(facing, 0)
        canvas[:] = _mix(canvas, colour, np.clip(0.5 - self.distance, 0, 1))

    def _pattern(self, rng, unit):
        """How much of the second ink, (h, w) in [0, 1]. Most objects are plain, and all small ones."""
        kind = rng.integers(12 if self.radius > 0.1 else 2)
        period = rng.uniform(0.07, 0.12)
        sharp = period * unit / 2  # half a wave in pixels
        if kind == 0:  # fading from one end to the other
            return np.clip(0.5 + 0.4 * self.u / self.radius, 0, 1)
        if kind == 2:  # stripes
            return np.clip(0.5 + sharp * (_wave(self.u / period) - 0.5), 0, 1)
        if kind == 3:  # dots
            return np.clip(0.5 + sharp * (0.6 - _length(_wave(self.u / period), _wave(self.v / period))), 0, 1)
        if kind == 4:  # a rim
            return np.clip(self.distance + 0.03 * unit, 0, 1)
        return np.float32(0)


# ---- Scenes --------------------------------------------------------------------------------------------------------


def draw_scene(seed: int, index: int, size: int | tuple[int, int] = 128) -> tuple[torch.Tensor, dict]:
    """Draw one scene: up to 7 objects, the later ones in front.

    Args:
        seed, index: not negative; the scene depends on nothing else.
        size: pixels, the side of a square or (height, width).

    Returns:
        image (3, h, w) uint8 RGB, and the target of its G objects: "boxes" (G, 4) float32 xyxy in pixels, tight around
        what is visible, as in COCO; "labels" (G,) int64, indices into :data:`CLASSES`; "areas" (G,) float32, visible
        pixels. Every object drawn is in the target, at least LEAST_VISIBLE of it in sight.
    """
    h, w = (size, size) if isinstance(size, int) else size
    unit = math.sqrt(h * w)
    y = ((np.arange(h) + 0.5) / unit).astype(np.float32)[:, None]  # (h, 1)
    x = ((np.arange(w) + 0.5) / unit).astype(np.float32)[None]  # (1, w)
    rng = _stream(seed, index, 0)
    wanted, turn = int(rng.integers(3, 8)), rng.uniform(0, math.tau)
    light = math.cos(turn), math.sin(turn)  # (x, y), towards the lamp
    ground, tone, inks = _colours(rng)
    canvas = _background(rng, y, x, light, ground, tone, inks)

    owner = np.zeros((h, w), np.int64)  # whose pixel it is: the ground's (0) or that of the k-th object (k)
    placed, visible = [], np.array([h * w])  # pixels still in sight: of the ground, then of each object
    for attempt in range(1, 4 * wanted):
        rng = _stream(seed, index, attempt)  # its own stream: refusing one candidate changes none of the others
        item = _Object.at_random(rng, y, x, unit)
        covered = np.bincount(owner[item.window][item.inside], minlength=len(visible))
        left = np.append(visible - covered, item.inside.sum())
        floor = [0, *(max(LEAST_VISIBLE * one.full_area, LEAST_AREA * h * w) for one in (*placed, item))]
        if (left < floor).any():
            continue
        placed, visible = [*placed, item], left
        owner[item.window][item.inside] = len(placed)
        item.paint(rng, canvas, unit, light, inks)
        if len(placed) == wanted:
            break

    boxes = torch.zeros(len(placed), 4)
    for k in range(len(placed)):
        rows, columns = (np.flatnonzero((owner == k + 1).any(axis)) for axis in (1, 0))
        boxes[k] = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    labels = torch.tensor([item.label for item in placed], dtype=torch.int64)
    areas = torch.tensor(visible[1:], dtype=torch.float32)
    return _eight_bits(canvas), {"boxes": boxes, "labels": labels, "areas": areas}


# ---- One by one: what a page needs to compose scenes of its own -----------------------------------------------------

LAMP = (-0.6, -0.8)  # (x, y), towards the light, upper left: what is composed must have one lamp


class Sprite(NamedTuple):
    """One object cut out.  It turns what lies under it into ``light + through / 255 * canvas``, its shadow included."""

    light: torch.Tensor  # uint8 (3, h, w) RGB
    through: torch.Tensor  # uint8 (3, h, w): how much of the canvas is seen, 255 for all of it
    inside: torch.Tensor  # bool (h, w): the object without its shadow


def draw_ground(name: str, palette: int, size: int = 128) -> torch.Tensor:
    """A ground without objects.

    Args:
        name: one of :data:`GROUNDS`.
        palette: not negative; it decides the colours, the grain and the pencil lines.
        size: pixels, the side of a square.

    Returns:
        uint8 (3, size, size) RGB.

    Raises:
        UserError: there is no such ground.
    """
    _known(name, GROUNDS, "ground")
    y = ((np.arange(size) + 0.5) / size).astype(np.float32)[:, None]
    rng = _stream(palette)
    return _eight_bits(_background(rng, y, y.T, LAMP, *_colours(rng), GROUNDS[name]))


def draw_object(
    name: str, palette: int, look: int, radius: float = 0.18, stretch: float = 1.0, turn: float = 0.0, size: int = 128
) -> Sprite:
    """One object, to be laid on any ground.

    Everything that painting does to the canvas is linear in the canvas.  So painting once on black and once on white
    tells all of it.

    Args:
        name: one of :data:`CLASSES`.
        palette: not negative; of the colours. They stand out from the ground of the same palette.
        look: not negative; decides which of these colours, the pattern, the bevel and the shadow.
        radius, stretch: fractions of `size`, and width over height, both of the shape before it turns.
        turn: radians, clockwise.
        size: pixels along the side of the picture that it is meant for.

    Raises:
        UserError: there is no such class.
    """
    _known(name, SHAPES, "class")
    y = ((np.arange(2 * size) + 0.5) / size).astype(np.float32)[:, None]  # room for all of it, wherever it is cut off
    item = _Object(CLASSES.index(name), radius, math.sqrt(stretch), turn, (1.0, 1.0), y, y.T, size)
    *_, inks = _colours(_stream(palette))
    seen = []
    for value in (0, 1):  # black, white; the same random numbers twice
        canvas = np.full((3, 2 * size, 2 * size), value, np.float32)
        item.paint(_stream(palette, look), canvas, size, LAMP, inks)
        seen.append(canvas[:, *item.window])
    return Sprite(_eight_bits(seen[0]), _eight_bits(seen[1] - seen[0]), torch.from_numpy(item.inside))


def _known(name, known, kind):
    if name not in known:
        raise UserError(f"there is no {kind} {name!r} in ShapeScenes", remedy=f"choose one of {', '.join(known)}")


def _eight_bits(canvas):
    return torch.from_numpy((np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8))


# ---- The data set on disk ------------------------------------------------------------------------------------------


def write_shape_scenes(
    folder: str | Path, train: int = 2400, val: int = 300, size: int | tuple[int, int] = 128, seed: int = 0
) -> Path:
    """Write the data set in COCO layout: train/ and val/ (PNG), annotations/instances_{train,val}.json.

    A folder that holds just this already is left as it is; one that holds other ShapeScenes is replaced. The folder
    appears complete or not at all. Several processes may call this at once: one draws, the others wait for it.

    Args:
        folder: where to write; missing parents are made.
        train, val: numbers of images. The validation scenes do not depend on ``train``.
        size, seed: as for :func:`draw_scene`.

    Returns:
        The folder.

    Raises:
        UserError: the folder holds something else (DATA), or the disk refuses (STORAGE).
    """
    folder = Path(folder).absolute()
    drawing = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()  # a change to this file redraws the set
    wanted = {"train": train, "val": val, "size": size if isinstance(size, int) else [*size]}
    wanted |= {"seed": seed, "drawing": drawing}
    if _holds(folder, wanted):
        return folder
    scratch, old, lock = (folder.with_name(f".{folder.name}.{word}") for word in ("drawing", "old", "lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock):
            if _holds(folder, wanted):
                return folder
            if folder.exists() and any(folder.iterdir()) and not (folder / SPECIFICATION).is_file():
                raise UserError(f"{folder} holds other files", remedy="name a new folder", code=Exit.DATA)
            for left_over in (scratch, old):
                shutil.rmtree(left_over, ignore_errors=True)
            _write_split(scratch, "train", range(train), size, seed)
            _write_split(scratch, "val", range(VAL_START, VAL_START + val), size, seed)
            (scratch / SPECIFICATION).write_text(json.dumps(wanted), encoding="utf-8")
            if folder.exists():
                os.rename(folder, old)
            os.rename(scratch, folder)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        what = f"cannot write the embedded data set to {folder}: {error}"
        raise UserError(what, remedy="free some space, or name another folder", code=Exit.STORAGE) from error
    return folder


def _holds(folder, wanted):
    try:
        return json.loads((folder / SPECIFICATION).read_text(encoding="utf-8")) == wanted
    except (OSError, ValueError):
        return False


def _write_scene(folder, seed, size, numbers):
    """Draw and store one scene; `numbers` are its id and its index -> file name, (height, width), objects."""
    image_id, index = numbers
    image, target = draw_scene(seed, index, size)
    name = f"{image_id:06d}.png"
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(folder / name, compress_level=1)
    return name, image.shape[1:], [*zip(*(value.tolist() for value in target.values()), strict=True)]


def _write_split(folder, split, indices, size, seed):
    for name in (split, "annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    write = functools.partial(_write_scene, folder / split, seed, size)
    with ThreadPoolExecutor(2) as pool:  # NumPy and the PNG encoder compute without Python's lock, most of the time
        for image_id, (name, (height, width), objects) in enumerate(pool.map(write, enumerate(indices, 1)), 1):
            images.append({"id": image_id, "file_name": name, "height": height, "width": width})
            for (x1, y1, x2, y2), label, area in objects:
                what = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label + 1}
                annotations.append(what | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "iscrowd": 0})
    categories = [{"id": k, "name": name, "supercategory": "shape"} for k, name in enumerate(CLASSES, start=1)]
    contents = {"info": {"description": f"ShapeScenes, {split}, drawn by vfnet_edu"}}
    contents |= {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(contents), encoding="utf-8")
