"""Boxes on images: axes in, axes out, or an array of pixels for files and video frames."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath

from vfnet_edu.data.images import Picture, as_pixels
from vfnet_edu.postprocess import Detections

# Okabe & Ito, "Color Universal Design" (2008): distinguishable with every common kind of colour blindness
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442")
TONES = (0.0, 0.45, -0.4)  # more classes than colours: the same ones, paler, then darker


def colour(label: int) -> str:
    """Colour of a class, 21 different ones; the class's name is always written beside it."""
    tone, rgb = TONES[label // len(OKABE_ITO) % len(TONES)], np.array(to_rgb(OKABE_ITO[label % len(OKABE_ITO)]))
    red, green, blue = (rgb + (1 - rgb) * tone if tone > 0 else rgb * (1 + tone)).tolist()
    return to_hex((red, green, blue))


def plain(text: str) -> str:
    """Text that matplotlib shows as it is: two dollar signs make no formula."""
    return text.replace("$", r"\$")


def draw(
    detections: Detections,
    image: Picture,
    classes: Sequence[str] | None = None,
    ax: Axes | None = None,
    min_score: float = 0.3,
    fontsize: float = 8,
) -> Axes:
    """Detections on an image, each box with its class and score.

    Args:
        detections: boxes (D, 4) xyxy in pixels of `image`, scores (D,), labels (D,).
        image: path, PIL image, uint8 tensor (3, h, w) or array (h, w, 3).
        classes: names; without them, numbers are written.
        ax: where to draw; a new figure by default.
        min_score: boxes below it are left out.
        fontsize: in points.
    """
    return _boxes(_canvas(image, ax), *_answers(detections, classes, min_score), fontsize)


def draw_targets(
    target: dict, image: Picture, classes: Sequence[str] | None = None, ax: Axes | None = None, fontsize: float = 8
) -> Axes:
    """Annotated objects on their image: {"boxes": (G, 4) xyxy, "labels": (G,)}.  Arguments as in :func:`draw`."""
    return _boxes(_canvas(image, ax), *_objects(target, classes), fontsize)


def compare(
    images: Sequence[Picture],
    targets: Sequence[dict],
    found: Sequence[Detections],
    classes: Sequence[str] | None = None,
    min_score: float = 0.3,
) -> Figure:
    """A grid: annotated objects on the left, what the detector says on the right.  Boxes in pixels of the images."""
    images = [as_pixels(image) for image in images]
    shares = [image.shape[0] / image.shape[1] for image in images]
    figure = Figure(figsize=(7.6, 3.7 * sum(shares) + 0.3), layout="constrained")
    axes = figure.subplots(len(images), 2, squeeze=False, height_ratios=shares)
    for row, image in zip(axes, images, strict=True):
        for ax in row:
            _canvas(image, ax)
    axes[0, 0].set_title("annotated", loc="left", fontsize=10)
    axes[0, 1].set_title(f"predicted, score ≥ {min_score:g}", loc="left", fontsize=10)
    figure.draw_without_rendering()  # labels are sized in points: settle the layout first
    for (left, right), target, detections in zip(axes, targets, found, strict=True):
        _boxes(left, *_objects(target, classes), fontsize=7)
        _boxes(right, *_answers(detections, classes, min_score), fontsize=7)
    return figure


def render(
    image: Picture, detections: Detections, classes: Sequence[str] | None = None, min_score: float = 0.3, zoom: int = 1
) -> np.ndarray:
    """Detections drawn into the pixels of an image, enlarged by a whole factor.  -> (h * zoom, w * zoom, 3) uint8"""
    array = as_pixels(image)
    h, w = (side * zoom for side in array.shape[:2])
    dpi = 100
    figure = Figure(figsize=(w / dpi, h / dpi), dpi=dpi)
    figure.set_layout_engine("none")  # whatever style is in use: pixel for pixel
    canvas = FigureCanvasAgg(figure)
    pixels = min(max(0.022 * math.sqrt(h * w), 11), 36)
    draw(detections, array, classes, figure.add_axes((0, 0, 1, 1)), min_score, fontsize=pixels * 72 / dpi)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


# ------------------------------------------------------------------ parts
def _answers(detections: Detections, classes: Sequence[str] | None, min_score: float) -> tuple[list, list, list]:
    keep = detections.scores >= min_score
    boxes, scores, labels = (part[keep].tolist() for part in detections)
    return boxes, labels, [f"{_name(classes, n)} {score:.2f}" for n, score in zip(labels, scores, strict=True)]


def _objects(target: dict, classes: Sequence[str] | None) -> tuple[list, list, list]:
    labels = target["labels"].tolist()
    return target["boxes"].tolist(), labels, [_name(classes, n) for n in labels]


def _name(classes: Sequence[str] | None, label: int) -> str:
    return str(classes[label]) if classes else str(label)


def _canvas(image: Picture, ax: Axes | None) -> Axes:
    """The image itself: pixel k covers [k, k + 1], as box coordinates have it."""
    array = as_pixels(image)
    h, w = array.shape[:2]
    if ax is None:
        ax = Figure(figsize=(7, 7 * h / w)).add_axes((0, 0, 1, 1))
    ax.imshow(array, extent=(0, w, h, 0), interpolation="auto")
    ax.set_axis_off()
    return ax


def _boxes(ax: Axes, boxes: list, labels: list[int], texts: list[str], fontsize: float) -> Axes:
    """Boxes with their labels, best first.  A label goes to the first free place around its box; without one it is left
    out, for two labels on one spot are both unreadable."""
    ax.apply_aspect()
    (x0, _), (x1, _) = ax.transData.transform([(0, 0), (1, 1)])
    point = ax.figure.dpi / 72 / abs(x1 - x0)  # of a font, in pixels of the image
    (xmin, xmax), (ymin, ymax) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    line, high = fontsize / 5, 1.5 * fontsize * point  # width of a line in points; height of a label in pixels
    halo = [patheffects.Stroke(linewidth=line + 1.2, foreground="black", alpha=0.55), patheffects.Normal()]
    taken: list[tuple] = []
    for n, ((left, top, right, bottom), label, text) in enumerate(zip(boxes, labels, texts, strict=True)):
        fill, size = colour(label), (right - left, bottom - top)
        over = 10 - n / len(boxes)  # the best box lies on top, and every label over every box
        ax.add_patch(Rectangle((left, top), *size, fill=False, ec=fill, lw=line, path_effects=halo, zorder=over))
        wide = (TextPath((0, 0), plain(text), size=fontsize).get_extents().width + 0.7 * fontsize) * point
        places = itertools.product((left, right - wide), (top - high, top, bottom, bottom - high))
        inside = ((min(max(x, xmin), xmax - wide), min(max(y, ymin), ymax - high)) for x, y in places)
        spots = ((x, y, x + wide, y + high) for x, y in inside)
        spot = next((s for s in spots if not any(_meet(s, other) for other in taken)), None)
        if spot is None:
            continue
        taken.append(spot)
        ax.add_patch(Rectangle(spot[:2], wide, high, fc=fill, ec="none", alpha=0.9, zorder=11))
        ink = "black" if np.dot(to_rgb(fill), (0.299, 0.587, 0.114)) > 0.45 else "white"
        middle = spot[0] + wide / 2, spot[1] + high / 2
        ax.text(
            *middle, plain(text), color=ink, size=fontsize, ha="center", va="center_baseline", zorder=12, clip_on=True
        )
    return ax


def _meet(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
