"""The star convolution: against the authors' offsets, engine against engine in float64, and at the edges."""

import logging
import subprocess
import sys

import pytest
import torch
from recorded import Recording

from vfnet_edu.ops.star import embedding_bag, operator
from vfnet_edu.ops.star.operator import ENGINES, choose_engine, star_conv2d, star_conv2d_pyramid, star_offsets
from vfnet_edu.runtime.errors import UserError

CPU_ENGINES = ("reference", "torchvision", "embedding_bag")
STRIDE = 8
BOXES = {  # pixels, for a map of 5 x 7 cells of 8 pixels
    "random": lambda shape: torch.rand(shape) * 30,
    "zero": torch.zeros,
    "whole cells": lambda shape: torch.randint(0, 9, shape) * 8.0,
    "half cells": lambda shape: torch.randint(0, 20, shape) * 4.0,
    "across the border": lambda shape: 20 + torch.rand(shape) * 40,
    "huge": lambda shape: torch.rand(shape) * 1e30,
    "negative": lambda shape: -torch.rand(shape) * 30,
}


@pytest.fixture(autouse=True, params=["all at once", "strip by strip"])
def _both_ways(request, monkeypatch):
    """Whatever holds for the engine of the CPU holds for small and for large maps."""
    if request.param == "strip by strip":
        monkeypatch.setattr(embedding_bag, "_fits", lambda branches, ltrbs: False)


def make(boxes="random", batch=2, channels=5, outputs=3, size=(5, 7), dtype=torch.float64):
    x = torch.randn(batch, channels, *size)
    ltrb = BOXES[boxes]((batch, 4, *size))
    weight = torch.randn(outputs, channels, 3, 3)
    return [t.to(dtype).requires_grad_() for t in (x, ltrb, weight)]


def value_and_gradients(engine, inputs, stride=STRIDE):
    out = star_conv2d(*inputs, stride, engine)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out, *torch.autograd.grad(out, inputs, upstream)]


def assert_same(got, wanted):
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def error(got, wanted):
    return ((got.double() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("level", range(5))
def test_offsets_are_the_authors(level):
    rec = Recording("star_offset")
    ltrb = rec[f"bbox_pred_{level}"].requires_grad_()
    share = rec["gradient_mul"].item()
    offsets = star_offsets(share * ltrb + (1 - share) * ltrb.detach(), 8 << level)
    torch.testing.assert_close(offsets, rec[f"offset_{level}"], rtol=0, atol=1e-6)
    (grad,) = torch.autograd.grad(offsets, ltrb, rec[f"upstream_{level}"])
    torch.testing.assert_close(grad, rec[f"bbox_pred_grad_{level}"], rtol=1e-5, atol=1e-7)


def test_offsets_by_hand():
    ltrb = torch.tensor([16.0, 8, 24, 32]).view(1, 4, 1, 1)  # in cells of 8 pixels: 2, 1, 3, 4
    wanted = [0, -1, 0, 0, 0, 2, 0, -1, 0, 0, 0, 2, 3, -1, 3, 0, 3, 2]
    assert star_offsets(ltrb, 8).flatten().tolist() == wanted


def test_a_box_of_one_stride_is_an_ordinary_convolution():
    x, ltrb, weight = make()
    out = star_conv2d(x, torch.full_like(ltrb, STRIDE), weight, STRIDE)
    torch.testing.assert_close(out, torch.nn.functional.conv2d(x, weight, padding=1))


@pytest.mark.parametrize("boxes", BOXES)
@pytest.mark.parametrize("engine", ["reference", "embedding_bag"])
def test_engines_agree_with_torchvision(engine, boxes):
    inputs = make(boxes)
    assert_same(value_and_gradients(engine, inputs), value_and_gradients("torchvision", inputs))


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (3, 1), (2, 1500)])
@pytest.mark.parametrize("engine", ["reference", "embedding_bag"])
def test_maps_of_any_size(engine, size):
    inputs = make(size=size, batch=1, channels=2)
    assert_same(value_and_gradients(engine, inputs), value_and_gradients("torchvision", inputs))


