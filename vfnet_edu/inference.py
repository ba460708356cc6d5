"""Images in, detections out: each image seen once, or in several sizes and mirrored (test-time augmentation).

:func:`for_inference` makes a faster copy of a detector, to be used for many images.
"""

from collections.abc import Sequence
from typing import NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from vfnet_edu.data.images import Picture, as_pixels
from vfnet_edu.data.transforms import resize
from vfnet_edu.models.detector import Detector, evaluating
from vfnet_edu.models.fold import fold_norms
from vfnet_edu.postprocess import Detections, pool, suppress
from vfnet_edu.runtime.devices import PRECISION, Precision, choose_precision
from vfnet_edu.runtime.errors import UserError

NO_BOXES = np.zeros((0, 4), np.float32)


class View(NamedTuple):
    """One way to look at an image."""

    scale: tuple[int, int]  # longest and shortest side it is resized to, pixels
    mirror: bool = False  # left and right exchanged


SCALES = ((1200, 800), (1300, 900), (1500, 1000), (1600, 1200))
MANY_VIEWS = tuple(
    View(scale, mirror) for scale in SCALES for mirror in (False, True)
)  # the authors', for their best AP


def for_inference(model: Detector, compile: bool = False) -> Detector:
    """A copy that gives the same answers faster, up to rounding; for answering only, neither trained nor saved.

    Its norms are folded into its convolutions (:mod:`vfnet_edu.models.fold`), its weights are channels_last.

    Args:
        model: stays as it is.
        compile: also translate the network to machine code with ``torch.compile``, when it sees its first image:
            minutes of work that pay off over hundreds of images.

    Raises:
        UserError: nothing can be compiled here.
    """
    fast = fold_norms(model).to(memory_format=torch.channels_last)
    if compile:
        _try_to_compile(fast.mean)
        fast.network = torch.compile(fast.network, dynamic=True)
    return fast


def _try_to_compile(x: Tensor) -> None:
    """Compile next to nothing: what is missing for that is missing for a network, and is told in pages there."""
    try:
        torch.compile(lambda x: x + 1)(x)
    except Exception as error:  # of many kinds: no compiler, no headers, a system that torch.compile does not know
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        remedy = "install a C++ compiler, or leave --compile out"
        raise UserError(f"torch.compile does not work here: {reason}", remedy=remedy) from error


@overload
def detect(
    model: Detector,
    images: Picture,
    *,
    min_score: float = 0.0,
    views: Sequence[View] | None = None,
    precision: Precision = "fp32",
) -> Detections: ...
@overload
def detect(
    model: Detector,
    images: list | tuple,
    *,
    min_score: float = 0.0,
    views: Sequence[View] | None = None,
    precision: Precision = "fp32",
) -> list[Detections]: ...
def detect(
    model: Detector,
    images: Picture | list | tuple,
    *,
    min_score: float = 0.0,
    views: Sequence[View] | None = None,
    precision: Precision = "fp32",
) -> Detections | list[Detections]:
    """What a detector sees in an image, or in each image of a list.

    Args:
        model: a Detector, on any device; left in the mode it came in.
        images: path, PIL image, uint8 tensor (3, h, w) or uint8 array (h, w, 3), RGB; or a list of them.
        min_score: detections below it are left out; the recipe's own ``detect.min_score`` holds in any case.
        views: the ways to look at each image, e.g. :data:`MANY_VIEWS`; what all of them propose goes through one
            suppression.  By default a single view, at the size of ``recipe.data.test_scale``.
        precision: what the network computes in: fp32, where a result does not depend on the processor; bf16 or fp16;
            or auto: bf16 where the device has instructions for it, else fp32.  Boxes are float32 in any case.

    Returns:
        boxes (D, 4) xyxy in pixels of the given image, scores (D,), labels (D,), best first, on the CPU; for a list,
        a list of these.

    Raises:
        UserError: code DATA where a file cannot be read as an image, USAGE where an array is of a wrong type or shape,
            or where the device cannot compute in this precision.
    """
    if isinstance(images, list | tuple):
        return [detect(model, image, min_score=min_score, views=views, precision=precision) for image in images]
    pixels, views = as_pixels(images), views or [View(model.recipe.data.test_scale)]
    device = model.mean.device
    dtype = PRECISION[choose_precision(precision, device)]
    with evaluating(model):
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            proposed = [_proposals(model, pixels, view) for view in views]
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*proposed, strict=True))
        found = suppress(boxes, scores, labels, model.recipe.detect).to("cpu")
    confident = found.scores >= min_score
    return Detections(*(part[confident] for part in found))  # copies, no longer inference tensors


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
