"""From a recipe to a detector: the only place where a config meets its class."""

from dataclasses import replace

from vfnet_edu.models.backbones.res2net import Res2Net, Res2NetConfig
from vfnet_edu.models.backbones.resnet import ResNet, ResNetConfig
from vfnet_edu.models.detector import Detector
from vfnet_edu.models.heads.atss import ATSSConfig, ATSSHead
from vfnet_edu.models.heads.foveabox import FoveaBoxConfig, FoveaBoxHead
from vfnet_edu.models.heads.reppoints import RepPointsConfig, RepPointsHead
from vfnet_edu.models.heads.retinanet import RetinaNetConfig, RetinaNetHead
from vfnet_edu.models.heads.vfnet import VFNetConfig, VFNetHead
from vfnet_edu.models.necks import FPN, PAFPN, FPNConfig, PAFPNConfig
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
        case Res2NetConfig():
            backbone = Res2Net(recipe.backbone)
    channels = recipe.backbone.out_channels
    match recipe.neck:
        case FPNConfig():
            neck = FPN(channels, recipe.neck)
        case PAFPNConfig():
            neck = PAFPN(channels, recipe.neck)
    width = recipe.neck.channels
    match recipe.head:
        case VFNetConfig():
            head = VFNetHead(recipe.head, width)
        case ATSSConfig():
            head = ATSSHead(recipe.head, width)
        case RetinaNetConfig():
            head = RetinaNetHead(recipe.head, width)
        case FoveaBoxConfig():
            head = FoveaBoxHead(recipe.head, width)
        case RepPointsConfig():
            head = RepPointsHead(recipe.head, width)
    model = Detector(backbone, neck, head, recipe.detect)
    model.recipe = recipe
    model.classes = classes or tuple(f"class {i}" for i in range(recipe.head.classes))
    return model.train()
