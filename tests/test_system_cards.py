"""The pictures of the systems show what the recipes say: looks, marks, words; and they are the ones that are shown."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from itertools import product
from pathlib import Path

import pytest
import torch
from test_recipes import ROWS

import vfnet_edu as vf
from vfnet_edu import recipes
from vfnet_edu.models.detector import Detector
from vfnet_edu.ops.dcn import ModulatedDeformConv2d
from vfnet_edu.runtime import config

ROOT = Path(__file__).parent.parent
specification = importlib.util.spec_from_file_location("system_cards", ROOT / "book/system_cards.py")
cards = importlib.util.module_from_spec(specification)
specification.loader.exec_module(cards)
PART = {  # start of a setting's name -> the part of the picture that has to be marked; the first that fits
    "head.loss": "loss",
    "head.alpha": "loss",
    "head.gamma": "loss",
    "data.test_scale": "test",
    "data.images_per_gpu": "training",
    "data": "images",
    "detect": "test",
    "optim": "training",
    "swa": "training",
    "backbone": "backbone",
    "neck": "neck",
    "head": "head",
}


def on_no_device(recipe) -> Detector:
    with torch.device("meta"):
        return vf.build(recipe)


def has(module: torch.nn.Module, kind: type) -> bool:
    return any(isinstance(m, kind) for m in module.modules())


def test_every_row_in_order():
    assert list(cards.ROWS) == list(ROWS) == list(cards.readme())
    seen = [None]
    for name, against in cards.ROWS.items():
        assert against in seen, "compared with a row that comes later"
        seen.append(name)


@pytest.mark.parametrize("name", ROWS)
def test_a_look_is_the_model_s(name):
    recipe = recipes.by_name(name)
    look, model = cards.look(recipe), on_no_device(recipe)
    for i, stage in enumerate(("C2", "C3", "C4", "C5"), start=1):
        _, blocks, dcn, frozen = look[f"backbone {stage}"]
        layer = model.backbone.get_submodule(f"layer{i}")
        assert blocks == len(layer) and dcn == has(layer, ModulatedDeformConv2d)
        assert frozen == (not any(p.requires_grad for p in layer.parameters()))
    first = model.backbone.layer1[0]
    kind, parts, width, _ = look["backbone block"]
    if kind == "Res2Net":
        assert (parts, width) == (len(first.convs) + 1, first.convs[0].in_channels)
    else:
        assert (parts, parts * width) == (first.conv2.groups, first.conv2.in_channels)

    up, channels, norm = look["neck levels"]
    assert channels == model.neck.output[0].conv.out_channels and norm == has(model.neck, torch.nn.GroupNorm)
    assert up == has(model.neck, ModulatedDeformConv2d) == hasattr(model.neck, "down")
    p6 = model.neck.extra[0].conv.in_channels
    assert p6 == (channels if look["neck extra"] == ("p5",) else recipe.backbone.out_channels[-1])

    channels, depth, norm, dcn = look["head towers"]
    for tower in (model.head.cls_tower, model.head.reg_tower):
        assert (len(tower), has(tower, torch.nn.GroupNorm)) == (depth, norm)
        assert [has(layer, ModulatedDeformConv2d) for layer in tower] == [False] * (depth - 1) + [dcn]
        assert tower[-1].conv.weight.shape[0] == channels


@pytest.mark.parametrize("name", ["vfnet_r50_1x", "vfnetx_r2_101_800", "retinanet_r50_fl_1x", "atss_r50_fl_1x"])
def test_relu_before_p7(name):
    recipe = recipes.by_name(name)
    torch.manual_seed(0)
    neck = replace(recipe.neck, channels=32).build((8, 8, 8)).eval()
    with torch.no_grad():
        *_, p6, p7 = neck([torch.randn(1, 8, 32 // s, 32 // s) for s in (1, 2, 4)])
        assert torch.equal(p7, neck.extra[1](p6.relu())) == cards.look(recipe)["neck relu"][0]


@pytest.mark.parametrize("name", ["vfnet_r50_1x", "reppoints_r50_fl_1x", "retinanet_r50_fl_1x", "atss_r50_fl_1x"])
def test_what_a_head_gives(name):
    model = on_no_device(recipes.by_name(name))
    with torch.no_grad():
        out = model.head([torch.empty(1, 256, 64 // s, 64 // s, device="meta") for s in (1, 2, 4, 8, 16)])
    gives = cards.head_of(model.recipe).outputs
    assert ("refined" in gives, "centerness" in gives) == (hasattr(out, "refined"), hasattr(out, "centerness"))
    cells = sum((64 // s) ** 2 for s in (1, 2, 4, 8, 16))
    assert gives[0] == ("score" if out.logits.shape[1] == cells else f"{out.logits.shape[1] // cells} scores")


@pytest.mark.parametrize("name", [name for name, against in cards.ROWS.items() if against])
def test_marked_is_what_differs(name):
    """Every setting that differs is marked and told; and nothing else is."""
    new, old = recipes.by_name(name), recipes.by_name(cards.ROWS[name])
    settings = [key for key in config.difference(new, old) if not re.match("name|published", key)]
    parts = {next(part for start, part in PART.items() if key.startswith(start)) for key in settings}
    assert {key.split()[0] for key in cards.differing(new, old)} == parts
    assert set(re.findall(r"<li><b>(\w+)</b>", cards.changes(new, old))) == parts
    drawn = cards.picture(new, old).count('class="mark"')
    assert 0 < drawn <= len(cards.differing(new, old))


def test_every_key_has_a_place_for_its_mark():
    for name in ROWS:
        assert set(cards.look(recipes.by_name(name))) == set(cards.MARKS)


def test_verified_is_the_readme_s():
    for name, against in cards.ROWS.items():
        parameters, verified = cards.readme()[name]
        html = cards.card(name, against, parameters, verified)
        yes = [unescape(claim) for claim in re.findall(r'<li class="yes">([^<]+)</li>', html)]
        assert yes == re.split("[,;] ", verified)
        assert len(yes) + html.count('<li class="no">') == len(cards.CHECKS) + ("backbone is" in verified)


def test_the_comparison_is_config_difference():
    """The page's own few lines of JavaScript, on all pairs of rows."""
    if shutil.which("node") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("node is not installed")
    data = cards.settings()
    script = (ROOT / "book/_static/systems.js").read_text(encoding="utf-8")
    pairs = "data.rows.flatMap(a => data.rows.map(b => difference(data, a, b)))"
    program = f"{script}\nconst data = {json.dumps(data)};\nconsole.log(JSON.stringify({pairs}));"
    done = subprocess.run(["node", "-"], input=program, capture_output=True, encoding="utf-8", timeout=60, check=True)
    kinds, unsaid = {"backbone", "neck", "head"}, {"name", "published.checkpoint", "published.drive"}
    for (a, b), found in zip(product(ROWS, ROWS), json.loads(done.stdout), strict=True):
        old, new = recipes.by_name(a), recipes.by_name(b)
        wanted = {
            key: ["" if value is None else str(value) for value in values]
            for key, values in config.difference(new, old).items()
            if key not in unsaid
        }
        assert {key: values for key, *values in found if key not in kinds} == wanted
        differ = {part for part in kinds if type(getattr(old, part)) is not type(getattr(new, part))}
        assert {key for key, *_ in found if key in kinds} == differ


def test_the_page_shows_what_the_script_draws():
    text = cards.TARGET.read_text(encoding="utf-8")
    assert text == cards.page(), "python book/system_cards.py"
    assert not re.search(r"\n\s*\n|https?:", text)  # an empty line would end the HTML; and it asks nobody
    assert len(text) < 200_000
    page = (ROOT / "book/systems.md").read_text(encoding="utf-8")
    for piece in ("legend", *cards.GROUPS, "compare"):
        assert page.count(f'"<!-- {piece} -->"') == page.count(f'"<!-- end {piece} -->"') == 1
    assert len(set(re.findall(r' id="([^"]+)"', text))) == text.count(' id="')
