"""Configs of mmdetection: what their text says a checkpoint is, and whether one of our recipes is the same.

Keys and shapes do not tell everything.  PAA has those of ATSS; a backbone in caffe style has those of the usual one,
and wants different images.  The config inside a checkpoint is Python source: it is parsed and never run.
"""

import ast
import warnings
from collections.abc import Iterator

from vfnet_edu.models.detector import MEAN, STD
from vfnet_edu.models.heads.atss import ATSSConfig
from vfnet_edu.models.heads.foveabox import FoveaBoxConfig
from vfnet_edu.models.heads.reppoints import RepPointsConfig
from vfnet_edu.models.heads.retinanet import RetinaNetConfig
from vfnet_edu.models.heads.vfnet import VFNetConfig
from vfnet_edu.recipe import Recipe

TYPES = {  # our head -> the types of their detector and of their head, in mmdetection and in the authors' copy of it
    VFNetConfig: ("VFNet", ("VFNetHead", "VFNetRawHead")),
    ATSSConfig: ("ATSS", ("ATSSHead", "ATSSVGFLHead")),
    RetinaNetConfig: ("RetinaNet", ("RetinaHead",)),
    FoveaBoxConfig: ("FOVEA", ("FoveaHead",)),
    RepPointsConfig: ("RepPointsDetector", ("RepPointsHead",)),
}


def read_config(text: str) -> dict[str, object]:
    """Names of a config file -> their values, as far as they are written out: dicts, lists, numbers, strings.

    Returns:
        what the text assigns; empty where it is not Python.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in somebody's pattern
            lines = ast.parse(text).body
        known = {}
        for line in lines:
            if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                known[line.targets[0].id] = _value(line.value, known)
        return known
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _value(node: ast.expr, known: dict[str, object]):
    """The value of an expression; None for what would have to be run."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return known.get(node.id)
        case ast.List() | ast.Tuple():
            return [_value(item, known) for item in node.elts]
        case ast.Dict():
            pairs = zip(node.keys, node.values, strict=True)
        case ast.Call(func=ast.Name(id="dict")):
            pairs = [(k.arg and ast.Constant(k.arg), k.value) for k in node.keywords]
            pairs = [*((None, argument) for argument in node.args), *pairs]
        case _:
            return None
    values = {}
    for key, value in pairs:
        name, value = _value(key, known) if key else None, _value(value, known)
        if isinstance(name, str):
            values[name] = value
        elif key is None and isinstance(value, dict):  # `**other`, or `dict(other)`
            values |= value
    return values


def disagreements(config: dict[str, object], recipe: Recipe) -> list[str]:
    """How the model of a config differs from that of a recipe, though its keys and shapes may be the same.

    Args:
        config: of :func:`read_config`; what it does not say counts as equal.
        recipe: one of ours.

    Returns:
        one phrase per difference, as "its head is PAAHead, not ATSSHead".
    """
    model = config.get("model")
    if not isinstance(model, dict):
        return []
    found = []
    detector, heads = TYPES[type(recipe.head)]
    for part, value, expected in (("model", model, (detector,)), ("head", model.get("bbox_head"), heads)):
        kind = _kind(value)
        if kind and kind not in expected:
            found.append(f"its {part} is {kind}, not {' or '.join(expected)}")
    backbone = model.get("backbone")
    style = getattr(recipe.backbone, "style", "pytorch")
    for key, ours in (("style", style), ("norm_eval", recipe.backbone.frozen_norm)):
        value = backbone.get(key) if isinstance(backbone, dict) else None
        if value not in (None, ours):
            found.append(f"its backbone has {key}={value!r}, not {ours!r}")
    expected = _normalisation({"mean": list(MEAN), "std": list(STD)})
    found += [f"its image normalisation is {line}, not {expected}" for line in _normalisations(config) - {expected}]
    return found


def _kind(value) -> str:
    """The type of a part of a model without the package it comes from; "" where it has none."""
    kind = value.get("type") if isinstance(value, dict) else None
    return kind.rsplit(".")[-1] if isinstance(kind, str) else ""


def _normalisations(config: dict) -> set[str]:
    """Of all steps with a type; a config of the pieces that such steps are made of has none."""
    steps = [(bool(_kind(step)), line) for step in _dicts(config) if (line := _normalisation(step))]
    return {line for typed, line in steps if typed} or {line for _, line in steps}


def _normalisation(step: dict) -> str:
    """How a step of a pipeline (2.x) or a preprocessor (3.x) normalises images; "" where it does not."""
    rounded = []
    for values in (step.get("mean"), step.get("std")):
        if not (isinstance(values, list) and len(values) == 3 and all(isinstance(v, int | float) for v in values)):
            return ""
        rounded.append([round(float(v), 3) for v in values])
    reads_rgb = not _kind(step).endswith("DataPreprocessor")  # where neither version says: what it does by default
    order = "RGB" if step.get("bgr_to_rgb", step.get("to_rgb", reads_rgb)) else "BGR"
    return f"{order}, mean {rounded[0]}, std {rounded[1]}"


def _dicts(config: dict) -> Iterator[dict]:
    """Every dict in a config, each once however often it is referred to."""
    todo, seen = [config], set()
    while todo:
        value = todo.pop()
        if isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            todo += value.values() if isinstance(value, dict) else value
            if isinstance(value, dict):
                yield value
