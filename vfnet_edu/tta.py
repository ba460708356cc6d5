"""Test-time augmentation: one image in several sizes, also mirrored; the boxes of all views meet in one suppression."""

from collections.abc import Sequence

import numpy as np
import torch

from vfnet_edu.data.images import as_pixels
from vfnet_edu.data.transforms import resize
from vfnet_edu.postprocess import Detections, pool, suppress

SCALES = ((1200, 800), (1300, 900), (1500, 1000), (1600, 1200))  # the authors': longest and shortest side


@torch.no_grad()
def predict_views(
    model, image, scales: Sequence[tuple[int, int]] = SCALES, mirror: tuple[bool, ...] = (False, True)
) -> Detections:
    """What a detector sees in all views of one image together.

    Args:
        model: a Detector, on any device; left in the mode it came in.
        image: path, PIL image, uint8 tensor (3, h, w) or array (h, w, 3), RGB.
        scales: (longest, shortest) side that the image is resized to.
        mirror: whether a view is mirrored; every scale is seen in each of these ways.

    Returns:
        boxes (D, 4) xyxy in pixels of the given image, scores (D,), labels (D,), best first, on the CPU.
    """
    image, training, views = as_pixels(image), model.training, []
    model.eval()
    try:
        for scale in scales:
            resized, _, factors = resize(image, np.zeros((0, 4), np.float32), scale)
            pixels = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))  # (3, h, w)
            views += [_view(model, pixels, flip, factors) for flip in mirror]
    finally:
        model.train(training)
    boxes, scores, labels = (torch.cat(parts) for parts in zip(*views, strict=True))
    return suppress(boxes, scores, labels, model.detect).to("cpu")


def _view(model, pixels: torch.Tensor, flip: bool, factors: tuple[float, float]):
    """Everything that one view puts forward: boxes (N, 4) in pixels of the image, scores (N,), labels (N,)"""
    seen = [pixels.flip(-1) if flip else pixels]
    h, w = pixels.shape[-2:]
    boxes, scores, labels = pool(model.candidates(model.raw(seen), seen), 0, (h, w), model.detect)
    if flip:
        boxes = torch.stack([w - boxes[:, 2], boxes[:, 1], w - boxes[:, 0], boxes[:, 3]], 1)
    return boxes / boxes.new_tensor(factors * 2), scores, labels