def test_strips_do_not_show(monkeypatch):
    inputs = make()
    whole = value_and_gradients("embedding_bag", inputs)
    monkeypatch.setattr(embedding_bag, "STRIP", 15)  # two of five rows at a time
    assert_same(value_and_gradients("embedding_bag", inputs), whole)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_gradients(engine):
    inputs = make(batch=1, channels=2, outputs=2, size=(2, 3))
    assert torch.autograd.gradcheck(lambda *t: star_conv2d(*t, STRIDE, engine), inputs)


def test_gradients_of_gradients():
    inputs = make(batch=1, channels=2, outputs=2, size=(2, 2))
    assert torch.autograd.gradgradcheck(lambda *t: star_conv2d(*t, STRIDE, "reference"), inputs)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_a_slope_at_a_whole_number_is_the_one_to_the_right(engine):
    x = torch.tensor([1.0, 3, 7]).view(1, 1, 1, 3).double()
    ltrb = torch.zeros(1, 4, 1, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1, 2] = 1  # the right edge: it samples at x + r
    star_conv2d(x, ltrb, weight, 1, engine)[..., 1].sum().backward()
    assert ltrb.grad[0, :, 0, 1].tolist() == [0, 0, 7 - 3, 0]


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", range(4))
def test_boxes_that_are_no_numbers(engine, bad, side):
    """NaN shows where it is and nowhere else; infinite is just outside. Nothing crashes."""
    x, ltrb, weight = make(dtype=torch.float32)
    ltrb.data[1, side, 2, 3] = bad
    out, *gradients = value_and_gradients(engine, (x, ltrb, weight))
    wrong = torch.zeros(2, 5, 7, dtype=torch.bool)
    wrong[1, 2, 3] = bad != bad
    assert torch.equal(out.isnan().any(1), wrong)
    if bad == bad:
        assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_costs_no_more_than_its_rounding(engine, dtype):
    """The error is at most twice that of an exact computation with rounded output: the coordinates stay float32."""
    x, ltrb, weight = make(size=(2, 200), channels=32, outputs=32, dtype=torch.float32)
    inputs = [x.detach().to(dtype).requires_grad_(), ltrb, weight.detach().to(dtype).requires_grad_()]
    exact = value_and_gradients("reference", [t.detach().double().requires_grad_() for t in inputs])
    got = value_and_gradients(engine, inputs)
    assert [t.dtype for t in got] == [dtype, dtype, torch.float32, dtype]
    assert error(got[0], exact[0]) < 2 * error(exact[0].to(dtype), exact[0])
    for g, wanted in zip(got[1:], exact[1:], strict=True):  # made of rounded samples and rounded upstream gradients
        assert error(g, wanted) < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_autocast_keeps_the_box_in_float32(engine):
    x, ltrb, weight = make(size=(2, 200), channels=32, outputs=32, dtype=torch.float32)
    exact = star_conv2d(x.double(), ltrb.double(), weight.double(), STRIDE, "reference")
    with torch.autocast("cpu", torch.bfloat16):
        out, dx, dltrb, dweight = value_and_gradients(engine, (x, ltrb, weight))
    assert out.dtype == torch.bfloat16 and dltrb.dtype == dx.dtype == dweight.dtype == torch.float32
    assert error(out, exact) < 0.005  # 0.02 if the coordinates were bfloat16


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_pyramid_is_every_level_of_every_branch(engine):
    levels = [make(size=size) for size in [(5, 7), (3, 4), (1, 1)]]
    xs, ltrbs, strides = [x for x, _, _ in levels], [b for _, b, _ in levels], [8, 16, 32]
    w1, w2 = levels[0][2], levels[1][2]
    got = star_conv2d_pyramid([(xs, w1), (xs[:], w2)], ltrbs, strides, engine)
    for branch, weight in zip(got, (w1, w2), strict=True):
        for out, x, ltrb, stride in zip(branch, xs, ltrbs, strides, strict=True):
            torch.testing.assert_close(out, star_conv2d(x, ltrb, weight, stride, engine))


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_no_image(engine):
    inputs = make(batch=0)
    out, *gradients = value_and_gradients(engine, inputs)
    assert out.shape == (0, 3, 5, 7) and gradients[2].shape == (3, 5, 3, 3) and not gradients[2].any()


