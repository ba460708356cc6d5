"""Checkpoints in and out: ours, the authors' and mmdetection's, ImageNet's; and the ways in which a file is not one."""

import json
import logging
import pickle
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recorded import close
from safetensors.torch import save as safetensors_bytes
from small import HEADS, small

from vfnet_edu import convert, recipes
from vfnet_edu.inference import detect
from vfnet_edu.models.detector import STD, build
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime.config import from_dict
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.training import checkpoint
from vfnet_edu.weights import imagenet, ours, zoo
from vfnet_edu.weights.mmdet import COCO, from_mmdet, load_mmdet, read_mmdet, to_mmdet
from vfnet_edu.weights.mmdet_config import disagreements, read_config

CLASSES = ("cat", "dog", "owl", "fox", "hen")


@pytest.fixture
def model():
    return build(small("vfnet"), CLASSES)


@pytest.fixture
def rows(monkeypatch):
    """A table of a few rows, two of them of one shape, instead of the real ones"""
    table = {f"small_{name}": small(name) for name in ("vfnet", "retinanet", "foveabox", "atss")}
    table["small_focal"] = replace(small("vfnet"), name="small_focal")
    monkeypatch.setattr(recipes, "names", lambda: list(table))
    for name, recipe in table.items():
        monkeypatch.setattr(recipes, name, lambda recipe=recipe: recipe, raising=False)
    return table


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ------------------------------------------------------------------ ours
def test_a_checkpoint_knows_what_it_is(model, tmp_path):
    ours.save(tmp_path / "best.safetensors", model, {"ap": "12.3"})
    for path in (tmp_path, tmp_path / "best.safetensors"):
        recipe, again = zoo.load(path)
        assert recipe == model.recipe == again.recipe and again.classes == CLASSES and not again.training
        assert same(again.state_dict(), model.state_dict())


SAVED = Path(__file__).parent / "saved"  # two steps of `vfnet_small`, 2 channels wide, by 0.1.0 as it began


@pytest.mark.parametrize("name", ["best.safetensors", "last.pt"])
def test_what_was_saved_before_the_modules_moved(name):
    """Recipes carry the names of their dataclasses and never of modules, so files outlive a move of the modules."""
    config = json.loads((SAVED / "config.json").read_text())
    recipe, model = zoo.load(SAVED / name)
    assert recipe == from_dict(Recipe, config["recipe"]) and list(model.classes) == config["classes"]
    written = ours.read(SAVED / name)[2]
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in written.items()}
    assert same(model.state_dict(), written)
    found = detect(model, np.zeros((64, 64, 3), np.uint8), min_score=0.0)
    assert found.boxes.shape[1] == 4 and len(found.boxes) == len(found.scores) > 0 and found.boxes.isfinite().all()


def test_a_state_saved_before_the_modules_moved_can_be_resumed():
    state, note = checkpoint.load(SAVED)
    assert note == "" and state["step"] == 2 and state["optimizer"]["state"]


