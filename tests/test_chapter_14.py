"""Chapter 14: its lines are few and stand alone, give what the package gives, and its exercises know each mistake."""

import ast
import re

import pytest
import torch
from chapters import ROOT, code_cells, read
from javascript import in_node

import vfnet_edu as vf
from vfnet_edu.assigners import atss
from vfnet_edu.data.shapes import VAL_START, draw_scene
from vfnet_edu.models.detector import build
from vfnet_edu.ops.star.operator import star_conv2d
from vfnet_edu.priors import pyramid_anchors

NOTEBOOK = read(ROOT / "notebooks/14_two_hundred_lines.ipynb")
MODELS = {"vfnet_tiny": 8, "vfnet_r50_1x": 80}  # and their classes


@pytest.fixture(scope="module")
def source() -> str:
    """What a reader gets who copies the parts one after the other into a file."""
    return "\n\n\n".join(cell.source for cell in code_cells(NOTEBOOK, "two-hundred"))


@pytest.fixture(scope="module")
def own(source) -> dict:
    """The names that this file defines."""
    space = {"__name__": "two_hundred"}
    exec(compile(source, "two_hundred.py", "exec"), space)
    return space


@pytest.fixture(scope="module")
def both(own):
    """The network of the chapter and the package's, with the weights of vfnet_tiny; four scenes."""
    space = {**own, "vf": vf}
    for name in ("names", "load"):
        (cell,) = (c for c in NOTEBOOK.cells if c.id == name)
        exec(compile(cell.source, name, "exec"), space)
    images, targets = zip(*(draw_scene(0, VAL_START + i) for i in range(4)), strict=True)
    return space, list(images), torch.stack(images).float(), list(targets)


# ---- the two hundred lines ------------------------------------------------------------------------------------------
def test_at_most_two_hundred_lines(source):
    lines = [line for line in source.splitlines() if line.strip()]
    assert len(lines) <= 200
    assert all(len(line) <= 76 for line in lines)
    said = re.findall(r"(\d+)<!--given--> (?:lines|at the moment)", "\n".join(c.source for c in NOTEBOOK.cells))
    assert {int(n) for n in said} == {200, len(lines)}


def test_torch_and_nms_alone(source):
    imported = {ast.unparse(n) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom)}
    assert imported == {
        "import torch",
        "import torch.nn.functional as F",
        "from torch import nn",
        "from torchvision.ops import nms",
    }


def test_outputs_losses_gradients(both):
    space, images, batch, targets = both
    net, model = space["net"], space["model"]
    out, package = net(batch), model.raw(images)
    for mine, theirs in zip(out, (package.logits, package.boxes, package.refined), strict=True):
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    mine, theirs = space["losses"](out, targets, (128, 128)), model(images, targets)
    assert list(mine) == list(theirs)
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-5, atol=1e-6)
    sum(mine.values()).backward()
    sum(theirs.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for name, p in net.named_parameters():
        wanted = gradients[space["theirs"](name)]
        assert (p.grad - wanted).norm() <= 0.01 * wanted.norm(), name
    net.zero_grad()
    model.zero_grad()


def test_detections(both):
    space, images, batch, _ = both
    for (boxes, scores, labels), wanted in zip(
        space["detect"](space["net"], batch), space["model"](images), strict=True
    ):
        torch.testing.assert_close(scores, wanted.scores, rtol=0, atol=1e-5)
        apart = (boxes[:, None] - wanted.boxes).abs().amax(2)  # rounding may change the order of equal scores
        apart[labels[:, None] != wanted.labels] = torch.inf
        assert len(labels) and apart.amin(1).max() < 1e-3 and apart.amin(0).max() < 1e-3


def test_the_star_also_beyond_the_border(own):
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 3, 5, 7, generator=draw), torch.randn(4, 3, 3, 3, generator=draw)
    ltrb = 60 * torch.rand(2, 4, 5, 7, generator=draw)
    torch.testing.assert_close(own["star"](x, ltrb, weight, 8), star_conv2d(x, ltrb, weight, 8), rtol=1e-4, atol=1e-4)


