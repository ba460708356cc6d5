"""How much of the gradient of the class loss comes from background: chapter 7."""

import math

import anywidget
import traitlets

from vfnet_edu.widgets.front_end import STYLE, script


class ImbalanceExplorer(anywidget.AnyWidget):
    """Every score starts at the same value; background pushes it down, positives push it up.

    The two bars show the share of each under cross-entropy and under the focal loss, the curves do so for every other
    start.  Its alpha is that of the focal loss: the weight of the positives.
    """

    _esm = script("imbalance")
    _css = STYLE

    gamma = traitlets.Float(2.0, min=0.0, max=5.0, help="focusing power").tag(sync=True)
    alpha = traitlets.Float(0.25, min=0.01, max=0.99, help="weight of a positive").tag(sync=True)
    bias = traitlets.Float(-math.log(99), min=-12.0, max=2.0, help="every score is its sigmoid").tag(sync=True)
    positives = traitlets.Int(38, min=1, max=1000, help="scores that have an object to find").tag(sync=True)
    background = traitlets.Int(1_791_962, min=1, max=100_000_000, help="all other scores").tag(sync=True)
