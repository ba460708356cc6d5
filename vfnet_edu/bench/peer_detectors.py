"""Whole detectors of `bench peers`: ours beside torchvision's, answering and learning.

Torchvision's are as they come with published weights (frozen norms, three trained stages), but channels_last, which
makes them faster.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from vfnet_edu import recipes
from vfnet_edu.bench import synthetic
from vfnet_edu.bench.assign import random_boxes
from vfnet_edu.bench.sizes import Sizes
from vfnet_edu.bench.turns import Skipped, Turn
from vfnet_edu.inference import detect, for_inference
from vfnet_edu.losses import total
from vfnet_edu.models.detector import Detector, build
from vfnet_edu.runtime.devices import PRECISION, Precision, computes

CPU = torch.device("cpu")


def vfnet(size: tuple[int, int]) -> Detector:
    """VFNet R-50 with fresh weights, which leaves images of `size` as large as they are."""
    torch.manual_seed(0)
    recipe = recipes.vfnet_r50_1x()
    model = build(replace(recipe, data=replace(recipe.data, test_scale=(max(size), min(size)))))
    return model.to(memory_format=torch.channels_last)


def torchvisions(kind: type[FCOS | RetinaNet], size: tuple[int, int]) -> FCOS | RetinaNet:
    """A detector of torchvision with fresh weights, which leaves images of `size` as large as they are."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3,
        returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256),
    )  # fmt: skip
    model = kind(backbone, synthetic.CLASSES, min_size=min(size), max_size=max(size))
    return model.to(memory_format=torch.channels_last)


def noise(size: tuple[int, int], count: int) -> list[Tensor]:
    """Images (3, h, w) uint8."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for _ in range(count)]


def check_precision(precision: Precision) -> None:
    """Skip what this processor would only imitate."""
    if PRECISION[precision] and not computes(precision, CPU):
        raise Skipped(f"this processor has no instructions for {precision}")


def our_answer(precision: Precision) -> Callable[[Sizes], Turn]:
    def make(sizes: Sizes) -> Turn:
        check_precision(precision)
        model, (image,) = for_inference(vfnet(sizes.answer)), noise(sizes.answer, 1)
        return Turn(lambda: detect(model, image, precision=precision))

    return make


def peer_answer(kind: type[FCOS | RetinaNet], precision: Precision) -> Callable[[Sizes], Turn]:
    def make(sizes: Sizes) -> Turn:
        check_precision(precision)
        model, images, dtype = torchvisions(kind, sizes.answer).eval(), noise(sizes.answer, 1), PRECISION[precision]

        def run():
            with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype is not None):
                return model([image / 255 for image in images])

        return Turn(run)

    return make


def objects(sizes: Sizes) -> list[dict[str, Tensor]]:
    """Seven in each image, as many as COCO has on average."""
    return [{"boxes": random_boxes(7, sizes.learn), "labels": torch.arange(7)} for _ in range(sizes.batch)]


def our_lesson(sizes: Sizes) -> Turn:
    model, images, targets = vfnet(sizes.learn), noise(sizes.learn, sizes.batch), objects(sizes)

    def run():
        total(model(images, targets)).backward()
        model.zero_grad()

    return Turn(run)


def peer_lesson(kind: type[FCOS | RetinaNet]) -> Callable[[Sizes], Turn]:
    def make(sizes: Sizes) -> Turn:
        model, images, targets = torchvisions(kind, sizes.learn), noise(sizes.learn, sizes.batch), objects(sizes)

        def run():
            total(model([image / 255 for image in images], targets)).backward()
            model.zero_grad()

        return Turn(run)

    return make
