"""A size for any recipe, what a small one loses, and the command that fits a data set: reasons and times."""

import dataclasses
import json
import re
import shlex

import numpy as np
import pytest
import torch
from test_yolo import label, picture

from vfnet_edu import check, evaluate, predict, recipes, train
from vfnet_edu.data.annotations import read_split
from vfnet_edu.data.coco import read_coco
from vfnet_edu.data.paths import find_dataset
from vfnet_edu.data.transforms import AugmentConfig, augment, generator, resized_size
from vfnet_edu.recipe import at_size
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.training import advice
from vfnet_edu.weights import zoo

CPU = torch.device("cpu")


def photographs(folder, count=4, size=(500, 400), side=0.1):
    """Square objects whose sides are `side` of the width."""
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    for i in range(count + 1):
        name = f"val/{i}" if i == count else f"train/{i}"
        picture(folder / f"images/{name}.jpg", size)
        label(folder / f"labels/{name}.txt", f"0 0.5 0.5 {side} {side * size[0] / size[1]}\n")
    return read_split(find_dataset(folder).train)


# ---- --size ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vfnet_small", "vfnet_r50_1x", "vfnet_r50_ms_2x", "vfnetx_r2_101_1200"])
def test_the_long_side_of_every_image(name):
    """Of any shape; a recipe of several scales keeps their ratio to the one that it is tested at."""
    base = recipes.by_name(name)
    recipe = at_size(base, 320)
    short, usual = np.array(base.data.augment.short_side), min(base.data.test_scale)
    for height, width in ((480, 640), (640, 480), (300, 300), (100, 900)):
        assert max(resized_size(height, width, recipe.data.test_scale)) == 320
        sides = set()
        for i in range(40):
            image, boxes, labels = np.zeros((height, width, 3), np.uint8), np.ones((1, 4), np.float32), np.zeros(1, int)
            quiet = AugmentConfig(recipe.data.augment.long_side, recipe.data.augment.short_side)
            sides.add(max(augment(quiet, generator(0, 0, i), image, boxes, labels)[0].shape))
        low, high = np.round(320 * short / usual)
        assert low <= min(sides) and max(sides) <= high and (low == high or len(sides) > 5)


@pytest.mark.parametrize("size", [-1, 31, 5000])
def test_sizes_that_make_no_sense(size):
    with pytest.raises(UserError, match=f"--size {size}: images have 32 to 4096"):
        train.main(["--size", str(size), "--print"])


def test_one_way_to_say_it(capsys):
    with pytest.raises(UserError, match="--size and single lengths") as caught:
        train.main("vfnet_r50_1x --size 320 --data.test-scale 640 640 --print".split())
    assert caught.value.code == Exit.USAGE
    train.main("vfnet_r50_1x --size 320 --print".split())
    starred = [line for line in capsys.readouterr().out.splitlines() if line.startswith("*")]
    assert len(starred) == 3 and all("320, 320" in line for line in starred)


# ---- What is lost ----------------------------------------------------------------------------------------------------


def test_a_small_recipe_says_what_it_loses(tmp_path):
    """At 128 pixels an object of 25 of 500 pixels has 6.4, less than a cell of 8; at 192 it has 9.6."""
    index = photographs(tmp_path, side=0.05)
    assert np.allclose(advice.cells(recipes.vfnet_small(), index), 25 * 128 / 500 / 8)
    said = advice.what_is_lost(recipes.vfnet_small(), index)
    assert said.startswith("images of 500 x 400 pixels become 128 x 102: 100 % of the objects are then smaller than a")
    assert "at --size 160 0 %" in said
    assert advice.what_is_lost(at_size(recipes.vfnet_small(), 192), index) == ""


# ---- Advice ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "wanted"),
    [
        (0.2, ()),  # 25.6 pixels at 128
        (0.06, ("--size", "320")),  # 19.2 pixels; 15.4 at 256
        (0.01, ("--size", "512")),  # never two cells: the photographs' own size
    ],
)
def test_the_smallest_size_that_shows_the_objects(tmp_path, side, wanted):
    advised = advice.advise(photographs(tmp_path, side=side), None, CPU, measure=False)
    assert advised.options == ("vfnet_small", *wanted, "--optim.epochs", "100")
    assert "no GPU" in advised.reasons[0][1] and "100 in all: very few images" in advised.reasons[2][1]


def test_photographs_larger_than_any_size(tmp_path):
    index = photographs(tmp_path, side=0.06)
    large = dataclasses.replace(index, widths=index.widths * 20, heights=index.heights * 20, xywh=index.xywh * 20)
    advised = advice.advise(large, None, CPU, measure=False)
    assert advised.options[1:3] == ("--size", "320") and "0 % at 4096" in advised.reasons[1][1]


def test_enough_steps(tmp_path):
    index = photographs(tmp_path, side=0.2)
    many = index.select(np.arange(4).repeat(75))  # 300 images: 38 steps of 8
    assert advice.advise(many, None, CPU, measure=False).options == ("vfnet_small", "--optim.epochs", "24")
    plenty = index.select(np.arange(4).repeat(500))
    assert advice.advise(plenty, None, CPU, measure=False).options == ("vfnet_small",)


