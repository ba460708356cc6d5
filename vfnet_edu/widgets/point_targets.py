"""The explorer of chapter 5: click a point, and see which object it learns, or why none."""

from collections.abc import Sequence

import anywidget
import torch
import traitlets
from PIL import Image
from torch import Tensor

from vfnet_edu.boxes import xyxy_to_ltrb
from vfnet_edu.priors import grid_points
from vfnet_edu.widgets.front_end import STYLE, data_url, script


class PointTargetsExplorer(anywidget.AnyWidget):
    """Choose a point of a pyramid, and see what FCOS tells it: an object, and the distances to its four sides.

    Make one with :meth:`of`.  The state that moves, in step with the page: ``level`` (0 is the finest), ``x`` and ``y``
    (pixels; the nearest point of the level is meant), ``central`` (whether only points near an object's middle may
    learn it) and ``by_size`` (whether a level learns only farthest sides within its limits).
    """

    _esm = script("point_targets")
    _css = STYLE

    image = traitlets.Unicode(help="data URL").tag(sync=True)
    size = traitlets.List(traitlets.Int(), help="height, width of the image, pixels").tag(sync=True)
    strides = traitlets.List(traitlets.Int(), help="of each level, pixels").tag(sync=True)
    objects = traitlets.List(help="[x1, y1, x2, y2] of each, pixels").tag(sync=True)
    names = traitlets.List(traitlets.Unicode(), help="class of each object").tag(sync=True)
    unit = traitlets.Float(help="a level learns farthest sides up to `unit` strides, and from half of that").tag(
        sync=True
    )
    radius = traitlets.Float(help="how far from an object's middle a point may be, in strides").tag(sync=True)

    level = traitlets.Int(0).tag(sync=True)
    x = traitlets.Float(0.0).tag(sync=True)
    y = traitlets.Float(0.0).tag(sync=True)
    central = traitlets.Bool(True).tag(sync=True)
    by_size = traitlets.Bool(True).tag(sync=True)

    @classmethod
    def of(
        cls,
        image: Tensor,
        target: dict[str, Tensor],
        classes: Sequence[str],
        strides: Sequence[int] = (8, 16, 32),
        unit: float = 4.0,
        radius: float = 1.5,
    ) -> "PointTargetsExplorer":
        """The points of `image`; chosen is the first of the finest level that lies in as many objects as any.

        Args:
            image: uint8 (3, h, w) RGB, small: its points should be far enough apart to be touched.
            target: its objects, at least one: "boxes" (G, 4) and "labels" (G,).
            classes: their names.
            strides: of the levels, pixels.
            unit: in strides: P3 learns farthest sides up to `unit` strides, P4 from there to `unit` of its own strides.
            radius: in strides: how far a point may be from the middle of its object, along either axis.
        """
        h, w = image.shape[-2:]
        points = grid_points((-(-h // strides[0]), -(-w // strides[0])), strides[0])  # (P, 2)
        around = (xyxy_to_ltrb(points[:, None], target["boxes"]).amin(-1) > 0).sum(1)  # (P,)
        x, y = points[torch.nonzero(around == around.max())[0, 0]].tolist()
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        return cls(
            image=data_url(picture, "PNG", optimize=True),
            size=[h, w],
            strides=list(strides),
            objects=target["boxes"].tolist(),
            names=[classes[n] for n in target["labels"].tolist()],
            unit=unit,
            radius=radius,
            x=x,
            y=y,
        )
