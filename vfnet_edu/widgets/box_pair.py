"""Two boxes of chapter 2: how far apart are they, and where does each loss push the sides of one of them?"""

from collections.abc import Callable

import anywidget
import torch
import traitlets
from torch import Tensor

from vfnet_edu.boxes import centers, giou, iou
from vfnet_edu.losses import giou_loss
from vfnet_edu.widgets.front_end import STYLE, script


def _l1(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().sum(-1)


def _diou_loss(a: Tensor, b: Tensor) -> Tensor:
    """1 - DIoU (Zheng et al. 2020): IoU less (distance of the centres / diagonal of the frame)^2."""
    frame = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    apart = (centers(a) - centers(b)).square().sum(-1)
    return 1 - iou(a, b) + apart / frame.square().sum(-1).clamp(min=1e-6)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "L1": _l1,
    "IoU": lambda a, b: 1 - iou(a, b),
    "GIoU": giou_loss,
    "DIoU": _diou_loss,
}


class BoxPairExplorer(anywidget.AnyWidget):
    """A true box and a predicted one, both to be moved and resized, and arrows on the sides of the predicted one.

    An arrow shows where a loss pushes its side, minus the gradient: of L1, the sum of the four distances in pixels, and
    of 1 - IoU, 1 - GIoU and 1 - DIoU.  Buttons take a hundred steps of one pixel along these arrows.

    Args (all of them traits, in step with the page):
        box: the predicted box, [x1, y1, x2, y2] in pixels.
        truth: the true one.
        loss: whose arrows are drawn: "all", "L1", "IoU", "GIoU" or "DIoU".
        start: where the last steps began; empty before the first one.
        steps: how many pixels the box has walked from there, and `walked` with which loss.
        size: width and height of the picture.
    """

    _esm = script("box_pair")
    _css = STYLE

    box = traitlets.List(traitlets.Float(), [24.0, 76.0, 94.0, 146.0], minlen=4, maxlen=4).tag(sync=True)
    truth = traitlets.List(traitlets.Float(), [176.0, 66.0, 266.0, 156.0], minlen=4, maxlen=4).tag(sync=True)
    loss = traitlets.Unicode("all").tag(sync=True)
    start = traitlets.List(traitlets.Float(), []).tag(sync=True)
    steps = traitlets.Int(0).tag(sync=True)
    walked = traitlets.Unicode("").tag(sync=True)
    size = traitlets.List(traitlets.Int(), [320, 220]).tag(sync=True)

    @property
    def measures(self) -> dict[str, float]:
        """L1 in pixels, IoU and GIoU of the two boxes, what the page says."""
        a, b = (torch.tensor(box, dtype=torch.float64) for box in (self.box, self.truth))
        return {"L1": float(_l1(a, b)), "IoU": float(iou(a, b)), "GIoU": float(giou(a, b))}

    @property
    def pushes(self) -> dict[str, Tensor]:
        """Loss -> (4,), minus its gradient with respect to x1, y1, x2, y2 of the predicted box, by autograd."""
        truth = torch.tensor(self.truth, dtype=torch.float64)
        box = torch.tensor(self.box, dtype=torch.float64, requires_grad=True)
        return {name: -torch.autograd.grad(loss(box, truth), box)[0] for name, loss in LOSSES.items()}
