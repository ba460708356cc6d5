"""The training of chapter 10, inside the page: four losses teach one linear scorer each, on the same lessons."""

import anywidget
import traitlets

from vfnet_edu.evaluation.linear import Cells
from vfnet_edu.widgets.front_end import STYLE, script


class TrainerExplorer(anywidget.AnyWidget):
    """Focal loss, varifocal loss with labels 0 and 1, quality focal and varifocal loss, taught side by side.

    The browser computes every step; what it shows is the rank correlation of score and IoU on cells that none of the
    four has learned from.

    Args:
        lessons: cells to learn from, with weights.
        exam: positives to rank.
        traits: where to start; see below.
    """

    _esm = script("trainer")
    _css = STYLE

    data = traitlets.Bytes(help="features as int8, lessons first, then q, weights and the exam's q as float32").tag(
        sync=True
    )
    counts = traitlets.List(traitlets.Int(), help="cells of the lessons and of the exam").tag(sync=True)
    step = traitlets.Int(0, min=0, help="the step that is looked at; what comes before it has been taught").tag(
        sync=True
    )
    most = traitlets.Int(120, min=30, help="where the training ends").tag(sync=True)

    def __init__(self, lessons: Cells, exam: Cells, **traits):
        parts = (lessons.x, exam.x, lessons.q, lessons.weight, exam.q)
        data = b"".join(part.contiguous().numpy().tobytes() for part in parts)
        super().__init__(data=data, counts=[len(lessons.x), len(exam.x)], **traits)
