"""The losses of chapter 9 as curves and as gradient landscapes."""

import anywidget
import traitlets

from vfnet_edu.widgets.front_end import STYLE, script


class LossExplorer(anywidget.AnyWidget):
    """Focal, quality focal and varifocal loss of one score: values over p, and pushes on the logit over (p, q).

    One alpha serves all: it is the weight of the background, which the varifocal loss calls alpha and the focal loss
    1 - alpha.  The quality focal loss has none, and calls gamma beta.
    """

    _esm = script("loss")
    _css = STYLE

    p = traitlets.Float(0.3, min=0.005, max=0.995, help="predicted score").tag(sync=True)
    q = traitlets.Float(0.8, min=0.0, max=1.0, help="target: IoU of a positive, 0 for background").tag(sync=True)
    alpha = traitlets.Float(0.75, min=0.0, max=1.0, help="weight of the background").tag(sync=True)
    gamma = traitlets.Float(2.0, min=0.0, max=4.0, help="focusing power").tag(sync=True)
