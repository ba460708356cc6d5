"""A detector: stack the images, run the network, then learn or answer."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfnet_edu.models.protocols import Backbone, Head, HeadOutput, Neck
from vfnet_edu.postprocess import Candidates, Detections, select
from vfnet_edu.priors import ceil32
from vfnet_edu.recipe import Recipe

MEAN = (123.675, 116.28, 103.53)  # of ImageNet, RGB, 0 .. 255
STD = (58.395, 57.12, 57.375)


def build(recipe: Recipe, classes: Sequence[str] | None = None) -> "Detector":
    """A detector with fresh weights, in training mode.

    Args:
        recipe: what to build.
        classes: names of the classes; their number replaces ``recipe.head.classes``.  By default they are numbered.

    Returns:
        the detector; ``.recipe`` and ``.classes`` say what it is.
    """
    if classes is None:
        classes = [f"class {i}" for i in range(recipe.head.classes)]
    return Detector(replace(recipe, head=replace(recipe.head, classes=len(classes))), classes)


class Detector(nn.Module):
    """Backbone, neck and head, as a recipe describes them (what each must be able to do: `models/protocols.py`).

    What it returns is decided by what it is given, not by ``self.training``, so a validation loss exists:

    - ``model(images, targets)`` -> ``{"cls": ..., "box": ..., ...}``, scalars to be summed;
    - ``model(images)`` -> one :class:`Detections` per image, in its pixels;
    - ``model(images, scales=[(sx, sy), ...])`` -> the same in pixels of the images before they were resized.

    `images` are uint8 (3, h, w) RGB tensors of any sizes.  `targets` hold ``boxes`` (G, 4) and ``labels`` (G,).

    Args:
        recipe: what it is made of, and how its predictions become detections (``recipe.detect``).
        classes: their names, as many as ``recipe.head.classes``.

    Raises:
        ValueError: a different number of classes.
    """

    mean: Tensor  # (3, 1, 1)
    std: Tensor  # (3, 1, 1)

    def __init__(self, recipe: Recipe, classes: Sequence[str]):
        super().__init__()
        if len(classes) != recipe.head.classes:
            raise ValueError(f"{len(classes)} names for {recipe.head.classes} classes")
        self.recipe, self.classes = recipe, tuple(classes)
        self.backbone: Backbone = recipe.backbone.build()
        self.neck: Neck = recipe.neck.build(recipe.backbone.out_channels)
        self.head: Head = recipe.head.build(recipe.neck.channels)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.train()  # norms that a backbone keeps frozen are frozen from the start

    def forward(
        self,
        images: Sequence[Tensor],
        targets: list[dict[str, Tensor]] | None = None,
        scales: list[tuple[float, float]] | None = None,
    ) -> dict[str, Tensor] | list[Detections]:
        out = self.raw(images)
        return self.answer(out, images, scales) if targets is None else self.teach(out, targets, images)

    def raw(self, images: Sequence[Tensor]) -> HeadOutput:
        """Images to the head's predictions: one row per point or anchor, all levels together.  See chapter 1."""
        return self.network(self.stack(images))

    def network(self, batch: Tensor) -> HeadOutput:
        """A normalised batch (B, 3, H, W), sides multiples of 32 -> the head's output"""
        pyramid = self.neck(self.backbone(batch))  # L maps (B, C, H/8, W/8), (B, C, H/16, W/16), ...
        return self.head(pyramid)

    def teach(self, out: Any, targets: list[dict[str, Tensor]], images: Sequence[Tensor]) -> dict[str, Tensor]:
        """Losses in float32, also under autocast."""
        device = self.mean.device
        truth = [{k: t[k].to(device, non_blocking=True) for k in ("boxes", "labels")} for t in targets]
        with torch.autocast(device.type, enabled=False):
            return self.head.loss(out, truth, sizes(images))

    def candidates(self, out: Any, images: Sequence[Tensor]) -> Candidates:
        """Every prediction with its scores, before any selection."""
        return self.head.candidates(out, sizes(images))

    def answer(
        self, out: Any, images: Sequence[Tensor], scales: list[tuple[float, float]] | None = None
    ) -> list[Detections]:
        """The detections of every image, best first."""
        candidates, scales = self.candidates(out, images), scales or [(1.0, 1.0)] * len(images)
        return [
            select(candidates, i, size, self.recipe.detect, scale)
            for i, (size, scale) in enumerate(zip(sizes(images), scales, strict=True))
        ]

    def stack(self, images: Sequence[Tensor]) -> Tensor:
        """uint8 (3, h, w) of any sizes -> one normalised batch, padded with zeros *after* normalising to /32"""
        device = self.mean.device  # images travel as uint8, a quarter of the bytes
        images = [(x.to(device, non_blocking=True) - self.mean) / self.std for x in images]
        h, w = (ceil32(max(x.shape[d] for x in images)) for d in (-2, -1))
        padded = [F.pad(x, (0, w - x.shape[-1], 0, h - x.shape[-2])) for x in images]
        return torch.stack(padded).contiguous(memory_format=torch.channels_last)  # (B, 3, H, W)


def sizes(images: Sequence[Tensor]) -> list[tuple[int, int]]:
    """(height, width) of every image, without padding."""
    return [(x.shape[-2], x.shape[-1]) for x in images]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode while inside, with nothing recorded for gradients; then back to the mode that the model was in.

    What is computed inside are inference tensors, which no graph may hold: copy what is to leave.
    """
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
