"""From a recipe to a detector: the only place where a config meets its class."""

from dataclasses import replace

from vfnet_edu.backbones.resnet import ResNet, ResNetConfig
from vfnet_edu.detector import Detector
from vfnet_edu.heads.vfnet import VFNetConfig, VFNetHead
from vfnet_edu.necks import FPN, FPNConfig
from vfnet_edu.recipes import Recipe


def build(recipe: Recipe, classes: tuple[str, ...] | None = None) -> Detector:
    """A detector with fresh weights, in training mode.

    Args:
        recipe: what to build.
        classes: names of the classes; their number replaces ``recipe.head.classes``.

    Returns:
        the detector; ``.recipe`` and ``.classes`` say what it is.
    """
    if classes is not None:
        recipe = replace(recipe, head=replace(recipe.head, classes=len(classes)))
    match recipe.backbone:
        case ResNetConfig():
            backbone = ResNet(recipe.backbone)
    channels = recipe.backbone.out_channels
    match recipe.neck:
        case FPNConfig():
            neck = FPN(channels, recipe.neck)
    match recipe.head:
        case VFNetConfig():
            head = VFNetHead(recipe.head, recipe.neck.channels)
    model = Detector(backbone, neck, head, recipe.detect)
    model.recipe = recipe
    model.classes = classes or tuple(f"class {i}" for i in range(recipe.head.classes))
    return model.train()
