"""The tables as code: every number of the authors' configurations, and every model's size to the last parameter."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recorded import keys

from vfnet_edu import recipes
from vfnet_edu.models.backbones.res2net import Res2NetConfig
from vfnet_edu.models.detector import build
from vfnet_edu.models.necks import FPNConfig, PAFPNConfig
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime import config
from vfnet_edu.runtime.errors import UserError
from vfnet_edu.weights.mmdet import from_mmdet, to_mmdet

VFNET = {  # row -> recorded keys, parameters, number of keys, AP on val2017 and test-dev, images per second
    "vfnet_r50_1x": ("vfnet_r50", 32_891_554, 373, 41.6, 41.6, 19.4),
    "vfnet_r50_ms_2x": ("vfnet_r50", 32_891_554, 373, 44.5, 44.8, 19.3),
    "vfnet_r50_dcn_ms_2x": ("vfnet_r50_dcn", 33_887_287, 403, 47.8, 48.0, 16.3),
    "vfnet_r101_1x": ("vfnet_r101", 51_883_682, 679, 43.0, 43.6, 15.5),
    "vfnet_r101_2x": ("vfnet_r101", 51_883_682, 679, 43.5, 43.9, 15.6),
    "vfnet_r101_ms_2x": ("vfnet_r101", 51_883_682, 679, 46.2, 46.7, 15.6),
    "vfnet_r101_dcn_ms_2x": ("vfnet_r101_dcn", 53_937_410, 743, 49.0, 49.2, 12.6),
    "vfnet_x101_32x4d_ms_2x": ("vfnet_x101_32x4d", 51_512_226, 679, 47.4, 47.6, 13.1),
    "vfnet_x101_32x4d_dcn_ms_2x": ("vfnet_x101_32x4d_dcn", 55_494_402, 743, 49.7, 50.0, 10.1),
    "vfnet_x101_64x4d_ms_2x": ("vfnet_x101_64x4d", 90_789_794, 679, 48.2, 48.5, 9.2),
    "vfnet_x101_64x4d_dcn_ms_2x": ("vfnet_x101_64x4d_dcn", 98_628_866, 743, 50.4, 50.8, 6.7),
    "vfnet_r2_101_ms_2x": ("vfnet_r2_101", 52_560_442, 1087, 49.2, 49.3, 13.0),
    "vfnet_r2_101_dcn_ms_2x": ("vfnet_r2_101_dcn", 55_037_638, 1271, 51.1, 51.3, 10.3),
}
VFNETX = {
    "vfnetx_r2_101_800": ("vfnetx_r2_101", 75_561_751, 1303, 53.4, 53.7, 8.0),
    "vfnetx_r2_101_1200": ("vfnetx_r2_101", 75_561_751, 1303, 54.5, 55.1, 4.2),
}
HOSTS = {
    "retinanet_r50_fl_1x": ("retinanet_fl", 37_968_692, 354, 36.5, None, None),
    "retinanet_r50_vfl_1x": ("retinanet_fl", 37_968_692, 354, 37.4, None, None),
    "foveabox_r50_fl_1x": ("fovea_fl", 36_419_732, 354, 36.3, None, None),
    "foveabox_r50_vfl_1x": ("fovea_fl", 36_419_732, 354, 37.2, None, None),
    "reppoints_r50_fl_1x": ("reppoints_fl", 36_849_078, 371, 38.3, None, None),
    "reppoints_r50_vfl_1x": ("reppoints_fl", 36_849_078, 371, 39.7, None, None),
    "atss_r50_fl_1x": ("atss_fl", 32_295_322, 369, 39.3, None, None),
    "atss_r50_vfl_1x": ("atss_fl", 32_295_322, 369, 40.2, None, None),
}
ROWS = VFNET | VFNETX | HOSTS


def on_no_device(recipe):
    with torch.device("meta"):
        return build(recipe)


@pytest.mark.parametrize("name", ROWS)
def test_every_key_and_every_parameter(name):
    """Names, shapes, what is trained, and the published numbers; and the way there and back loses nothing."""
    variant, parameters, count, *published = ROWS[name]
    recipe, recorded = recipes.by_name(name), keys(variant)
    model = on_no_device(recipe)
    theirs = to_mmdet(model.state_dict())
    assert {k: list(v.shape) for k, v in theirs.items()} == {r["key"]: r["shape"] for r in recorded["state"]}
    assert len(theirs) == count
    assert sum(p.numel() for p in model.parameters()) == recorded["num_parameters"] == parameters
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == recorded["num_trainable"]
    trained = to_mmdet({n: p for n, p in model.named_parameters() if p.requires_grad})
    assert set(trained) == {r["key"] for r in recorded["state"] if r["kind"] == "trainable"}
    assert {k: v.shape for k, v in from_mmdet(theirs).items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert [recipe.published.ap_val, recipe.published.ap_test_dev, recipe.published.fps_v100] == published


def test_the_tables_in_their_order():
    assert recipes.names()[: len(ROWS)] == list(ROWS)
    assert all(recipes.by_name(n).name == n for n in recipes.names())


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_is_a_value(name):
    recipe = recipes.by_name(name)
    assert recipe == recipes.by_name(name) and hash(recipe) == hash(recipes.by_name(name))
    assert config.from_dict(Recipe, config.to_dict(recipe)) == recipe


def test_an_unknown_name():
    with pytest.raises(UserError, match="vfnet_r50_1x") as error:
        recipes.by_name("vfnet_r50_lx")
    assert "did you mean vfnet_r50_1x" in str(error.value) and "atss_r50_vfl_1x" in str(error.value)
    for name in ("by_name", "_vfnet", "Recipe", ""):
        with pytest.raises(UserError):
            recipes.by_name(name)


@pytest.mark.parametrize("name", VFNET)
def test_the_settings_of_table_1(name):
    recipe = recipes.by_name(name)
    multi_scale, epochs = "_ms_" in name, 24 if name.endswith("2x") else 12
    assert recipe.data.augment.long_side == (1333, 1333) and recipe.data.test_scale == (1333, 800)
    assert recipe.data.augment.short_side == ((480, 960) if multi_scale else (800, 800))
    assert (recipe.data.augment.flip, recipe.data.augment.crop, recipe.data.augment.cutout) == (0.5, 0, 0)
    assert (recipe.optim.epochs, recipe.optim.drop_at) == (epochs, (16, 22) if epochs == 24 else (8, 11))
    assert recipe.backbone.dcn == recipe.head.dcn == ("_dcn_" in name)
    assert (recipe.backbone.frozen_stages, recipe.backbone.frozen_norm) == (1, True)
    assert recipe.neck == FPNConfig(256, 2, "p5", relu_before_p7=True, norm=False)
    head = recipe.head
    assert (head.classes, head.channels, head.depth, head.atss_topk, head.anchor_size) == (80, 256, 3, 9, 8)
    assert (head.loss, head.alpha, head.gamma, head.iou_weighted) == ("varifocal", 0.75, 2, True)
    assert (head.box_weight, head.refine_weight, head.star_gradient, head.box_unit) == (1.5, 2.0, 0.1, 8)
    assert recipe.swa.epochs == 0
    check_optim(recipe, bias=(2, 0), warmup=0.1)
    check_detect(recipe, nms="hard", iou=0.6)


@pytest.mark.parametrize("name, scale", [("vfnetx_r2_101_800", (1333, 800)), ("vfnetx_r2_101_1200", (1800, 1200))])
def test_the_settings_of_vfnetx(name, scale):
    recipe = recipes.by_name(name)
    augment = recipe.data.augment
    assert recipe.data.test_scale == scale
    assert (augment.long_side, augment.short_side) == ((750, 2100), (500, 1400))
    assert (augment.crop, augment.crop_range, augment.cutout, augment.flip) == (0.5, (0.75, 0.75), 0.5, 0.5)
    assert recipe.backbone == Res2NetConfig(dcn=True) and recipe.neck == PAFPNConfig(384)
    assert (recipe.head.channels, recipe.head.depth, recipe.head.dcn) == (384, 4, True)
    assert recipe.head == replace(recipes.vfnet_r50_dcn_ms_2x().head, channels=384, depth=4)
    assert (recipe.optim.epochs, recipe.optim.drop_at) == (41, (36, 40))
    assert (recipe.swa.epochs, recipe.swa.lr, recipe.swa.lr_end) == (18, 0.01, 1e-4)
    check_optim(recipe, bias=(2, 0), warmup=0.1)
    check_detect(recipe, nms="linear", iou=0.65)


@pytest.mark.parametrize("name", HOSTS)
def test_the_settings_of_table_2(name):
    recipe, kind = recipes.by_name(name), name.split("_")[0]
    head, focal = recipe.head, "_fl_" in name
    assert recipe.backbone == recipes.vfnet_r50_1x().backbone
    assert (recipe.optim.epochs, recipe.optim.drop_at) == (12, (8, 11))
    assert recipe.data.augment == recipes.vfnet_r50_1x().data.augment and recipe.data.test_scale == (1333, 800)
    assert recipe.data.images_per_gpu == (2 if kind == "atss" else 4)
    own = {"foveabox": (0.4, 1.5)}.get(kind, (0.25, 2))
    assert (head.loss, (head.alpha, head.gamma)) == (("focal", own) if focal else ("varifocal", (0.75, 2)))
    extra = "p5" if kind == "atss" else "c5"
    assert recipe.neck == FPNConfig(256, 2, extra, relu_before_p7=False, norm=kind == "reppoints")
    check_optim(recipe, bias=(1, 1), warmup=0.001 if kind == "atss" else 0.1)
    check_detect(recipe, nms="hard", iou=0.6 if kind == "atss" else 0.5)
    other = recipes.by_name(name.replace("_fl_", "_vfl_"))  # the loss, its two numbers, and the report: nothing else
    changed = set(config.difference(other, recipe))
    assert changed <= {"name", "head.loss", "head.alpha", "head.gamma", "published.ap_val", "published.drive"}
    match kind:
        case "retinanet":
            assert head.depth == 4 and head.box_weight == 1 and (head.positive_iou, head.negative_iou) == (0.5, 0.4)
            assert head.anchor_sizes == pytest.approx([4, 5.039684, 6.349604]) and head.anchor_ratios == (0.5, 1, 2)
        case "foveabox":
            assert head.depth == 4 and (head.box_weight, head.beta, head.shrink, head.base_edge) == (1, 0.11, 0.4, 2)
            assert head.scale_ranges == ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))
        case "reppoints":
            assert head.depth == 3 and (head.box_weight, head.refine_weight, head.beta) == (0.5, 1, 0.11)
            assert (head.base_scale, head.point_gradient, head.moment_gradient) == (4, 0.1, 0.01)
            assert (head.positive_iou, head.negative_iou) == (0.5, 0.4)
        case "atss":
            assert head.depth == 4 and (head.box_weight, head.centerness_weight, head.atss_topk) == (2, 1, 9)


def check_optim(recipe, bias, warmup):
    optim = recipe.optim
    assert (optim.optimizer, optim.lr, optim.lr_batch, recipe.data.batch_size) == ("sgd", 0.01, 16, 16)
    assert (optim.momentum, optim.weight_decay, optim.clip_norm) == (0.9, 1e-4, 0)
    assert (optim.bias_lr, optim.bias_decay) == bias
    assert (optim.warmup_steps, optim.warmup_start, optim.schedule) == (500, warmup, "step")


def check_detect(recipe, nms, iou):
    detect = recipe.detect
    assert (detect.min_score, detect.top_per_level, detect.max_detections) == (0.05, 1000, 100)
    assert (detect.topk, detect.nms, detect.nms_iou, detect.soft_min_score) == ("locations", nms, iou, 1e-3)


def test_ablations_differ_from_the_first_row_in_their_head_alone():
    base = recipes.vfnet_r50_1x()
    changes = {}
    for name in [n for n in recipes.names() if n.startswith("vfnet_r50_") and n not in VFNET]:
        difference = config.difference(recipes.by_name(name), base)
        changes[name] = {k: new for k, (_, new) in difference.items() if not k.startswith("published") and k != "name"}
    assert changes == {
        "vfnet_r50_raw_focal_1x": {"head.star": False, "head.refine": False, "head.box_weight": 2.0}
        | {"head.loss": "focal", "head.alpha": 0.25},
        "vfnet_r50_raw_1x": {"head.star": False, "head.refine": False, "head.box_weight": 2.0},
        "vfnet_r50_star_1x": {"head.refine": False, "head.box_weight": 2.0},
        "vfnet_r50_focal_1x": {"head.loss": "focal", "head.alpha": 0.25},
        "vfnet_r50_qfl_1x": {"head.loss": "quality_focal"},
        "vfnet_r50_unweighted_1x": {"head.iou_weighted": False},
        "vfnet_r50_star_gradient_0_1x": {"head.star_gradient": 0.0},
        "vfnet_r50_star_gradient_1_1x": {"head.star_gradient": 1.0},
    }
    raw = on_no_device(recipes.vfnet_r50_raw_1x())
    assert sum(p.numel() for p in raw.head.parameters()) == 4_916_313
    theirs = to_mmdet(raw.state_dict())
    assert "bbox_head.vfnet_cls_conv.gn.weight" in theirs and not any("refine" in k or "dconv" in k for k in theirs)


def test_published_files():
    """Eight are hosted by OpenMMLab; their names end with the beginning of their SHA-256."""
    hosted = {n: recipes.by_name(n).published.checkpoint for n in ROWS if recipes.by_name(n).published.checkpoint}
    digests = ["38db6f58", "7cc75bd2", "6879c318", "c831ece7", "4a5d53f1", "7729adb5", "d300a6fc", "b5f6da5e"]
    assert [Path(f).stem[-8:] for f in hosted.values()] == digests
    assert all(len(recipes.by_name(n).published.drive) == 33 for n in ROWS)