def test_shapes_that_do_not_fit():
    x, ltrb, weight = make()
    for wrong_x, wrong_ltrb in [(x, ltrb[:, :3]), (x, ltrb[..., :6]), (x[:, :4], ltrb), (x[:1], ltrb)]:
        with pytest.raises(ValueError, match="do not fit"):
            star_conv2d(wrong_x, wrong_ltrb, weight, STRIDE)
    with pytest.raises(ValueError, match="one batch size, dtype and device.*torch.float16"):
        star_conv2d(x, ltrb, weight.half(), STRIDE)
    with pytest.raises(ValueError, match="one batch size"):  # each level by itself would do
        star_conv2d_pyramid([([x, x[:1]], weight)], [ltrb, ltrb[:1]], [STRIDE, STRIDE])
    with pytest.raises(ValueError, match="weights must be"):
        star_conv2d(x, ltrb, weight[..., :2], STRIDE)
    with pytest.raises(ValueError, match="one each a level"):
        star_conv2d_pyramid([([x, x], weight)], [ltrb], [STRIDE])
    with pytest.raises(ValueError, match="float32"):
        star_conv2d(x.float(), ltrb, weight, STRIDE)


def test_choice_of_engine(monkeypatch, caplog):
    monkeypatch.delenv("VFNET_EDU_STAR", raising=False)
    operator._choose_engine.cache_clear()
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with caplog.at_level(logging.INFO, operator.__name__):
        assert choose_engine(cpu, torch.float32) == choose_engine(cpu, torch.float32) == "embedding_bag"
        assert choose_engine(gpu, torch.float32) == "torchvision"  # too old
        assert choose_engine(torch.device("meta"), torch.float32) == "reference"
    assert len(caplog.messages) == 3 and "compute capability 8.0" in caplog.messages[1]  # each said once

    operator._choose_engine.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    if not torch.version.hip and operator.importlib.util.find_spec("triton"):
        assert choose_engine(gpu, torch.bfloat16) == "triton"
    assert choose_engine(gpu, torch.float64) == "torchvision"
    monkeypatch.setattr(operator.importlib.util, "find_spec", lambda name: None)
    operator._choose_engine.cache_clear()
    assert choose_engine(gpu, torch.bfloat16) == "torchvision"  # no Triton
    monkeypatch.setenv("VFNET_EDU_STAR", "reference")
    assert choose_engine(cpu, torch.float32) == "reference"
    operator._choose_engine.cache_clear()


def test_engines_that_cannot_be_had(monkeypatch):
    inputs = make()
    with pytest.raises(UserError, match="unknown star engine 'mmcv'.*embedding_bag"):
        star_conv2d(*inputs, STRIDE, "mmcv")
    monkeypatch.setenv("VFNET_EDU_STAR", "cudnn")
    with pytest.raises(UserError, match="unknown star engine 'cudnn'"):
        star_conv2d(*inputs, STRIDE)
    with pytest.raises(UserError, match="float64|not installed"):
        star_conv2d(*inputs, STRIDE, "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(UserError, match="does not run on cpu|not installed"):
        star_conv2d(*[t.float() for t in inputs], STRIDE, "triton")
    assert set(CPU_ENGINES) < set(ENGINES)


def test_a_cpu_needs_no_triton():
    code = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import torch
from vfnet_edu.ops.star.operator import star_conv2d
star_conv2d(torch.zeros(1, 1, 2, 2), torch.zeros(1, 4, 2, 2), torch.zeros(1, 1, 3, 3), 8)
assert "vfnet_edu.ops.star.triton_kernels" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_export_is_made_of_standard_operators_for_any_size(monkeypatch):
    monkeypatch.delenv("VFNET_EDU_STAR", raising=False)

    class Star(torch.nn.Module):
        def forward(self, x, ltrb, weight):
            return star_conv2d(x, ltrb, weight, STRIDE)

    x, ltrb, weight = (t.detach() for t in make(dtype=torch.float32))
    size = {2: torch.export.Dim("height", min=2, max=512), 3: torch.export.Dim("width", min=2, max=512)}
    program = torch.export.export(Star(), (x, ltrb, weight), dynamic_shapes=(size, size, None))
    operators = [node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    assert {operator.namespace for operator in operators} == {"aten"}
    x, ltrb, _ = (t.detach() for t in make(size=(3, 9), dtype=torch.float32))
    torch.testing.assert_close(program.module()(x, ltrb, weight), star_conv2d(x, ltrb, weight, STRIDE))
