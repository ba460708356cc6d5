"""A ranked list of detections that is reordered by hand, and its precision-recall curve: chapter 3."""

from collections.abc import Sequence

import anywidget
import numpy as np
import traitlets
from PIL import Image
from torch import Tensor

from vfnet_edu.boxes import iou
from vfnet_edu.evaluation.average_precision import average_precision, match
from vfnet_edu.postprocess import Detections
from vfnet_edu.widgets.front_end import STYLE, data_url, script


def ranked_list(
    scenes: Sequence[tuple[Tensor, dict[str, Tensor]]],
    found: Sequence[Detections],
    label: int,
    classes: Sequence[str],
    most: int = 10,
) -> dict:
    """The best detections of one class over several scenes, ready for :class:`RankedListExplorer`.

    Args:
        scenes: (image (3, h, w) uint8, ``{"boxes": (G, 4) xyxy, "labels": (G,)}``) of each.
        found: what a detector says about each.
        label: the class.
        classes: names of the K classes.
        most: entries kept, those with the highest scores.

    Returns:
        plain numbers and strings: ``what``, the class; ``objects``, how many of it there are; ``entries``, best first,
        each with its scene (from 0), score, IoU with each object of the class in that scene, picture and box in it.
    """
    entries, objects = [], 0
    for n, ((image, target), answer) in enumerate(zip(scenes, found, strict=True)):
        truth = target["boxes"][target["labels"] == label]  # (G, 4)
        objects += len(truth)
        for box, score in zip(*(part[answer.labels == label] for part in answer[:2]), strict=True):
            overlaps = iou(box.double(), truth.double())  # (G,)
            ious = [round(v, 6) for v in overlaps.tolist()]
            entries.append({"scene": n, "score": round(float(score), 6), "ious": ious, **_crop(image, box.tolist())})
    entries.sort(key=lambda entry: -entry["score"])
    return {"what": classes[label], "objects": objects, "entries": entries[:most]}


def _crop(image: Tensor, box: list[float]) -> dict:
    """The square of the image around a box, and the box in it, as fractions of its side."""
    _, h, w = image.shape
    x1, y1, x2, y2 = box
    side = min(int(1.5 * max(x2 - x1, y2 - y1, 16)), h, w)
    left = min(max(int((x1 + x2 - side) / 2), 0), w - side)
    top = min(max(int((y1 + y2 - side) / 2), 0), h - side)
    cut = image[:, top : top + side, left : left + side].permute(1, 2, 0).contiguous().numpy()
    inside = [round((v - start) / side, 4) for v, start in zip(box, (left, top, left, top), strict=True)]
    return {"image": data_url(Image.fromarray(cut), "JPEG", quality=88), "box": inside}


class RankedListExplorer(anywidget.AnyWidget):
    """Reorder a list of detections; which boxes are right, the curve and AP follow.

    Args:
        ranking: from :func:`ranked_list`.
        state: where to start; see below.
    """

    _esm = script("ranked_list")
    _css = STYLE

    ranking = traitlets.Dict(help="from ranked_list").tag(sync=True)
    order = traitlets.List(traitlets.Int(), help="entries from first to last place; at first 0, 1, ...").tag(sync=True)
    threshold = traitlets.Float(0.5, min=0, max=1, help="the least IoU of a right box").tag(sync=True)

    def __init__(self, ranking: dict, **state):
        super().__init__(ranking=ranking, **{"order": list(range(len(ranking["entries"]))), **state})

    @property
    def hits(self) -> list[bool]:
        """Whether the entry at each place is right: an object counts once, for the first box that finds it."""
        entries = [self.ranking["entries"][n] for n in self.order]
        hits = np.zeros(len(entries), bool)
        for scene in {entry["scene"] for entry in entries}:
            places = [place for place, entry in enumerate(entries) if entry["scene"] == scene]
            hits[places] = match(np.array([entries[place]["ious"] for place in places]), self.threshold)
        return hits.tolist()

    @property
    def ap(self) -> float:
        """AP of the list as it stands, in [0, 1]."""
        return average_precision(self.hits, self.ranking["objects"])