def refused(error, code=Exit.CHECKPOINT):
    assert error.value.code == code
    return str(error.value)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("page.pth", b"<!DOCTYPE html><html>Quota exceeded", "web page"),
        ("torso.pth", b"PK\x03\x04torso", "broken"),
        ("empty.pt", b"", "broken"),
        ("list.pth", pickle.dumps([1, 2], 2), "not a checkpoint of vfnet_edu|broken"),
        ("liar.safetensors", b"\xff" * 8 + b"{}", "not a readable safetensors"),
        ("bare.safetensors", safetensors_bytes({"a": torch.zeros(1)}), "no recipe inside"),
        ("half.safetensors", safetensors_bytes({"a": torch.zeros(1)}, {"recipe": "{", "classes": "[]"}), "no recipe"),
        (
            "other.safetensors",
            safetensors_bytes({"a": torch.zeros(1)}, {"recipe": "[]", "classes": "[]"}),
            "recipe ins",
        ),
    ],
)
def test_what_is_no_checkpoint(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        zoo.load(tmp_path / name)
    assert name in refused(error)


@pytest.mark.parametrize(
    "content, message",
    [
        ([1, 2], "no recipe inside"),
        ({"recipe": {}, "classes": 3, "model": {}}, "no recipe inside"),
        ({"recipe": {}, "classes": [], "model": {"a": 1}}, "no weights inside"),
        ({"recipe": {}, "classes": [], "model": {}}, "the recipe inside cannot be read"),
        ({"recipe": {"name": "x", "size": 3}, "classes": [], "model": {}}, "unknown setting 'size'"),
    ],
)
def test_whole_files_with_something_else_inside(tmp_path, content, message):
    torch.save(content, tmp_path / "last.pt")
    for what in (tmp_path, tmp_path / "last.pt"):
        with pytest.raises(UserError, match=message) as error:
            zoo.load(what)
        assert "last.pt" in refused(error)


def test_no_file_and_no_run(tmp_path):
    for path in (tmp_path, tmp_path / "no.pt"):
        with pytest.raises(UserError) as error:
            zoo.load(path)
        assert str(path) in refused(error)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_inside_a_file_is_never_run(tmp_path):
    torch.save({"state_dict": {}, "meta": Payload(tmp_path / "ran")}, tmp_path / "evil.pth")
    for read in (zoo.load, load_mmdet):
        with pytest.raises(UserError, match="holds more than weights"):
            read(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_keys_that_do_not_fit_are_named(model):
    state = model.state_dict()
    del state["head.box_out.bias"]
    state["neck.other"] = torch.zeros(1)
    state["head.score_out.bias"] = torch.zeros(9)
    with pytest.raises(UserError) as error:
        ours.load_state(model, state, "there.pt")
    text = refused(error)
    assert "keys missing (1): head.box_out.bias" in text and "keys unexpected (1): neck.other" in text
    assert "head.score_out.bias (9,) for (5,)" in text and "there.pt" in text


def test_values_that_are_no_numbers(model):
    state = model.state_dict()
    state["head.box_gain"] = torch.tensor([1.0, torch.nan, 1, 1, 1])
    with pytest.raises(UserError, match="head.box_gain holds NaN"):
        ours.load_state(model, state, "sick.pt")


@pytest.mark.parametrize("name", ["vfnet", "retinanet", "reppoints"])
def test_other_classes_start_the_last_layers_anew_and_say_so(name, caplog):
    model = build(small(name), CLASSES).eval()
    with caplog.at_level(logging.WARNING):
        changed = ours.change_classes(model, ("cell", "bead"))
    assert changed.classes == ("cell", "bead") and changed.recipe.head.classes == 2 and not changed.training
    assert "2 classes instead of 5: head.score_out.bias, head.score_out.weight start fresh" in caplog.text
    mine, theirs = changed.state_dict(), model.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine if not k.startswith("head.score_out"))
    assert mine["head.score_out.bias"].mean() == pytest.approx(-4.59512, abs=1e-4)


# ------------------------------------------------------------------ the authors'
@pytest.mark.parametrize("name", HEADS)
def test_there_and_back(name):
    model = build(small(name))
    theirs = to_mmdet(model.state_dict())
    assert same(from_mmdet(theirs), model.state_dict())
    assert same(from_mmdet({f"module.{k}": v for k, v in theirs.items()}), model.state_dict())
    one_axis = {k: v.reshape(1) if k.endswith(".scale") else v for k, v in theirs.items()}
    assert same(from_mmdet(one_axis), model.state_dict())


@pytest.mark.parametrize("name", ["vfnet_dcn", "vfnet_r2", "vfnetx"])
def test_offset_predictors_of_old_files(name):
    model = build(small(name))
    old = {}
    for key, value in to_mmdet(model.state_dict()).items():
        old[key.replace(".conv_offset.", "_offset.")] = value
    assert any("conv2_offset" in k or "convs.0_offset" in k for k in old)
    assert any("cls_convs.1.conv_offset" in k for k in old)
    assert same(from_mmdet(old), model.state_dict())


def test_old_names_of_foveabox():
    model = build(small("foveabox"))
    theirs = {k.replace("head.conv_", "head.fovea_"): v for k, v in to_mmdet(model.state_dict()).items()}
    assert "bbox_head.fovea_reg.weight" in theirs and same(from_mmdet(theirs), model.state_dict())


def test_foreign_keys_are_named():
    theirs = to_mmdet(build(small("atss")).state_dict())
    with pytest.raises(UserError, match="rpn_head.conv.weight"):
        from_mmdet(theirs | {"rpn_head.conv.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="no head that we know"):
        from_mmdet({"backbone.conv1.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="head.extra"):
        to_mmdet(build(small("atss")).state_dict() | {"head.extra": torch.zeros(1)})


def test_what_their_files_hold_beside_weights(tmp_path, monkeypatch):
    """numpy scalars of the evaluation hook (2.x), loss curves as objects (3.x); classes under either name."""
    state = to_mmdet(build(small("vfnet")).state_dict())
    two = {"CLASSES": CLASSES, "epoch": 3, "hook_msgs": {"best_score": np.float64(0.4), "n": np.int64(3)}}
    torch.save({"meta": two, "state_dict": state, "optimizer": {"state": {}}}, tmp_path / "two.pth")

    module = types.ModuleType("mmengine.logging.history_buffer")
    exec(  # a module that is only there while the file is written
        "class HistoryBuffer:\n"
        "    def __getstate__(self): return {'log': self.log, 'statistics_methods': {'min': HistoryBuffer.min}}\n"
        "    def min(self): pass\n",
        module.__dict__,
    )
    module.HistoryBuffer.__module__ = module.__name__
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    curve = module.HistoryBuffer()
    curve.log = np.arange(4, dtype=np.float32)
    three = {"meta": {"dataset_meta": {"classes": list(CLASSES)}}, "message_hub": {"loss": curve}, "state_dict": state}
    torch.save(three, tmp_path / "three.pth")
    monkeypatch.undo()

    for name in ("two.pth", "three.pth"):
        found, classes, _ = read_mmdet(tmp_path / name)
        assert classes == CLASSES and same(found, state)
    for name, content in (("bare.pth", state), ("model.pth", {"model": state})):
        torch.save(content, tmp_path / name)
        found, classes, _ = read_mmdet(tmp_path / name)
        assert classes is None and same(found, state)
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(UserError, match="no state dict inside"):
        read_mmdet(tmp_path / "none.pth")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_second_set_of_an_ema_hook(rows, tmp_path, caplog, prefix):
    """Version 2 writes the averages under the usual names, and what was trained as `ema_backbone_...`."""
    state, path = to_mmdet(build(rows["small_atss"], CLASSES).state_dict()), tmp_path / "ema.pth"
    second = {f"ema_{k.replace('.', '_')}": v + 1 for k, v in state.items()}
    assert "ema_backbone_conv1_weight" in second and "ema_bbox_head_scales_0_scale" in second
    torch.save({"state_dict": {prefix + k: v for k, v in (state | second).items()}}, path)
    model, _ = load_mmdet(path)
    assert same(to_mmdet(model.state_dict()), state)
    assert f"{path}: {len(second)} keys of an EMA hook (ema_backbone_...) dropped" in caplog.text

    torch.save(state | {"ema_backbone_conv9_weight": torch.zeros(1)}, path)  # of no weight that is there
    with pytest.raises(UserError, match="ema_backbone_conv9_weight"):
        load_mmdet(path)


def test_convert(rows, tmp_path, capsys):
    model = build(rows["small_vfnet"], CLASSES)
    path = tmp_path / "epoch_24.pth"
    state = {k: v for k, v in to_mmdet(model.state_dict()).items() if not k.endswith("num_batches_tracked")}
    torch.save({"meta": {"CLASSES": CLASSES}, "state_dict": state}, path)
    convert.main([str(path)])
    said = capsys.readouterr().out
    assert "fits small_vfnet, small_focal" in said and "small_vfnet, 5 classes" in said
    recipe, again = zoo.load(path.with_suffix(".safetensors"))
    assert recipe == model.recipe and again.classes == CLASSES and same(again.state_dict(), model.state_dict())

    convert.main([str(path), "--recipe", "small_focal", "--out", str(tmp_path / "mine.safetensors")])
    assert "fits" not in capsys.readouterr().out
    assert zoo.load(tmp_path / "mine.safetensors")[0].name == "small_focal"

    convert.main([str(tmp_path / "mine.safetensors"), "--to-mmdet"])
    back = torch.load(tmp_path / "mine.pth", weights_only=True)
    assert same(back["state_dict"], to_mmdet(model.state_dict()))
    assert back["meta"]["CLASSES"] == back["meta"]["dataset_meta"]["classes"] == CLASSES


def test_convert_of_another_architecture(rows, tmp_path):
    """What differs, and the command that works, if there is one."""
    path = tmp_path / "his.pth"
    torch.save(to_mmdet(build(rows["small_vfnet"], CLASSES).state_dict()), path)
    with pytest.raises(UserError) as error:
        convert.main([str(path), "--recipe", "small_retinanet"])
    text = refused(error)
    assert "keys missing (6): head.cls_tower.0.conv.bias" in text and "keys unexpected (" in text
    assert "of another shape (3)" in text and "head.score_out.bias (5,) for (45,)" in text
    assert f"python -m vfnet_edu.convert {path} --recipe small_vfnet" in text

    deeper = replace(rows["small_vfnet"], head=replace(rows["small_vfnet"].head, depth=3))
    torch.save(to_mmdet(build(deeper, CLASSES).state_dict()), path)
    with pytest.raises(
        UserError, match="nearest recipe small_vfnet: keys unexpected .6.: .*no recipe has these keys"
    ) as error:
        convert.main([str(path)])
    with pytest.raises(UserError, match="small_retinanet"):
        convert.main([str(path), "--recipe", "no_such_recipe"])


def test_the_nearest_recipe_has_the_same_head(rows, tmp_path, monkeypatch):
    """Though another one has fewer keys that differ: those of a deeper backbone are many."""
    deep = replace(rows["small_vfnet"].backbone, blocks=(3, 3, 3, 3))
    rows["small_deep"] = replace(rows["small_vfnet"], name="small_deep", backbone=deep)
    monkeypatch.setattr(recipes, "small_deep", lambda: rows["small_deep"], raising=False)
    path = tmp_path / "deep.pth"
    for name in ("retinanet", "atss", "foveabox"):
        torch.save(to_mmdet(build(replace(rows[f"small_{name}"], backbone=deep), CLASSES).state_dict()), path)
        with pytest.raises(UserError) as error:
            convert.main([str(path)])
        text = refused(error)
        assert f"nearest recipe small_{name}: keys unexpected (" in text and "backbone.layer1.1" in text
        assert "head." not in text and "missing" not in text


@pytest.mark.parametrize("name", ["vfnet", "retinanet"])
def test_classes_of_a_file_that_does_not_name_them(rows, tmp_path, name):
    recipe, path = rows[f"small_{name}"], tmp_path / "bare.pth"
    for count, expected in ((80, COCO), (3, ("class 0", "class 1", "class 2"))):
        torch.save(to_mmdet(build(recipe, tuple("x" * count)).state_dict()), path)
        assert load_mmdet(path)[0].classes == expected
    wrong = {"meta": {"CLASSES": COCO}, "state_dict": torch.load(path, weights_only=True)}  # left over from a template
    torch.save(wrong, path)
    assert load_mmdet(path)[0].classes == expected


# ------------------------------------------------------------------ what their configs say
CONFIG = """
dataset_type = 'CocoDataset'
img_norm_cfg = dict(
    mean={mean}, std={std}, to_rgb={rgb})
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', img_scale=[(1333, 640), (1333, 800)], keep_ratio=True),
    dict(type='Normalize', **img_norm_cfg),
]
test_pipeline = [
    dict(type='MultiScaleFlipAug', transforms=[dict(type='Normalize', mean={mean}, std={std}, to_rgb={rgb})]),
]
model = dict(
    type='{model}',
    backbone=dict(type='ResNet', depth=50, frozen_stages=-1, style='{style}', norm_cfg=dict(type='BN'),
        norm_eval={norm_eval}),
    bbox_head=dict(type='{head}', bbox_coder=dict(target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2])),
    test_cfg=dict({{'nms.type': 'nms', 'pattern': '\\d+'}}))
optimizer = dict(type='SGD', lr=0.02 / 4, paramwise_cfg=dict(custom_keys={{'backbone': dict(lr_mult=0.1)}}))
"""
USUAL = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "rgb": True, "style": "pytorch"}
CAFFE = {"mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "rgb": False, "style": "caffe"}
TYPES = {"retinanet": ("RetinaNet", "RetinaHead"), "atss": ("ATSS", "ATSSHead"), "vfnet": ("VFNet", "VFNetHead")}


def config_text(name, **changes):
    model, head = TYPES[name]
    return CONFIG.format(**{"model": model, "head": head, "norm_eval": True, **USUAL, **changes})


def theirs_with(path, recipe, meta, **beside):
    """One of their checkpoints, of a small model, with `meta`"""
    state = to_mmdet(build(recipe, CLASSES).state_dict())
    torch.save({"meta": {"CLASSES": CLASSES, **meta}, "state_dict": state, **beside}, path)
    return path


@pytest.mark.parametrize("name", TYPES)
def test_a_config_that_agrees_is_no_obstacle(rows, tmp_path, name):
    for meta in ({"config": config_text(name)}, {"cfg": config_text(name)}, {"config": "not ( Python"}, {"config": 3}):
        model, names = load_mmdet(theirs_with(tmp_path / "theirs.pth", rows[f"small_{name}"], meta))
        assert names[0] == f"small_{name}" and model.classes == CLASSES


@pytest.mark.parametrize(
    "name, changes, said",
    [
        ("retinanet", CAFFE, ["style='caffe', not 'pytorch'", "BGR, mean [103.53, 116.28, 123.675], std [1.0, 1.0, 1"]),
        ("retinanet", {"style": "caffe"}, ["its backbone has style='caffe'"]),
        ("vfnet", {**CAFFE, "style": "pytorch"}, ["image normalisation is BGR", "not RGB, mean [123.675, 116.28"]),
        ("vfnet", {"norm_eval": False}, ["its backbone has norm_eval=False, not True"]),
        ("retinanet", {"head": "FreeAnchorRetinaHead"}, ["its head is FreeAnchorRetinaHead, not RetinaHead"]),
        ("atss", {"model": "PAA", "head": "PAAHead"}, ["its model is PAA, not ATSS", "its head is PAAHead, not ATSSH"]),
        ("atss", {"model": "mmdet.models.detectors.paa.PAA", "head": "mmdet.PAAHead"}, ["its model is PAA", "PAAHead"]),
    ],
)
def test_same_keys_but_another_model(rows, tmp_path, name, changes, said):
    """`convert` refuses what would otherwise become another row without a word."""
    text = config_text(name, **changes)
    hub = {"runtime_info": {"cfg": text}}
    for meta, beside in (({"config": text}, {}), ({"cfg": text}, {}), ({}, {"message_hub": hub})):
        path = theirs_with(tmp_path / "theirs.pth", rows[f"small_{name}"], meta, **beside)
        for options in ([], ["--recipe", f"small_{name}"]):
            with pytest.raises(UserError) as error:
                convert.main([str(path), *options])
            text = refused(error)
            assert f"small_{name}" in text and str(path) in text and "\n" not in text
            assert all(part in text for part in said), text
        assert not path.with_suffix(".safetensors").exists()


def test_normalisation_of_either_version():
    """3.x says `bgr_to_rgb`, and without it leaves the order that OpenCV reads: BGR."""
    recipe, mean, std = small("atss"), USUAL["mean"], USUAL["std"]
    for preprocessor, count in (("bgr_to_rgb=True", 0), ("bgr_to_rgb=False", 1), ("pad_size_divisor=32", 1)):
        step = f"dict(type='DetDataPreprocessor', mean={mean}, std={std}, {preprocessor})"
        config = read_config(f"model = dict(type='ATSS', data_preprocessor={step})")
        assert len(disagreements(config, recipe)) == count, preprocessor
    caffe = replace(recipe, backbone=replace(recipe.backbone, style="caffe"))
    config = read_config("model = dict(type='ATSS', backbone=dict(style='caffe'))")
    assert not disagreements(config, caffe) and disagreements(config, recipe)
    config = read_config(
        f"norm = dict(mean={CAFFE['mean']}, std={CAFFE['std']}, to_rgb=False)\nmodel = dict(type='ATSS')"
    )
    assert "BGR" in disagreements(config, recipe)[0]


def test_configs_are_parsed_and_never_run(tmp_path):
    path = tmp_path / "ran"
    text = (
        f"x = open({str(path)!r}, 'w')\nmodel = dict(type=str(open({str(path)!r}, 'w')), neck=[x, {{**x, 'a': (1,)}}])"
    )
    assert read_config(text) == {"x": None, "model": {"type": None, "neck": [None, {"a": [1]}]}}
    assert not path.exists()
    doubling = "a0 = dict(mean=1)\n" + "\n".join(f"a{i + 1} = [a{i}, a{i}]" for i in range(60))
    assert disagreements(read_config(doubling + "\nmodel = dict(x=a60)"), small("atss")) == []
    assert read_config("x = " + "(" * 5000) == read_config("\0") == {}


# ------------------------------------------------------------------ ImageNet's
def test_backbones_of_torchvision_and_caffe(tmp_path):
    for style in ("pytorch", "caffe"):
        recipe = small("vfnet_dcn")
        model = build(replace(recipe, backbone=replace(recipe.backbone, style=style)))
        state = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in model.backbone.state_dict().items()}
        file = {k: v.half() if v.is_floating_point() else v for k, v in state.items() if "conv_offset" not in k}
        torch.save(file | {"fc.weight": torch.zeros(2, 2)}, tmp_path / "r.pth")
        imagenet.load_backbone(model, str(tmp_path / "r.pth"))
        found = model.backbone.state_dict()
        first = found["conv1.weight"] / (torch.tensor(STD).view(1, 3, 1, 1) if style == "caffe" else 1)
        close(first, file["conv1.weight"].float())
        close(found["layer3.0.bn2.running_mean"], file["layer3.0.bn2.running_mean"].float())
        assert found["layer3.0.conv2.conv_offset.weight"].abs().sum() == 0  # ImageNet knows no offsets


@pytest.mark.parametrize("folded", [False, True], ids=["statistics", "folded"])
def test_a_backbone_of_the_other_style_is_noticed(tmp_path, caplog, folded):
    """By the strength of its first layer: the images of caffe are 57 times as strong."""
    recipe, path = small("vfnet"), tmp_path / "r.pth"
    state = build(recipe).backbone.state_dict()
    state["bn1.running_var"] += 1
    for made in ("pytorch", "caffe"):
        content = dict(state)
        if made == "caffe":
            content["bn1.running_var"] = state["bn1.running_var"] * 57**2
        if folded:
            content["bn1.weight"] = content["bn1.weight"] / content["bn1.running_var"].sqrt()
            content["bn1.running_var"] = torch.ones_like(content["bn1.running_var"])
        torch.save(content, path)
        for style in ("pytorch", "caffe"):
            caplog.clear()
            model = build(replace(recipe, backbone=replace(recipe.backbone, style=style)))
            said = imagenet.load_backbone(model, str(path))
            assert said == f"backbone: {len(state)} tensors of {path}, in {style} style"
            warning = f"{path} looks like weights in {made} style, and was loaded in {style} style"
            assert (warning in caplog.text) == (made != style), caplog.text
    assert imagenet.load_backbone(build(recipe), "none") == ""


def test_backbones_of_res2net_under_all_names(tmp_path):
    model = build(small("vfnet_r2"))
    state = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in model.backbone.state_dict().items()}
    state = {k: v for k, v in state.items() if "conv_offset" not in k}
    timm = {}
    for key, value in state.items():
        timm["bn1." + key[7:] if key.startswith("stem.7.") else key.replace("stem.", "conv1.")] = value
    for content in (state, timm, {"state_dict": timm}):
        torch.save(content, tmp_path / "r2.pth")
        fresh = build(small("vfnet_r2"))
        imagenet.load_backbone(fresh, str(tmp_path / "r2.pth"))
        close(fresh.backbone.stem[7].weight.detach(), state["stem.7.weight"])
        close(fresh.backbone.layer4[0].convs[2].weight.detach(), state["layer4.0.convs.2.weight"])


def test_backbones_that_do_not_fit(model, tmp_path):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    imagenet.load_backbone(model, "none")
    assert same(before, model.state_dict())
    with pytest.raises(UserError, match="no published ImageNet weights"):
        imagenet.load_backbone(model, "imagenet")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "r.pth")
    with pytest.raises(UserError, match="keys missing"):
        imagenet.load_backbone(model, str(tmp_path / "r.pth"))
    with pytest.raises(UserError, match="no such file"):
        imagenet.load_backbone(model, str(tmp_path / "no.pth"))
    caffe = build(replace(model.recipe, backbone=replace(model.recipe.backbone, style="caffe")))
    for content in ([1], {"state_dict": 3}, {1: torch.zeros(1)}):
        torch.save(content, tmp_path / "r.pth")
        for detector in (model, caffe):
            with pytest.raises(UserError, match="keys missing"):
                imagenet.load_backbone(detector, str(tmp_path / "r.pth"))
