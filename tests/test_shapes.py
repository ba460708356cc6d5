"""ShapeScenes: a function of (seed, index), exact boxes, a folder that is whole or absent."""

import hashlib
import json
import multiprocessing
import os

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from vfnet_edu.data import shapes
from vfnet_edu.data.shapes import CLASSES, VAL_START, draw_scene, write_shape_scenes
from vfnet_edu.runtime.errors import Exit, UserError

SMALL = {"train": 5, "val": 3, "size": 64}


def test_scene_is_a_function_of_seed_and_index():
    image, target = draw_scene(3, 14)
    again, same = draw_scene(3, 14)
    assert image.dtype == torch.uint8 and image.shape == (3, 128, 128)
    assert torch.equal(image, again) and all(torch.equal(target[k], same[k]) for k in target)
    for other in (draw_scene(3, 15), draw_scene(4, 14)):
        assert not torch.equal(image, other[0])


def test_scene_is_the_same_on_every_machine():
    """The bytes of four scenes. Change these two lines only together with the drawing, and say so in the change log."""
    digest = hashlib.sha256(b"".join(draw_scene(0, index)[0].numpy().tobytes() for index in range(4))).hexdigest()
    assert digest[:16] == "c718bfef06562bbd"


def test_scene_is_the_same_picture_at_every_size():
    small, target = draw_scene(0, 2, 128)
    large, twice = draw_scene(0, 2, 256)
    assert torch.equal(target["labels"], twice["labels"])
    torch.testing.assert_close(twice["boxes"] / 2, target["boxes"], atol=1.5, rtol=0)
    halved = large.float().unflatten(1, (128, 2)).unflatten(3, (128, 2)).mean((2, 4))
    assert (halved - small.float()).abs().mean() < 3


@pytest.mark.parametrize("size", [128, (96, 160), 48])
def test_targets_are_well_formed(size):
    h, w = (size, size) if isinstance(size, int) else size
    for index in range(40):
        image, target = draw_scene(1, index, size)
        boxes, labels, areas = target["boxes"], target["labels"], target["areas"]
        assert image.shape == (3, h, w)
        assert boxes.dtype == torch.float32 and labels.dtype == torch.int64
        assert len(boxes) == len(labels) == len(areas) and 1 <= len(boxes) <= 7
        assert (boxes >= 0).all() and (boxes <= torch.tensor([w, h, w, h])).all()
        sides = boxes[:, 2:] - boxes[:, :2]
        assert (sides > 0).all() and (areas <= sides.prod(1)).all() and (areas >= 0.002 * h * w).all()
        assert 0 <= labels.min() and labels.max() < len(CLASSES)


def test_boxes_are_tight(monkeypatch):
    """Give every object a flat grey of its own: box and area are those of its grey, and enough of it is in sight."""
    drawn = []

    def flat(self, rng, canvas, *_):
        drawn.append(self)
        canvas[:, *self.window][:, self.inside] = 20 * len(drawn) / 255

    monkeypatch.setattr(shapes._Object, "paint", flat)
    monkeypatch.setattr(shapes, "_background", lambda rng, y, x, *_: np.zeros((3, len(y), x.size), np.float32))
    for index in range(30):
        drawn.clear()
        image, target = draw_scene(5, index)
        for k, (item, box, area) in enumerate(zip(drawn, target["boxes"], target["areas"], strict=True), start=1):
            rows, columns = torch.nonzero(image[0] == 20 * k, as_tuple=True)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert area == len(rows) >= shapes.LEAST_VISIBLE * item.full_area