def test_assignment_also_where_objects_compete(own):
    """Whole pixels, so that many distances are equal; some objects nearly the same."""
    point, stride = own["points"](96, 160)
    shapes = [(96 // s, 160 // s) for s in own["STRIDES"]]
    anchors = pyramid_anchors(shapes, own["STRIDES"], (4.0,))
    for seed in range(5):
        draw = torch.Generator().manual_seed(seed)
        corner = torch.randint(0, 80, (6, 2), generator=draw)
        boxes = torch.cat([corner, corner + torch.randint(8, 60, (6, 2), generator=draw)], 1).float()
        boxes = torch.cat([boxes, boxes[:3] + 2])
        wanted = atss(anchors, [h * w for h, w in shapes], boxes)
        assert torch.equal(own["assign"](point, stride, boxes), wanted) and (wanted >= 0).any()


@pytest.mark.filterwarnings("ignore:std")  # of no rows at all
def test_pictures_without_objects(own):
    torch.manual_seed(0)
    net = own["start"](own["VFNet"](n=4, c=32, classes=2))
    nothing = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    images = torch.zeros(2, 3, 64, 96)
    terms = own["losses"](net(images), nothing, (64, 96))
    assert terms["box"] == 0 and terms["refine"] == 0 and terms["cls"].isfinite()
    sum(terms.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert [len(found[0]) for found in own["detect"](net.eval(), images)] == [0, 0]


# ---- the explorer ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def models():
    pytest.importorskip("anywidget", reason="the explorers need anywidget")
    from vfnet_edu.widgets import TensorExplorer

    return TensorExplorer().models


def test_shapes_are_the_same_in_javascript(models):
    from vfnet_edu.widgets.tensors import tensors

    cases = [(model, h, w) for model in models for h, w in ((64, 64), (128, 96), (800, 1344), (1056, 736))]
    got = in_node("tensors", "data.map(([model, h, w]) => tensors(model, h, w))", cases)
    assert got == [[list(part) for part in tensors(*case)] for case in cases]


@pytest.mark.parametrize("name", MODELS)
def test_shapes_are_those_of_the_network(models, name):
    from vfnet_edu.widgets.tensors import tensors

    h, w = 160, 224
    with torch.device("meta"):
        model = build(vf.recipes.by_name(name), [f"class {i}" for i in range(MODELS[name])])
        pixels = torch.empty(1, 3, h, w)
    maps = model.backbone.stages(pixels)
    pyramid = model.neck(maps[1:])
    said = {name: sizes for _, name, sizes in tensors(models[list(MODELS).index(name)], h, w)}
    for i, x in enumerate(maps):
        assert list(x.shape[1:]) == said[f"C{i + 2}"]
    for i, x in enumerate(pyramid):
        assert list(x.shape[1:]) == said[f"P{i + 3}"]
    rows = sum(x.shape[2] * x.shape[3] for x in pyramid)
    channels = model.head.cls_tower(pyramid[0]).shape[1]
    assert said["scores"] == [rows, model.head.score_out.out_channels] and said["first boxes"] == [rows, 4]
    assert said["two towers"] == [2, channels, rows] and said["star samples"] == [2, channels, 9, rows]
    assert f"P{len(pyramid) + 3}" not in said


def test_words(models):
    assert in_node("tensors", "words(data, 800, 1344)", models[1]) == (
        "An image of 800 × 1344 pixels makes 22,400 rows, 16,800 of them on P3. Each has two boxes and 80 scores. "
        "The largest tensor is “star samples”: 103.2 million numbers, 32 times as many as the image has."
    )


def test_explorer():
    pytest.importorskip("anywidget", reason="the explorers need anywidget")
    from vfnet_edu.widgets import TensorExplorer

    explorer = TensorExplorer(height=256)
    assert [m["name"] for m in explorer.models] == list(MODELS) and (explorer.height, explorer.width) == (256, 128)


# ---- the exercises --------------------------------------------------------------------------------------------------
