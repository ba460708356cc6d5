"""The oracle switchboard of chapter 8: parts of a detector's answer replaced by the truth, the list, the AP."""

import anywidget
import torch
import traitlets
from PIL import Image
from torch import Tensor

from vfnet_edu.boxes import clip
from vfnet_edu.evaluation.oracle import Truth, true_centerness
from vfnet_edu.postprocess import Candidates, DetectConfig
from vfnet_edu.widgets.front_end import STYLE, data_url, script

CHOICES = {  # switch -> its positions; the first is the detector's own (evaluation.oracle.Switches)
    "score": ("own", "sorted", "iou", "one"),
    "label": ("own", "true"),
    "box": ("own", "true"),
    "center": ("none", "true"),
}


def oracle_scene(
    name: str,
    image: Tensor,
    which: int,
    candidates: Candidates,
    truth: Truth,
    points: Tensor,
    target: dict[str, Tensor],
    config: DetectConfig,
) -> dict:
    """One scene and every prediction that any switch could bring to the surface, ready for :class:`OracleExplorer`.

    Args:
        name: what the choice of scenes calls it.
        image: (3, h, w) uint8.
        which: its number in the batch.
        candidates: the detector's own answer for the batch.
        truth: of the batch, :func:`vfnet_edu.evaluation.oracle.by_overlap`.
        points: (P, 2) the point of each prediction, pixels.
        target: ``{"boxes": (G, 4), "labels": (G,)}`` of this image.
        config: thresholds of the selection.
    """
    height, width = image.shape[-2:]
    rows = (truth.told[which] | (candidates.scores[which].amax(1) > config.min_score)).nonzero()[:, 0]  # (R,)
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    return {
        "name": name,
        "image": data_url(picture, "JPEG", quality=88),
        "size": [width, height],
        "objects": [[*_numbers(b, 2), int(k)] for b, k in zip(target["boxes"], target["labels"], strict=True)],
        "boxes": [_numbers(box, 2) for box in clip(candidates.boxes[which, rows], (height, width))],
        "scores": [_numbers(score, 4) for score in candidates.scores[which, rows]],
        "owners": truth.objects[which, rows].tolist(),
        "ious": _numbers(truth.ious[which, rows], 4),
        "centers": _numbers(true_centerness(points, truth)[which, rows], 4),
        "min_score": config.min_score,
        "nms_iou": config.nms_iou,
    }


def _numbers(values: Tensor, digits: int) -> list[float]:
    return [round(value, digits) for value in values.to(torch.float64).tolist()]


class OracleExplorer(anywidget.AnyWidget):
    """Four switches, the AP of every position, and the list of what is reported in one scene.

    Args (traits; the state moves in step with the page):
        aps: AP of every combination, 0 to 100, under the key "score/label/box/center".
        scenes: see :func:`oracle_scene`.
        classes: names of the classes.
        scene: number of the scene; rank: number of the reported box that is shown, from 1.
        score, label, box, center: positions of the switches, see CHOICES.
    """

    _esm = script("oracle")
    _css = STYLE

    aps = traitlets.Dict().tag(sync=True)
    scenes = traitlets.List().tag(sync=True)
    classes = traitlets.List().tag(sync=True)

    scene = traitlets.Int(0).tag(sync=True)
    rank = traitlets.Int(1).tag(sync=True)
    score = traitlets.Enum(CHOICES["score"], "one").tag(sync=True)
    label = traitlets.Enum(CHOICES["label"], "true").tag(sync=True)
    box = traitlets.Enum(CHOICES["box"], "own").tag(sync=True)
    center = traitlets.Enum(CHOICES["center"], "none").tag(sync=True)