def test_with_a_gpu(tmp_path):
    index = photographs(tmp_path).select(np.arange(4).repeat(75))
    advised = advice.advise(index, None, torch.device("cuda"), measure=False)
    drops = ("--optim.epochs", "48", "--optim.drop-at", "32", "44")
    assert advised.options == ("vfnet_r50_1x", "--size", "512", *drops)
    large = photographs(tmp_path, size=(2000, 1500))
    assert advice.advise(large, None, torch.device("cuda"), measure=False).options[:2] == ("vfnet_r50_1x", drops[0])


def test_the_time_adds_up(tmp_path, monkeypatch):
    """A second per image to learn, a tenth to answer: 100 epochs, an evaluation every third."""
    index = photographs(tmp_path, side=0.2)
    speed = advice.Speed(load=0.0, learn=1.0, answer=0.1, images=4, threads=2)
    monkeypatch.setattr(advice, "measure_speed", lambda *_: speed)
    said = advice.advise(index, index, CPU).reasons[-1]
    seconds = 4 * (100 - 4 * (1 - 0.75**2)) + 34 * 4 * 0.1
    assert (
        said[0] == "time"
        and f"about {seconds / 60:.0f} minutes, an estimate: a step of 4 images took 4.00 s" in said[1]
    )
    monkeypatch.setattr(advice, "measure_speed", lambda *_: (_ for _ in ()).throw(RuntimeError("not enough memory")))
    assert "not known, a step failed: not enough memory" in advice.advise(index, None, CPU).reasons[-1][1]


def test_a_step_is_measured(tmp_path, one_thread):
    index = photographs(tmp_path, size=(64, 64))
    state = torch.random.get_rng_state()
    speed = advice.measure_speed(at_size(recipes.vfnet_tiny(), 64), index, CPU)
    assert 0 < speed.answer and 0 < speed.learn < 10 and (speed.images, speed.threads) == (4, 1)
    assert torch.equal(torch.random.get_rng_state(), state)


# ---- The commands ----------------------------------------------------------------------------------------------------


def test_check_prints_a_command_that_runs(tmp_path, capsys):
    folder = tmp_path / "my photos"
    folder.mkdir()
    photographs(folder, side=0.06)
    check.main(
        [str(folder), "--no-estimate", "--json", str(tmp_path / "check.json"), "--html", str(tmp_path / "c.html")]
    )
    said = capsys.readouterr().out
    (command,) = re.findall(r"  python -m vfnet_edu.train (.*)", said)
    assert command == f"vfnet_small --data '{folder}' --size 320 --optim.epochs 100"
    assert "objects smaller than a cell of 8 pixels" in said and "100 % at 128, 0 % at 320, 0 % at 512" in said
    assert json.loads((tmp_path / "check.json").read_text())["command"].endswith(command)
    assert "--size 320" in (tmp_path / "c.html").read_text()
    train.main([*shlex.split(command), "--print"])
    assert "test_scale" in capsys.readouterr().out


def test_the_json_of_every_split(tmp_path, capsys):
    photographs(tmp_path)
    out = tmp_path / "json"
    check.main([str(tmp_path), "--no-estimate", "--write-coco", str(out)])
    said = capsys.readouterr().out
    for split, count in (("train", 4), ("val", 1)):
        path = out / f"instances_{split}.json"
        assert f"wrote {path}; to use it: --{split}-json {path} --{split}-images {tmp_path}" in said
        index = read_coco(path, tmp_path)
        assert len(index) == count
        index.check_files()
    with pytest.raises(UserError, match="instances_train.json exists already") as caught:
        check.main([str(tmp_path), "--no-estimate", "--write-coco", str(out)])
    assert caught.value.code == Exit.BUSY


def test_a_broken_data_set_gets_no_advice(tmp_path, capsys):
    photographs(tmp_path)
    (tmp_path / "images/train/0.jpg").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        check.main([str(tmp_path)])
    assert caught.value.code == Exit.DATA and "command to start from" not in capsys.readouterr().out


def test_a_run_remembers_its_size_and_where_its_data_came_from(tmp_path, capsys, one_thread):
    """A YOLO folder through train, evaluate and predict: the last two find the size in the checkpoint."""
    photographs(tmp_path, size=(96, 64), side=0.3)
    out = tmp_path / "run"
    tiny = (
        "--backbone.width 8 --neck.channels 32 --head.channels 32 --head.depth 1 --data.batch-size 4"
        " --data.images-per-gpu 4 --data.workers 0 --optim.epochs 1 --optim.precision fp32 --device cpu --size 64"
    ).split()
    train.main([*tiny, "--data", str(tmp_path / "data.yaml"), "--out", str(out)])
    said = capsys.readouterr().out
    assert "4 training images of 1 classes" in said and "1 validation images" in said
    recipe, model = zoo.load(out)
    assert recipe.data.test_scale == (64, 64) and recipe.data.augment.long_side == (64, 64)
    assert model.classes == ("cat",)
    with pytest.raises(UserError, match="data.test_scale"):
        train.main([*tiny[:-2], "--data", str(tmp_path), "--out", str(out), "--resume"])
    evaluate.main([str(out), "--data", str(tmp_path), "--workers", "0", "--device", "cpu"])
    predict.main([str(out), str(tmp_path / "images/val/4.jpg"), "--out", str(tmp_path / "drawn"), "--device", "cpu"])
    assert (tmp_path / "drawn/4.jpg").exists()
