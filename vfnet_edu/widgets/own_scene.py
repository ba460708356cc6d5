"""The oracle switchboard of chapter 8 on a scene of the reader's own: the network runs in the page, see detector.py."""

import anywidget
import traitlets

from vfnet_edu.models.detector import Detector
from vfnet_edu.widgets.detector import travelling
from vfnet_edu.widgets.front_end import STYLE, script
from vfnet_edu.widgets.oracle import CHOICES


class OwnSceneExplorer(anywidget.AnyWidget):
    """Compose a scene, replace parts of the detector's answer by the truth, and compare.  Make one with :meth:`of`.

    The state that moves, in step with the page: ``scene`` and ``items`` as in
    :class:`vfnet_edu.widgets.detector.DetectorExplorer`, ``chosen`` (the object that is talked about) and the
    switches ``score``, ``label``, ``box`` and ``center`` with the positions of ``CHOICES``.
    """

    _esm = script("own_scene")
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
    score = traitlets.Enum(CHOICES["score"], "sorted").tag(sync=True)
    label = traitlets.Enum(CHOICES["label"], "own").tag(sync=True)
    box = traitlets.Enum(CHOICES["box"], "own").tag(sync=True)
    center = traitlets.Enum(CHOICES["center"], "none").tag(sync=True)

    @classmethod
    def of(cls, model: Detector) -> "OwnSceneExplorer":
        """`model` in the page, its kernels rounded to int8.

        Raises:
            UserError: the model is not a VFNet of the kind that ``vfnet.js`` computes, or of other classes.
        """
        return cls(**travelling(model))