def test_colour_does_not_tell_the_class():
    """Every class wears every kind of colour: class means of the colour under the objects are alike."""
    seen = {k: [] for k in range(len(CLASSES))}
    for index in range(250):
        image, target = draw_scene(2, index, 64)
        for (x1, y1, x2, y2), label in zip(target["boxes"].int().tolist(), target["labels"].tolist(), strict=True):
            seen[label].append(image[:, (y1 + y2) // 2, (x1 + x2) // 2].float())
    means = torch.stack([torch.stack(colours).mean(0) for colours in seen.values()])
    assert min(map(len, seen.values())) > 80  # the classes are about as frequent
    assert (means - means.mean(0)).abs().max() < 40  # of 255


# ------------------------------------------------------------------ one by one
@pytest.mark.parametrize("name", CLASSES)
def test_an_object_laid_on_a_ground_is_painted_there(name):
    """light + through * canvas is what painting does, to half a step of the 8 bits of each."""
    ground = shapes.draw_ground("wood", 3).float()
    sprite = shapes.draw_object(name, 3, 5, radius=0.17, stretch=1.2, turn=0.3)
    h, w = sprite.inside.shape
    assert sprite.light.shape == sprite.through.shape == (3, h, w) and max(h, w) < 128
    mine = sprite.light + sprite.through / 255 * ground[:, :h, :w]

    y = ((np.arange(256) + 0.5) / 128).astype(np.float32)[:, None]
    item = shapes._Object(CLASSES.index(name), 0.17, 1.2**0.5, 0.3, (1.0, 1.0), y, y.T, 128)
    canvas = np.zeros((3, 256, 256), np.float32)
    canvas[:, *item.window] = ground[:, :h, :w] / 255
    item.paint(shapes._stream(3, 5), canvas, 128, shapes.LAMP, shapes._colours(shapes._stream(3))[2])
    painted = torch.from_numpy(canvas[:, *item.window]).clamp(0, 1) * 255
    assert (mine.clamp(0, 255) - painted).abs().max() < 1.01
    assert torch.equal(sprite.inside, torch.from_numpy(item.inside)) and sprite.through[:, sprite.inside].max() < 129
    assert sprite.through[:, 0, 0].min() == 255  # beside the object and its shadow nothing changes


def test_a_ground_alone():
    pictures = [shapes.draw_ground(name, 3, 64) for name in shapes.GROUNDS]
    assert all(picture.shape == (3, 64, 64) and picture.dtype == torch.uint8 for picture in pictures)
    assert len({picture.numpy().tobytes() for picture in pictures}) == len(shapes.GROUNDS)
    assert torch.equal(pictures[0], shapes.draw_ground("gradient", 3, 64))


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="no class 'duck'"):
        shapes.draw_object("duck", 0, 0)
    with pytest.raises(UserError, match="no ground 'lava'"):
        shapes.draw_ground("lava", 0)


# ------------------------------------------------------------------ the folder
def test_folder_is_coco(tmp_path, capsys):
    folder = write_shape_scenes(tmp_path / "scenes", **SMALL, seed=7)
    for split, count, first in (("train", 5, 0), ("val", 3, VAL_START)):
        coco = COCO(str(folder / "annotations" / f"instances_{split}.json"))
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
        assert len(coco.imgs) == count == len(list((folder / split).iterdir()))
        for index, image_id in enumerate(coco.getImgIds(), start=first):
            info = coco.imgs[image_id]
            pixels = np.asarray(Image.open(folder / split / info["file_name"]))
            image, target = draw_scene(7, index, 64)
            assert pixels.shape == (info["height"], info["width"], 3)
            assert np.array_equal(pixels, image.permute(1, 2, 0).numpy())
            found = coco.loadAnns(coco.getAnnIds(image_id))
            boxes = torch.tensor([a["bbox"] for a in found])
            boxes[:, 2:] += boxes[:, :2]
            assert torch.equal(boxes, target["boxes"])
            assert [a["category_id"] - 1 for a in found] == target["labels"].tolist()
            assert [a["area"] for a in found] == target["areas"].tolist()


def test_same_specification_is_not_drawn_again(tmp_path, monkeypatch):
    folder = write_shape_scenes(tmp_path / "a" / "scenes", **SMALL)
    monkeypatch.setattr(shapes, "draw_scene", None)  # would fail if called
    assert write_shape_scenes(folder, **SMALL) == folder


def test_another_specification_replaces_the_set(tmp_path):
    folder = write_shape_scenes(tmp_path / "scenes", **SMALL)
    val = (folder / "val" / "000001.png").read_bytes()
    write_shape_scenes(folder, train=2, val=3, size=64)
    assert len(list((folder / "train").iterdir())) == 2
    assert (folder / "val" / "000001.png").read_bytes() == val  # as before: it does not depend on `train`
    assert sorted(p.name for p in tmp_path.iterdir()) == [".scenes.lock", "scenes"]


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds other files") as caught:
        write_shape_scenes(tmp_path / "mine", **SMALL)
    assert caught.value.code == Exit.DATA
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_interrupted_drawing_leaves_nothing_half_done(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shapes.json, "dumps", fail)
        with pytest.raises(UserError) as caught:
            write_shape_scenes(tmp_path / "scenes", **SMALL)
    assert caught.value.code == Exit.STORAGE and not (tmp_path / "scenes").exists()
    write_shape_scenes(tmp_path / "scenes", **SMALL)  # what was left over is swept away
    assert not (tmp_path / ".scenes.drawing").exists()


def _write(folder, start, results):
    start.wait()
    drawn = []
    draw = shapes.draw_scene
    shapes.draw_scene = lambda *key: drawn.append(key) or draw(*key)
    write_shape_scenes(folder, **SMALL)
    whole = len(json.loads((folder / "annotations" / "instances_train.json").read_text())["images"])
    results.put((os.getpid(), len(drawn), whole))


def test_concurrent_writers(tmp_path):
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()
    writers = [context.Process(target=_write, args=(tmp_path / "scenes", start, results)) for _ in range(3)]
    for writer in writers:
        writer.start()
    reports = [results.get(timeout=60) for _ in writers]
    for writer in writers:
        writer.join()
    assert sorted(drawn for _, drawn, _ in reports) == [0, 0, 8]  # one drew, the others waited
    assert all(whole == 5 for *_, whole in reports)
