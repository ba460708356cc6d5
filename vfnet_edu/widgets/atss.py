"""The explorer of chapter 6: one object, its candidates, and the IoU threshold they give it."""

import anywidget
import traitlets

from vfnet_edu.widgets.front_end import STYLE, script


class AtssExplorer(anywidget.AnyWidget):
    """Move and resize an object, change k, and see which points ATSS makes responsible for it.

    On the left, the image with every level's k points nearest to the object; on the right, the IoU of their squares
    with the object, the mean of these, and mean + standard deviation: the threshold.

    Args (all of them traits, in step with the page):
        box: the object, [x1, y1, x2, y2] in pixels.
        k: candidates per level, 1 to 25.
        level: 3 shows P3 alone and dims the others, 4 P4, ...; 0 shows all.
        width, height: of the image, pixels.
        strides: of the levels, pixels; powers of two.

    Where two points are equally far and only one has room among the k, the explorer takes the first in reading order;
    ``torch.topk``, and so :func:`vfnet_edu.assigners.atss`, promises neither.
    """

    _esm = script("atss")
    _css = STYLE

    box = traitlets.List(traitlets.Float(), [63.0, 76.0, 212.0, 121.0], minlen=4, maxlen=4).tag(sync=True)
    k = traitlets.Int(9, min=1, max=25).tag(sync=True)
    level = traitlets.Int(0).tag(sync=True)
    width = traitlets.Int(256).tag(sync=True)
    height = traitlets.Int(192).tag(sync=True)
    strides = traitlets.List(traitlets.Int(), [8, 16, 32, 64, 128]).tag(sync=True)
