"""Exported files: every system in its plain form, files beside their detectors, and the book's script without torch."""

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small import HEADS, small

import vfnet_edu as vf
from vfnet_edu import export
from vfnet_edu.data import shapes
from vfnet_edu.models.detector import build
from vfnet_edu.ops.dcn import by_grid_sample, deformable_conv2d
from vfnet_edu.runtime.errors import Exit, UserError

PAGE = Path(__file__).parent.parent / "book" / "export.md"
NO_TORCH = "import sys; sys.modules.update(torch=None, torchvision=None, vfnet_edu=None, cv2=None)\n"


@pytest.fixture(scope="session")
def tiny():
    return vf.load("vfnet_tiny")[1]


@pytest.fixture(scope="session")
def program(tiny):
    return export.trace(tiny)


@pytest.fixture(scope="session")
def onnx_file(tiny, program, tmp_path_factory):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "trace", lambda model: program)
        content, verdict = export.export(tiny)
    assert verdict["agrees"]
    path = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    path.write_bytes(content)
    return path


@pytest.fixture(scope="session")
def script(tmp_path_factory):
    """The script of the page, in front of it what makes `import torch` fail."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    (text,) = (block for block in blocks if "def nms" in block)
    lines = text.splitlines()
    assert len([line for line in lines if line.strip()]) <= 45 and max(map(len, lines)) <= 120
    path = tmp_path_factory.mktemp("script") / "detect.py"
    path.write_text(NO_TORCH + text)
    return path


def run(script, *args):
    done = subprocess.run([sys.executable, script, *args], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


# ------------------------------------------------------------------ the same numbers
@pytest.mark.parametrize("stride, groups, masked", [(1, 1, False), (1, 1, True), (2, 2, True)])
def test_plain_form_of_a_deformable_convolution(stride, groups, masked):
    x, weight = torch.randn(2, 8, 10, 14), torch.randn(6, 8 // groups, 3, 3)
    h, w = 10 // stride, 14 // stride
    offset, bias = torch.randn(2, 18, h, w) * 4, torch.randn(6)  # some samples lie outside
    mask = torch.rand(2, 9, h, w) if masked else None
    got = by_grid_sample(x, offset, weight, mask, stride, bias)
    torch.testing.assert_close(got, deformable_conv2d(x, offset, weight, mask, stride, bias), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_every_system_as_the_function_that_is_exported(name, monkeypatch):
    """Of one tensor, with folded norms and plain deformable convolutions; test_files exports some of them for real."""
    model = build(small(name)).eval()
    for conv_offset in (m for n, m in model.named_modules() if n.endswith("conv_offset")):
        torch.nn.init.normal_(conv_offset.weight, std=0.05)  # at first they move nothing
    function = export.Exportable(export.fold_norms(model))

    def plainly(images):
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_exporting", lambda: True)
            return function(images)

    monkeypatch.setattr(export, "runner", lambda content: plainly)
    verdict = export.verify(model, b"")
    assert verdict["agrees"], verdict


@pytest.mark.skipif(not os.environ.get("VFNET_EDU_EXPORT_ALL"), reason="minutes per file: set VFNET_EDU_EXPORT_ALL=1")
@pytest.mark.parametrize("to", ["onnx", "pt2"])
@pytest.mark.parametrize("name", HEADS)
def test_files(name, to):
    _, verdict = export.export(build(small(name)).eval(), to)
    assert verdict["agrees"], verdict


def test_a_program_of_torch_export(tiny, program, monkeypatch):
    loaded, load = [], export.runner  # loading takes long: once is enough
    monkeypatch.setattr(export, "trace", lambda model: program)
    monkeypatch.setattr(export, "runner", lambda content: loaded.append(load(content)) or loaded[0])
    content, verdict = export.export(tiny, "pt2")
    assert verdict["agrees"] and verdict["scores"] < 1e-5
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = (name for name in archive.namelist() if export.ABOUT in name)
        about = json.loads(archive.read(name))
    assert json.loads(about["classes"]) == list(tiny.classes) and json.loads(about["verified"])["agrees"]
    image = torch.randint(0, 256, (1, 3, 33, 47), dtype=torch.uint8)  # a batch of one, smaller than any that was tried
    scores, boxes = loaded[0](image)
    raw = tiny.candidates(tiny.raw(list(image)), list(image))
    torch.testing.assert_close(scores, raw.scores, rtol=0, atol=1e-4)
    assert boxes.min() >= 0 and boxes[..., 2].max() <= 47 and boxes[..., 3].max() <= 33


def test_a_file_says_what_it_is(tiny, onnx_file):
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_file)
    about = session.get_modelmeta().custom_metadata_map
    assert about["format"] == "vfnet_edu export 1" and json.loads(about["classes"]) == list(tiny.classes)
    before, verified = json.loads(about["preprocessing"]), json.loads(about["verified"])
    assert before["colours"] == "RGB" and before["mean"][0] == 123.675 and before["padding_divisor"] == 32
    assert (before["long_side"], before["short_side"]) == tuple(sorted(tiny.recipe.data.test_scale, reverse=True))
    assert verified["agrees"] and verified["scores"] <= 1e-4 and len(verified["sizes"]) == 3
    assert json.loads(about["recipe"])["name"] == tiny.recipe.name
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert [out.shape[:2] for out in session.get_outputs()] == [["batch", "predictions"]] * 2


# ------------------------------------------------------------------ the script of the page
@pytest.mark.parametrize("enlarged", [1, 1.5])
def test_the_script_detects_without_torch(tiny, onnx_file, script, tmp_path, enlarged):
    scene = Image.fromarray(shapes.draw_scene(seed=0, index=5)[0].permute(1, 2, 0).numpy())
    scene = scene.resize([int(side * enlarged) for side in scene.size])
    scene.save(tmp_path / "scene.png")
    code, said, complaint = run(script, onnx_file, tmp_path / "scene.png")
    assert code == 0, complaint
    wanted = vf.detect(tiny, tmp_path / "scene.png", min_score=0.3)
    lines = [line.split() for line in said.splitlines()]
    assert len(lines) == len(wanted.scores) > 0
    scores, sides = (
        np.array([[float(x) for x in line[part]] for line in lines]) for part in (slice(0, 1), slice(-4, None))
    )
    close = 0.011 if enlarged == 1 else 0.05  # printed with two digits; other rounding of grey levels
    np.testing.assert_allclose(scores[:, 0], wanted.scores, atol=close)
    np.testing.assert_allclose(sides, wanted.boxes, atol=0.1 if enlarged == 1 else 1.5)
    assert [" ".join(line[1:-4]) for line in lines] == [tiny.classes[k] for k in wanted.labels]


def test_the_script_refuses_other_files(script, tmp_path):
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "other", [value], [
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    ])  # fmt: skip
    other = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    for name, content in (("other.onnx", other.SerializeToString()), ("text.onnx", b"hello"), ("none.onnx", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        code, _, complaint = run(script, tmp_path / name, "nothing.jpg")
        assert (
            code == Exit.CHECKPOINT and len(complaint.splitlines()) == 1 and "not a detector of vfnet_edu" in complaint
        )


# ------------------------------------------------------------------ what may go wrong
def test_a_file_that_disagrees_is_refused(tiny, monkeypatch, tmp_path, capsys):
    other = build(tiny.recipe, tiny.classes).eval()  # fresh weights
    monkeypatch.setattr(export, "trace", lambda model: None)
    monkeypatch.setattr(export, "_Pt2", lambda program: SimpleNamespace(content=lambda about: b"what disagrees"))
    monkeypatch.setattr(export, "runner", lambda content: export.Exportable(other))
    out = tmp_path / "tiny.pt2"
    with pytest.raises(UserError, match="not exported: does not agree with PyTorch.*--force") as error:
        export.main(["vfnet_tiny", "--to", "pt2", "--out", str(out)])
    assert error.value.code == Exit.DIVERGED and not list(tmp_path.iterdir())
    export.main(["vfnet_tiny", "--to", "pt2", "--out", str(out), "--force"])
    assert out.read_bytes() == b"what disagrees" and "does not agree" in capsys.readouterr().out


def test_numbers_that_are_none_disagree(tiny, monkeypatch):
    monkeypatch.setattr(export, "runner", lambda content: lambda images: answers(images))

    def answers(images):
        raw = tiny.candidates(tiny.raw(list(images)), list(images))
        return raw.scores * float("nan"), raw.boxes

    assert not export.verify(tiny, b"")["agrees"]


def test_full_disk_and_missing_folder(tiny, monkeypatch, tmp_path):
    old = tmp_path / "tiny.pt2"
    old.write_bytes(b"old")
    monkeypatch.setattr(export, "export", lambda *_: (b"new", {}))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="could not write.*No space left.*another --out") as error:
            export.main(["vfnet_tiny", "--to", "pt2", "--out", str(old)])
    assert error.value.code == Exit.STORAGE and old.read_bytes() == b"old" and list(tmp_path.iterdir()) == [old]
    with pytest.raises(UserError, match="no such folder"):
        export.main(["vfnet_tiny", "--to", "pt2", "--out", str(tmp_path / "nowhere" / "tiny.pt2")])


def test_without_the_extra(monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"ONNX needs onnx, onnxscript, onnxruntime \(pip install 'vfnet_edu\[export\]'\)"
    ):
        export.main(["vfnet_tiny"])
