"""Detectors of a few thousand parameters, one per head, for tests of everything around the numbers."""

from dataclasses import replace

from vfnet_edu import recipes
from vfnet_edu.models.backbones.res2net import Res2NetConfig
from vfnet_edu.models.backbones.resnet import ResNetConfig

HEADS = {
    "vfnet": "vfnet_r50_1x",
    "vfnet_dcn": "vfnet_r50_dcn_ms_2x",
    "vfnet_r2": "vfnet_r2_101_dcn_ms_2x",
    "vfnetx": "vfnetx_r2_101_800",
    "raw": "vfnet_r50_raw_1x",
    "atss": "atss_r50_vfl_1x",
    "retinanet": "retinanet_r50_vfl_1x",
    "foveabox": "foveabox_r50_vfl_1x",
    "reppoints": "reppoints_r50_vfl_1x",
}


def small(name: str, **changes):
    """The recipe of :data:`HEADS`, shrunk; `changes` to the recipe come last."""
    recipe = recipes.by_name(HEADS[name])
    backbone = ResNetConfig((1, 1, 1, 1), width=16, dcn=recipe.backbone.dcn)
    if isinstance(recipe.backbone, Res2NetConfig):
        backbone = Res2NetConfig((1, 1, 1, 1), width=16, dcn=recipe.backbone.dcn)
    neck, head = replace(recipe.neck, channels=64), replace(recipe.head, channels=64, depth=2, classes=5)
    return replace(recipe, **{"name": f"small_{name}", "backbone": backbone, "neck": neck, "head": head, **changes})
