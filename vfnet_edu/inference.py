"""Images in, detections out: each image seen once, or in several sizes and mirrored (test-time augmentation)."""

from collections.abc import Sequence
from typing import NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from vfnet_edu.data.images import Picture, as_pixels
from vfnet_edu.data.transforms import resize
from vfnet_edu.models.detector import Detector, evaluating
from vfnet_edu.postprocess import Detections, pool, suppress

NO_BOXES = np.zeros((0, 4), np.float32)


class View(NamedTuple):
    """One way to look at an image."""

    scale: tuple[int, int]  # longest and shortest side it is resized to, pixels
    mirror: bool = False  # left and right exchanged


SCALES = ((1200, 800), (1300, 900), (1500, 1000), (1600, 1200))
MANY_VIEWS = tuple(
    View(scale, mirror) for scale in SCALES for mirror in (False, True)
)  # the authors', for their best AP


@overload
def detect(
    model: Detector, images: Picture, *, min_score: float = 0.0, views: Sequence[View] | None = None
) -> Detections: ...
@overload
def detect(
    model: Detector, images: list | tuple, *, min_score: float = 0.0, views: Sequence[View] | None = None
) -> list[Detections]: ...
def detect(model, images, *, min_score=0.0, views=None):
    """What a detector sees in an image, or in each image of a list.

    Args:
        model: a Detector, on any device; left in the mode it came in.
        images: path, PIL image, uint8 tensor (3, h, w) or uint8 array (h, w, 3), RGB; or a list of them.
        min_score: detections below it are left out; the recipe's own ``detect.min_score`` holds in any case.
        views: the ways to look at each image, e.g. :data:`MANY_VIEWS`; what all of them propose goes through one
            suppression.  By default a single view, at the size of ``recipe.data.test_scale``.

    Returns:
        boxes (D, 4) xyxy in pixels of the given image, scores (D,), labels (D,), best first, on the CPU; for a list,
        a list of these.

    Raises:
        UserError: code DATA where a file cannot be read as an image, USAGE where an array is of a wrong type or shape.
    """
    if isinstance(images, list | tuple):
        return [detect(model, image, min_score=min_score, views=views) for image in images]
    pixels, views = as_pixels(images), views or [View(model.recipe.data.test_scale)]
    with evaluating(model):
        proposed = [_proposals(model, pixels, view) for view in views]
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*proposed, strict=True))
        found = suppress(boxes, scores, labels, model.recipe.detect).to("cpu")
    confident = found.scores >= min_score
    return Detections(*(part[confident] for part in found))


def _proposals(model: Detector, pixels: np.ndarray, view: View) -> tuple[Tensor, Tensor, Tensor]:
    """All that one view proposes: boxes (N, 4) in pixels of the image (h, w, 3), scores (N,), labels (N,)"""
    resized, _, factors = resize(pixels, NO_BOXES, view.scale)
    image = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))  # (3, h', w')
    seen = [image.flip(-1) if view.mirror else image]
    h, w = image.shape[-2:]
    boxes, scores, labels = pool(model.candidates(model.raw(seen), seen), 0, (h, w), model.recipe.detect)
    if view.mirror:
        boxes = torch.stack([w - boxes[:, 2], boxes[:, 1], w - boxes[:, 0], boxes[:, 3]], 1)
    return boxes / boxes.new_tensor(factors * 2), scores, labels
