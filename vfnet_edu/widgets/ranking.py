"""The rival boxes of one object, in the order in which a score ranks them: chapter 9."""

import anywidget
import traitlets
from PIL import Image
from torch import Tensor

from vfnet_edu.boxes import iou
from vfnet_edu.widgets.front_end import STYLE, data_url, script


def ranking_scene(
    name: str,
    image: Tensor,
    target: dict[str, Tensor],
    which: int,
    boxes: Tensor,
    scores: dict[str, Tensor],
    classes: tuple[str, ...],
    min_iou: float = 0.5,
    most: int = 30,
) -> dict:
    """One object and the boxes that compete for it, ready for :class:`RankingExplorer`.

    Args:
        name: what the choice of scenes calls it.
        image: (3, h, w) uint8.
        target: ``{"boxes": (G, 4), "labels": (G,)}``.
        which: the object, 0 .. G-1.
        boxes: (P, 4) all predicted boxes of the image, pixels.
        scores: who ranks -> (P, K) scores in [0, 1], e.g. ``{"focal": ..., "varifocal": ...}``.
        classes: names of the K classes.
        min_iou: a rival overlaps this object by at least this much, and no other object more.
        most: rivals kept, those with the highest IoU.

    Returns:
        a dict of plain numbers and strings; rivals are sorted by IoU, best first.
    """
    overlap = iou(boxes[:, None], target["boxes"])  # (P, G)
    own = (overlap.argmax(1) == which) & (overlap[:, which] >= min_iou)
    rows = own.nonzero()[:, 0]  # (N,)
    rows = rows[overlap[rows, which].argsort(descending=True)][:most]
    label = int(target["labels"][which])
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    return {
        "name": name,
        "what": classes[label],
        "image": data_url(picture, "JPEG", quality=88),
        "size": [image.shape[2], image.shape[1]],  # width, height
        "truth": _rounded(target["boxes"][which], 2),
        "boxes": [_rounded(box, 2) for box in boxes[rows]],
        "ious": _rounded(overlap[rows, which], 4),
        "scores": {who: _rounded(s[rows, label], 6) for who, s in scores.items()},
    }


def _rounded(values: Tensor, digits: int) -> list[float]:
    return [round(float(v), digits) for v in values]


class RankingExplorer(anywidget.AnyWidget):
    """Step through the rivals of an object, ranked by one of the scores or by the true IoU.

    Args:
        scenes: from :func:`ranking_scene`; all with the same rankers.
    """

    _esm = script("ranking")
    _css = STYLE

    scenes = traitlets.List(help="from ranking_scene").tag(sync=True)
    scene = traitlets.Int(0, min=0, help="which of the scenes").tag(sync=True)
    ranker = traitlets.Unicode("", help="a key of the scenes' scores, or 'iou'").tag(sync=True)
    rank = traitlets.Int(1, min=1, help="1: the first").tag(sync=True)

    def __init__(self, scenes: list[dict], **state):
        super().__init__(scenes=scenes, **{"ranker": next(iter(scenes[0]["scores"])), **state})
