"""Non-maximum suppression of chapter 15, one decision at a time, on a scene of the reader's own: see detector.py."""

import anywidget
import traitlets
from PIL import Image

from vfnet_edu.data.shapes import CLASSES
from vfnet_edu.models.detector import Detector
from vfnet_edu.viz.drawing import render
from vfnet_edu.widgets.detector import GROUNDS, Item, compose, eight_bits, travelling
from vfnet_edu.widgets.front_end import STYLE, data_url, script

# Two objects whose true boxes overlap by a little more than 0.6: the network finds both, NMS takes one away.
GROUND = GROUNDS.index("linen")
CRESCENTS = [Item(CLASSES.index("crescent"), 62, 64, 0, 1.4, 0), Item(CLASSES.index("crescent"), 62, 74, 0, 1.2, 1)]


class NmsExplorer(anywidget.AnyWidget):
    """Compose a scene, and watch which boxes stay.  Make one with :meth:`of`.

    The state that moves, in step with the page: ``scene`` and ``items`` as in
    :class:`vfnet_edu.widgets.detector.DetectorExplorer`, ``chosen`` (the object whose class is looked at), ``way``
    (the rule), ``limit`` (the IoU above which a box is touched) and ``step`` (decisions made so far).
    """

    _esm = script("nms")
    _css = STYLE

    manifest = traitlets.Dict(help="settings, and where each weight lies").tag(sync=True)
    weights = traitlets.Bytes(help="deflated").tag(sync=True)
    sheet = traitlets.Dict(help="where each ground and sprite lies").tag(sync=True)
    pictures = traitlets.Bytes(help="deflated").tag(sync=True)
    scenes = traitlets.List(help="{name, ground, items} of each prepared scene").tag(sync=True)
    still = traitlets.Unicode(help="data URL of the first scene: for a browser that lacks something").tag(sync=True)

    scene = traitlets.Int(0).tag(sync=True)
    items = traitlets.List(help="[sprite, x, y, degrees, size, z] of each object").tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)
    way = traitlets.Enum(["hard", "linear", "gaussian"], "hard").tag(sync=True)
    limit = traitlets.Float(0.6).tag(sync=True)
    step = traitlets.Int(1).tag(sync=True)

    @classmethod
    def of(cls, model: Detector) -> "NmsExplorer":
        """`model` in the page, its kernels rounded to int8; it opens on two crescents, one of which is suppressed.

        Raises:
            UserError: the model is not a VFNet of the kind that ``vfnet.js`` computes, or of other classes.
        """
        packed = travelling(model)
        first = {"name": "two crescents", "ground": GROUND, "items": [list(item) for item in CRESCENTS]}
        image, _ = compose(GROUND, CRESCENTS)
        seen = render(image, eight_bits(model)([image])[0], CLASSES, zoom=3)
        still = data_url(Image.fromarray(seen), "JPEG", quality=80, optimize=True)
        scenes = [first, *packed["scenes"]]
        return cls(**packed | {"scenes": scenes, "items": first["items"], "still": still})
