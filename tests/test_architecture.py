"""The picture of the architecture says what is true: shapes, files, chapters; and it is the one that is shown."""

import importlib.util
import re
from itertools import combinations
from pathlib import Path

import pytest
import torch
from chapters import NOTEBOOKS

import vfnet_edu as vf
from vfnet_edu.models.detector import Detector

ROOT = Path(__file__).parent.parent
specification = importlib.util.spec_from_file_location("architecture", ROOT / "book/architecture.py")
architecture = importlib.util.module_from_spec(specification)
specification.loader.exec_module(architecture)
PARTS = {part.key: part for part in architecture.PARTS}


def shapes_of(model: Detector, size: tuple[int, int]) -> dict[str, list[tuple[int, ...]]]:
    """Part -> shapes of what it returns for one image, the batch left out.  A model on the meta device."""
    seen: dict[str, list[tuple[int, ...]]] = {"image": [(3, *size)], "cls_tower": [], "reg_tower": []}
    for name in ("cls_tower", "reg_tower"):
        module = getattr(model.head, name)
        module.register_forward_hook(lambda _, __, out, name=name: seen[name].append(tuple(out.shape[1:])))
    with torch.no_grad():
        stages = model.backbone(torch.empty(1, 3, *size, device="meta"))
        pyramid = model.neck(stages)
        out = model.head(pyramid)
    seen["backbone"] = [tuple(x.shape[1:]) for x in stages]
    seen["pyramid"] = [tuple(x.shape[1:]) for x in pyramid]
    seen["star"] = seen["reg_tower"]  # a convolution that keeps the size of its map
    seen["box"], seen["refined"] = [tuple(out.boxes.shape[1:])], [tuple(out.refined.shape[1:])]
    seen["score"], seen["atss"] = [tuple(out.logits.shape[1:])], [tuple(out.anchors.shape[:1])]
    seen["nms"] = [(model.recipe.detect.max_detections, 4)]
    return seen


@pytest.mark.parametrize(
    ("recipe", "size", "which"),
    [(vf.recipes.vfnet_r50_1x, (800, 1344), "large"), (vf.recipes.vfnet_tiny, (128, 128), "small")],
)
def test_shapes_are_the_model_s(recipe, size, which):
    with torch.device("meta"):
        model = vf.build(recipe(), classes=[str(n) for n in range(80 if which == "large" else 8)])
    seen = shapes_of(model, size)
    assert set(PARTS) - set(seen) == {"loss", "ap"}  # numbers, not tensors
    for key, shapes in seen.items():
        assert list(getattr(PARTS[key], which).values()) == shapes, key


def test_files_and_chapters():
    written = {int(path.stem[:2]) for path in NOTEBOOKS}
    for part in architecture.PARTS:
        assert (ROOT / "vfnet_edu" / part.file).is_file(), part.file
    shown = {number for part in architecture.PARTS for number in part.chapters} | set(architecture.ALL_OF_IT)
    assert written <= shown <= set(range(19)), "a chapter that is nowhere in the picture"


def test_boxes_lie_apart_and_inside():
    for a, b in combinations([part.box for part in architecture.PARTS], 2):
        apart = a[0] + a[2] < b[0] or b[0] + b[2] < a[0] or a[1] + a[3] < b[1] or b[1] + b[3] < a[1]
        assert apart, (a, b)
    for x, y, w, h in (part.box for part in architecture.PARTS):
        assert x >= 0 and y >= 0 and x + w <= architecture.WIDTH and y + h <= architecture.HEIGHT


def test_the_page_shows_what_the_script_draws():
    text = architecture.TARGET.read_text(encoding="utf-8")
    assert text == architecture.drawing(), "python book/architecture.py"
    assert not re.search(r"\{\{|\{%|https?:", text)  # it is read by a template, and it asks nobody
