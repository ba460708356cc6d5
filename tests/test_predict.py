"""Prediction on files: original pixels, nothing lost to one bad file, nothing overwritten."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from vfnet_edu.inference import detect
from vfnet_edu.postprocess import Candidates, DetectConfig
from vfnet_edu.predict import main
from vfnet_edu.runtime.errors import Exit, UserError, cli


class Square(torch.nn.Module):
    """Finds the red square, in the pixels it is given; its second class is always there, and always unlikely."""

    classes, mean = ("square", "other"), torch.zeros(3, 1, 1)
    recipe = SimpleNamespace(data=SimpleNamespace(test_scale=(200, 120)), detect=DetectConfig())

    def raw(self, images):
        assert not self.training and not torch.is_grad_enabled()
        (image,) = images
        assert image.dtype == torch.uint8 and max(image.shape[1:]) <= 200
        return image

    def candidates(self, image, images):
        rows, columns = ((image[0] > 150) & (image[1] < 90)).nonzero().unbind(1)
        if not len(rows):
            return Candidates(torch.zeros(1, 0, 2), torch.zeros(1, 0, 4), [0])
        box = torch.tensor([[[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]]).float()
        return Candidates(torch.tensor([[[0.9, 0.1]]]), box, [1])


def scene(x=20, y=10):
    image = np.full((60, 80, 3), 200, np.uint8)
    image[y : y + 20, x : x + 30] = (220, 20, 20)
    return image


@pytest.fixture
def checkpoint(monkeypatch):
    monkeypatch.setattr("vfnet_edu.predict.zoo.load", lambda path, device: (Square.recipe, Square().eval()))
    return "any.safetensors"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(scene()).save(folder / "a b#ü.png")
    Image.fromarray(scene(40, 30)).save(folder / "c.webp", lossless=True)
    (folder / "notes.txt").write_text("no image")
    return folder


def run(*args):
    """The command as a shell sees it -> exit code"""
    try:
        cli(main, [str(arg) for arg in args])
    except SystemExit as end:
        return end.code
    return 0


def test_detect_answers_in_pixels_of_the_given_image(photos):
    model = Square().train()
    tensor = torch.from_numpy(scene()).permute(2, 0, 1)
    for image in (scene(), tensor, Image.fromarray(scene()), photos / "a b#ü.png"):
        found = detect(model, image)
        torch.testing.assert_close(found.boxes[0], torch.tensor([20.0, 10, 50, 30]), atol=0.6, rtol=0)
    assert model.training


def test_folder(checkpoint, photos, tmp_path, capsys):
    assert run(checkpoint, photos, "--out", tmp_path / "out") == 0
    results = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [(r["image_id"], r["category"], r["file_name"]) for r in results] == [
        (1, "square", "a b#ü.png"),
        (2, "square", "c.webp"),
    ]
    assert results[1]["bbox"] == pytest.approx([40, 30, 30, 20], abs=0.6)
    assert Image.open(tmp_path / "out" / "a b#ü.png").size == (640, 480)  # small pictures are enlarged
    assert (tmp_path / "out" / "c.webp.png").exists()
    assert "1 square" in capsys.readouterr().out


def test_one_bad_image_does_not_lose_the_others(checkpoint, photos, tmp_path, capsys):
    whole = (photos / "a b#ü.png").read_bytes()
    (photos / "b.png").write_bytes(whole[: len(whole) // 2])
    assert run(checkpoint, photos, "--out", tmp_path / "out") == Exit.DATA
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("skipped: ") and "b.png" in errors[0]
    assert errors[-1] == "error: 1 of 3 images could not be read: b.png" and len(errors) == 2
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())) == 2


def test_score_threshold(checkpoint, photos, tmp_path):
    assert run(checkpoint, photos / "c.webp", "--out", tmp_path / "out", "--min-score", "0.05") == 0
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())) == 2


def test_video(checkpoint, tmp_path):
    source = tmp_path / "in.avi"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"MJPG"), 10, (80, 60))
    for n in range(5):
        writer.write(cv2.cvtColor(scene(10 + 8 * n), cv2.COLOR_RGB2BGR))
    writer.release()
    assert run(checkpoint, source, "--out", tmp_path / "out") == 0
    results = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [r["image_id"] for r in results] == [1, 2, 3, 4, 5]
    assert results[4]["bbox"][0] == pytest.approx(42, abs=2)
    capture = cv2.VideoCapture(str(tmp_path / "out" / "in.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10) and capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jpg", None, "no such file"),
        ("clip.mp4", b"no video", "neither an image nor a video"),
        ("empty", "folder", "no image in this folder"),
    ],
)
def test_bad_inputs_are_one_clear_line(checkpoint, tmp_path, capsys, name, content, message):
    path = tmp_path / "in" / name
    path.parent.mkdir()
    if content == "folder":
        path.mkdir()
    elif content:
        path.write_bytes(content)
    assert run(checkpoint, path, "--out", tmp_path / "out") == Exit.DATA
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error and name in error


def test_inputs_are_never_overwritten(checkpoint, photos):
    before = (photos / "c.webp").read_bytes()
    assert run(checkpoint, photos, "--out", photos) == Exit.USAGE
    assert run(checkpoint, photos / "c.webp", "--out", photos) == Exit.USAGE
    assert (photos / "c.webp").read_bytes() == before


def test_unreadable_image_in_the_library(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match="x.jpg"):
        detect(Square(), tmp_path / "x.jpg")
