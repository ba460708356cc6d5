"""The explorer of chapter 12: where the losses of one cell pull its nine samples, and with them its box."""

from collections.abc import Sequence
from typing import NamedTuple

import anywidget
import torch
import traitlets
from PIL import Image
from torch import Tensor

from vfnet_edu.evaluation.frozen import vfnet_head
from vfnet_edu.models.detector import Detector
from vfnet_edu.ops.star.operator import star_conv2d
from vfnet_edu.widgets.front_end import STYLE, data_url, script


class Case(NamedTuple):
    """A cell of P3 that is responsible for an object."""

    name: str  # what the choice of cells calls it
    image: Tensor  # (3, h, w) uint8, the same size in all cases
    target: dict[str, Tensor]  # "boxes" (G, 4), "labels" (G,)
    cell: int  # row of P3, from 0
    object: int  # which of the G


class RefinementExplorer(anywidget.AnyWidget):
    """A cell's first box and its star, the refined box, and the pull of each loss on nine points and four sides.

    The browser computes them, forward and backward, from the features around the cell: the two star convolutions, the
    middle tap of the two last layers, the losses of this cell. What neighbouring cells add to its answers stays as it
    was. Weights and features are of half precision.

    Args:
        model: a VFNet in evaluation mode.
        cases: where to look; the first is shown at first.
        mean_iou: of the first boxes and of the refined ones, over all positives: the losses of boxes are divided by it.
        traits: where to start; see below.

    Raises:
        UserError: the model has another head.
    """

    _esm = script("refinement")
    _css = STYLE

    data = traitlets.Bytes(help="float16: both branches' star and last weights, then two maps for each case").tag(
        sync=True
    )
    shape = traitlets.Dict(help="channels, classes, height and width of the map, stride, gain, the boxes' weights").tag(
        sync=True
    )
    cells = traitlets.List(traitlets.Dict(), help="name, picture, view, point, truth, label, first box, base").tag(
        sync=True
    )
    which = traitlets.Int(0, min=0, help="the cell that is looked at").tag(sync=True)
    ltrb = traitlets.List(traitlets.Float(min=0), help="its first box: distances from the point, pixels").tag(sync=True)
    pull = traitlets.Enum(["both", "score", "refinement"], "both", help="whose gradient comes through the star").tag(
        sync=True
    )
    own = traitlets.Bool(True, help="whether the first box's own loss pulls, too").tag(sync=True)
    factor = traitlets.Float(0.1, min=0, max=1, help="the share of the star's gradient: star_gradient").tag(sync=True)

    def __init__(self, model: Detector, cases: Sequence[Case], mean_iou: tuple[float, float], **traits):
        head = vfnet_head(model)
        seen = [_look(model, case) for case in cases]
        parts = [
            *(part for star, out in _branches(head) for part in (_tap_by_tap(star), out.weight[:, :, 1, 1])),
            *(part for _, maps in seen for part in maps),
        ]
        data = b"".join(part.detach().half().contiguous().numpy().tobytes() for part in parts)
        height, width, channels = seen[0][1][0].shape
        config = head.config
        shape = {
            "channels": channels, "classes": config.classes, "height": height, "width": width,
            "stride": config.strides[0], "gain": float(head.refine_gain[0].detach()),
            "weights": [config.box_weight / mean_iou[0], config.refine_weight / mean_iou[1]],
        }  # fmt: skip
        cells = [cell for cell, _ in seen]
        which = traits.get("which", 0)
        super().__init__(data=data, shape=shape, cells=cells, **{"ltrb": cells[which]["ltrb"], **traits})


def _branches(head):
    """(weight of the star, last layer) of the score and of the refinement."""
    return (head.score_star, head.score_out), (head.refine_star, head.refine_out)


def _tap_by_tap(star: Tensor) -> Tensor:
    """(O, C, 3, 3) -> (9, O, C)"""
    return star.permute(2, 3, 0, 1).flatten(0, 1)


@torch.no_grad()
def _look(model: Detector, case: Case) -> tuple[dict, list[Tensor]]:
    """What the page needs to know about a case, and the two maps of features (H, W, C)."""
    head, stride = vfnet_head(model), vfnet_head(model).config.strides[0]
    fine = model.neck(model.backbone(model.stack([case.image])))[0]  # P3
    maps = [head.cls_tower(fine), head.reg_tower(fine)]  # (1, C, H, W) each
    ltrb = head.initial_box(0, maps[1])  # (1, 4, H, W)
    y, x = divmod(case.cell, fine.shape[3])
    base = []
    for features, (star, out) in zip(maps, _branches(head), strict=True):
        shown = star_conv2d(features, ltrb, star, stride).relu()
        own = out.weight[:, :, 1, 1] @ shown[0, :, y, x]  # (K,) what the cell itself adds to its answers
        base.append((out(shown)[0, :, y, x] - own).double().tolist())
    truth = [round(v, 2) for v in case.target["boxes"][case.object].tolist()]
    left, top, side = _view(truth, case.image)
    picture = Image.fromarray(case.image.permute(1, 2, 0).contiguous().numpy())
    cell = {
        "name": case.name,
        "image": data_url(picture.crop((left, top, left + side, top + side)), "JPEG", quality=88),
        "view": [left, top, side],
        "point": [x * stride, y * stride],
        "truth": truth,
        "label": int(case.target["labels"][case.object]),
        "ltrb": [round(v, 2) for v in ltrb[0, :, y, x].tolist()],
        "base": base,
    }
    return cell, [features[0].permute(1, 2, 0) for features in maps]


def _view(box: list[float], image: Tensor) -> tuple[int, int, int]:
    """A square of the image around a box, with room to drag: left, top, side in pixels."""
    x1, y1, x2, y2 = box
    height, width = image.shape[-2:]
    side = min(round(max(1.7 * max(x2 - x1, y2 - y1), 48)), height, width)
    left, top = (round((low + high - side) / 2) for low, high in ((x1, x2), (y1, y2)))
    return min(max(left, 0), width - side), min(max(top, 0), height - side), side
