"""Where a detector is wrong, close up: the square of the image around a false box and the object it is about."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vfnet_edu.boxes import xywh_to_xyxy
from vfnet_edu.data.images import read_image
from vfnet_edu.evaluation.errors import KINDS, ErrorSplit
from vfnet_edu.viz.drawing import plain

PREDICTED, TRUE = "#ffd54f", "#7fd6ff"  # frames, over a black rim, on any picture
LEAST = 24  # pixels of the side of a crop


class Crop(NamedTuple):
    """One error.  Boxes are xyxy in pixels of the crop and may reach beyond it."""

    pixels: np.ndarray  # (side, side, 3) uint8
    predicted: list[float] | None  # None: an object was missed
    true: list[float] | None  # None: there is no object
    says: str  # the predicted class and its score, or ""
    wanted: str  # the class of the object, or ""
    iou: float  # of the two; without an object, the most with any


def crop(split: ErrorSplit, kind: str, row: int, image: np.ndarray | None = None) -> Crop:
    """One error, cut out of its image.

    Args:
        split: from :func:`vfnet_edu.evaluation.errors.split_errors`.
        kind: of KINDS.
        row: from :meth:`ErrorSplit.worst`.
        image: (h, w, 3) uint8; by default it is read from the data set's folder.
    """
    index, found = split.index, split.found
    missed = kind == "missed"
    which, thing = (int(index.rows[row]), row) if missed else (int(found.rows[row]), int(split.objects[row]))
    boxes = [None if missed else xywh_to_xyxy(found.xywh[row]), xywh_to_xyxy(index.xywh[thing]) if thing >= 0 else None]
    pixels = read_image(index.path(which), index.size(which)) if image is None else image
    left, top, side = _square([box for box in boxes if box is not None], pixels.shape[:2])
    moved = [None if box is None else (box - (left, top, left, top)).tolist() for box in boxes]
    says = "" if missed else f"{index.classes[found.labels[row]]} {found.scores[row]:.2f}"
    wanted = index.classes[index.labels[thing]] if thing >= 0 else ""
    pixels = pixels[top : top + side, left : left + side]
    return Crop(pixels, moved[0], moved[1], says, wanted, 0.0 if missed else float(split.ious[row]))


def _square(boxes: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[int, int, int]:
    """Left, top and side of the square around all `boxes` with a rim, inside the image as far as it fits."""
    low, high = np.min(boxes, 0)[:2], np.max(boxes, 0)[2:]  # (2,) each
    side = int(min(max(1.4 * (high - low).max(), LEAST), *size))
    left, top = ((low + high - side) / 2).clip(0, np.array(size[::-1]) - side).astype(int).tolist()
    return left, top, side


def draw_worst(split: ErrorSplit, per_kind: int = 4) -> Figure:
    """A row of crops for each kind of error there is: the surest false boxes, the largest missed objects."""
    rows = {kind: split.worst(kind, per_kind).tolist() for kind in KINDS}
    rows = {kind: worst for kind, worst in rows.items() if worst}
    figure = Figure(figsize=(1.75 * per_kind + 0.3, 2.15 * max(len(rows), 1) + 0.2), dpi=150, layout="constrained")
    axes = figure.subplots(max(len(rows), 1), per_kind, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for line, (kind, worst) in zip(axes, rows.items(), strict=False):
        for ax, row in zip(line, worst, strict=False):
            _draw(ax, crop(split, kind, row))
        heading = f"$\\bf{{{kind}}}$\n"
        line[0].set_title(heading + line[0].get_title(loc="left"), loc="left", fontsize=8)
    return figure


def _draw(ax, one: Crop) -> None:
    side_y, side_x = one.pixels.shape[:2]
    ax.imshow(one.pixels, extent=(0, side_x, side_y, 0))
    for box, ink, style in (one.true, TRUE, "--"), (one.predicted, PREDICTED, "-"):
        if box is not None:
            halo = [patheffects.Stroke(linewidth=3.2, foreground="black"), patheffects.Normal()]
            frame = Rectangle((box[0], box[1]), box[2] - box[0], box[3] - box[1], fill=False, ec=ink, lw=1.6, ls=style)
            frame.set_path_effects(halo)
            ax.add_patch(frame)
    ax.set(xlim=(0, side_x), ylim=(side_y, 0))
    said = f"says {one.says}" if one.says else "says nothing"
    wanted = f"is {one.wanted}, IoU {one.iou:.2f}" if one.wanted and one.says else f"is {one.wanted or 'no object'}"
    ax.set_title(plain(f"{said}\n{wanted}"), loc="left", fontsize=8)
