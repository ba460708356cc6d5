"""The pyramid explorer: what a dense detector says at every cell of every level, before any selection."""

import anywidget
import torch
import traitlets
from PIL import Image
from torch import Tensor

from vfnet_edu.models.detector import Detector
from vfnet_edu.priors import ceil32
from vfnet_edu.runtime.errors import UserError
from vfnet_edu.widgets.front_end import STYLE, data_url, script

MOST = 6000  # locations: more cannot be told apart in a picture, nor sent quickly


class PyramidExplorer(anywidget.AnyWidget):
    """Choose a cell of a pyramid level and see its point, its score and its box.  Make one with :meth:`of`.

    The state that moves, in step with the page: ``level`` (0 is the finest), ``x`` and ``y`` (pixels; they choose the
    cell that covers them), ``threshold`` (of scores).
    """

    _esm = script("pyramid")
    _css = STYLE

    image = traitlets.Unicode(help="data URL").tag(sync=True)
    size = traitlets.List(help="(height, width) of the image, without padding").tag(sync=True)
    classes = traitlets.List(help="names").tag(sync=True)
    strides = traitlets.List(help="of each level").tag(sync=True)
    shapes = traitlets.List(help="(H, W) of each level").tag(sync=True)
    rows = traitlets.List(help="[x1, y1, x2, y2, score, label] of every cell, level by level").tag(sync=True)
    objects = traitlets.List(help="[x1, y1, x2, y2, label] of the real objects, if known").tag(sync=True)

    level = traitlets.Int(0).tag(sync=True)
    x = traitlets.Float(0.0).tag(sync=True)
    y = traitlets.Float(0.0).tag(sync=True)
    threshold = traitlets.Float(0.3).tag(sync=True)

    @classmethod
    def of(cls, model: Detector, image: Tensor, target: dict | None = None) -> "PyramidExplorer":
        """What `model` says about `image`, with the best-scoring cell chosen.

        Args:
            model: a VFNet: one prediction per cell, whose point is the corner of the cell.
            image: uint8 (3, h, w) RGB, small: at most MOST locations.
            target: the real objects, "boxes" (G, 4) and "labels" (G,); left out, the explorer says nothing about them.

        Raises:
            UserError: the image has too many locations, or the detector several predictions per cell.
        """
        h, w = image.shape[-2:]
        strides = list(model.recipe.head.strides)
        locations = sum(-(-ceil32(h) // s) * -(-ceil32(w) // s) for s in strides)
        if locations > MOST:
            raise UserError(
                f"an image of {h} x {w} pixels has {locations:,} locations, the explorer shows at most {MOST:,}",
                remedy="cut or shrink the image, for example to 512 x 512 pixels",
            )
        with torch.no_grad():
            out = model.raw([image])
            candidates = model.candidates(out, [image])
        score, label = candidates.scores[0].float().cpu().max(dim=1)  # (P,), (P,)
        if len(score) != locations:
            raise UserError(
                f"the detector makes {len(score) // locations} predictions per cell, the explorer shows one",
                remedy="give a VFNet",
            )
        boxes = candidates.boxes[0].float().cpu().tolist()
        numbers = zip(boxes, score.tolist(), label.tolist(), strict=True)
        rows = [[*(round(side, 2) for side in box), round(s, 4), n] for box, s, n in numbers]
        objects = [] if target is None else zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)

        level, cell = 0, int(score.argmax())  # the best cell of all
        while cell >= candidates.level_sizes[level]:
            cell, level = cell - candidates.level_sizes[level], level + 1
        row, column = divmod(cell, out.level_shapes[level][1])
        picture = Image.fromarray(image.permute(1, 2, 0).cpu().contiguous().numpy())
        return cls(
            image=data_url(picture, "PNG", optimize=True),
            size=[h, w],
            classes=list(model.classes),
            strides=strides,
            shapes=[list(shape) for shape in out.level_shapes],
            rows=rows,
            objects=[[*box, n] for box, n in objects],
            level=level,
            x=(column + 0.5) * strides[level],
            y=(row + 0.5) * strides[level],
        )
