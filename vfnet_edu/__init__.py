"""VarifocalNet, taught and trained: an IoU-aware dense object detector in plain PyTorch (arXiv 2008.13367).

>>> import vfnet_edu as vf
>>> recipe, model = vf.load("vfnet_tiny")  # or a run folder, a checkpoint, a row of the results tables
>>> found = vf.detect(model, "street.jpg")  # Detections(boxes (D, 4) xyxy px, scores (D,), labels (D,))
>>> vf.viz.draw(found, "street.jpg", model.classes)
>>> recipe = vf.recipes.vfnet_r50_ms_2x()  # a value: print it, change it
>>> losses = vf.build(recipe)(images, targets)

Names are imported when they are first used: `python -m vfnet_edu.doctor` must start even where torch does not.
"""

import importlib

__version__ = "0.3.0"

_HOME = {  # public name -> the module it lives in
    "build": "models.detector",
    "load": "weights.zoo",
    "save": "weights.ours",
    "detect": "inference",
    "for_inference": "inference",
    "View": "inference",
    "show": "runtime.source",
    "from_mmdet": "weights.mmdet",
    "to_mmdet": "weights.mmdet",
    "Detections": "postprocess",
    "Recipe": "recipe",
    "varifocal_loss": "losses",
    "focal_loss": "losses",
    "quality_focal_loss": "losses",
    "star_conv2d": "ops.star.operator",
    "pretrained": "weights.zoo",
    "vfnet_r50": "weights.zoo",
    "vfnet_r101": "weights.zoo",
    "vfnet_x101_32x4d": "weights.zoo",
    "vfnet_x101_64x4d": "weights.zoo",
    "vfnet_r2_101": "weights.zoo",
    "vfnet_x": "weights.zoo",
    "retinanet_r50": "weights.zoo",
    "foveabox_r50": "weights.zoo",
    "reppoints_r50": "weights.zoo",
    "atss_r50": "weights.zoo",
}
_MODULES = ("boxes", "losses", "recipes", "viz")  # used as `vf.recipes.…`

__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"vfnet_edu.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"vfnet_edu.{name}")
    raise AttributeError(f"module 'vfnet_edu' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
