"""The fused kernel: the same tests in Triton's interpreter on a CPU, and compiled on a GPU.

The yardstick is the definition in the same precision: an error against float64 of at most twice its own.
"""

import numpy as np
import pytest
import torch
from packaging.version import Version

triton = pytest.importorskip("triton")

from vfnet_edu.ops.star import triton as star_triton  # noqa: E402
from vfnet_edu.ops.star import triton_kernels  # noqa: E402
from vfnet_edu.ops.star.operator import star_conv2d, star_conv2d_pyramid  # noqa: E402
from vfnet_edu.runtime.errors import UserError  # noqa: E402

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
OLD = Version(triton.__version__) < Version("3.7") and Version(np.__version__) >= Version("2.4")
pytestmark = [
    pytest.mark.skipif(not GPU and not triton_kernels.INTERPRETED, reason="neither a GPU nor the interpreter"),
    pytest.mark.skipif(not GPU and OLD, reason="the interpreter of Triton 3.6 needs numpy < 2.4"),
]

# The interpreter rounds bfloat16 by cutting it off: errors are twice as large there.
WORST = 2 if GPU else 4
LEVELS = [(5, 7, 8), (3, 2, 16), (1, 1, 32)]  # height, width, stride
BOXES = {  # pixels, for cells of 8
    "random": lambda shape: torch.rand(shape) * 30,
    "zero": torch.zeros,
    "whole cells": lambda shape: torch.randint(0, 5, shape) * 8.0,
    "across the border": lambda shape: 20 + torch.rand(shape) * 40,
    "huge": lambda shape: torch.rand(shape) * 1e30,
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """The interpreter computes masked lanes too: no larger tiles than these maps need, and several of them."""
    if triton_kernels.INTERPRETED:
        monkeypatch.setattr(
            triton_kernels, "TILES", dict.fromkeys(triton_kernels.TILES, (triton_kernels.Tile(16, 32, 32, 1),) * 2)
        )


def make(boxes="random", batch=1, channels=32, outputs=32, levels=LEVELS[:1], branches=1, dtype=torch.float32):
    xs = [[torch.randn(batch, channels, h, w) for h, w, _ in levels] for _ in range(branches)]
    weights = [torch.randn(outputs, channels, 3, 3) / 17 for _ in range(branches)]
    ltrbs = [BOXES[boxes]((batch, 4, h, w)) * (stride / 8) for h, w, stride in levels]
    to = lambda t, dtype: t.to(DEVICE, dtype).requires_grad_()  # noqa: E731
    return [[to(x, dtype) for x in row] for row in xs], [to(w, dtype) for w in weights], [to(b, None) for b in ltrbs]


def run(engine, inputs, levels=LEVELS[:1], dtype=None):
    """Output, and gradients of x, weight and box: four long vectors in float64."""
    xs, weights, ltrbs = inputs
    if dtype:
        xs, weights, ltrbs = (
            [[x.detach().to(dtype).requires_grad_() for x in row] for row in xs],
            *([t.detach().to(dtype).requires_grad_() for t in ts] for ts in (weights, ltrbs)),
        )
    rows = star_conv2d_pyramid(list(zip(xs, weights, strict=True)), ltrbs, [s for *_, s in levels], engine)
    out = [o for row in rows for o in row]
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(o.shape, generator=generator).bfloat16().to(o) for o in out]  # the same in every dtype
    leaves = [x for row in xs for x in row], weights, ltrbs
    grads = iter(torch.autograd.grad(out, [t for ts in leaves for t in ts], upstream))
    return [long(out), *(long([next(grads) for _ in ts]) for ts in leaves)]


def long(tensors):
    return torch.cat([t.flatten().double() for t in tensors])


def assert_as_good_as_the_definition(inputs, levels=LEVELS[:1], worst=2):
    exact = run("reference", inputs, levels, torch.float64)
    plain = run("reference", inputs, levels)
    fused = run("triton", inputs, levels)
    for name, e, p, f in zip(("out", "dx", "dweight", "dltrb"), exact, plain, fused, strict=True):
        limit = worst * (p - e).norm() + 1e-7 * e.norm()
        assert (f - e).norm() <= limit, f"{name}: {(f - e).norm() / e.norm():.1e}, {(p - e).norm() / e.norm():.1e}"


@pytest.mark.parametrize("boxes", BOXES)
def test_float32(boxes):
    assert_as_good_as_the_definition(make(boxes))


@pytest.mark.parametrize("dtype, worst", [(torch.float16, 2), (torch.bfloat16, WORST)])
def test_half_precision(dtype, worst):
    assert_as_good_as_the_definition(make(dtype=dtype), worst=worst)


def test_all_levels_and_branches_in_one_launch():
    assert_as_good_as_the_definition(make(batch=2, levels=LEVELS, branches=2), LEVELS)


@pytest.mark.parametrize("channels, outputs", [(40, 24), (96, 33)])
def test_any_number_of_channels(channels, outputs):
    assert_as_good_as_the_definition(make(channels=channels, outputs=outputs, levels=LEVELS[1:2]), LEVELS[1:2])


def test_several_blocks_of_channels():
    assert_as_good_as_the_definition(make(channels=64, outputs=128, levels=LEVELS[1:2]), LEVELS[1:2])


@pytest.mark.parametrize("dtype, worst", [(torch.float32, 2), (torch.bfloat16, WORST)])
def test_deterministic_mode(dtype, worst):
    levels = LEVELS if GPU else LEVELS[1:]
    inputs = make(batch=2, levels=levels, branches=2, dtype=dtype)
    torch.use_deterministic_algorithms(True)
    try:
        assert_as_good_as_the_definition(inputs, levels, worst)
        first, second = (run("triton", inputs, levels) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_memory_formats_do_not_matter():
    (xs,), weights, ltrbs = make(batch=2)
    last = [[t.detach().to(memory_format=torch.channels_last).requires_grad_() for t in ts] for ts in (xs, weights)]
    a, b = run("triton", ([xs], weights, ltrbs)), run("triton", ([last[0]], last[1], ltrbs))
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5)


def test_the_maps_come_back_channels_last():
    (xs,), (weight,), ltrbs = make(batch=2)
    assert star_conv2d(xs[0], ltrbs[0], weight, 8, "triton").is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_boxes_that_are_no_numbers(bad):
    (xs,), (weight,), (ltrb,) = make()
    ltrb.data[0, :, 2, 3] = bad
    out = star_conv2d(xs[0], ltrb, weight, 8, "triton")
    out.sum().backward()
    wrong = torch.zeros(1, 5, 7, dtype=torch.bool)
    wrong[0, 2, 3] = bad != bad
    assert torch.equal(out.isnan().any(1).cpu(), wrong)
    assert bad != bad or xs[0].grad.isfinite().all()


def test_no_image():
    (xs,), (weight,), (ltrb,) = make(batch=0)
    out = star_conv2d(xs[0], ltrb, weight, 8, "triton")
    out.sum().backward()
    assert out.shape == (0, 32, 5, 7) and not weight.grad.any()


def test_autocast_keeps_the_box_in_float32():
    (xs,), (weight,), (ltrb,) = make()
    exact = star_conv2d(xs[0].double(), ltrb.double(), weight.double(), 8, "reference")
    with torch.autocast(DEVICE, torch.bfloat16):
        out = star_conv2d(xs[0], ltrb, weight, 8, "triton")
    out.sum().backward()
    assert out.dtype == torch.bfloat16 and ltrb.grad.dtype == xs[0].grad.dtype == weight.grad.dtype == torch.float32
    assert (out - exact).norm() / exact.norm() < 0.008


def test_too_large_for_32_bits_is_refused():
    x = torch.zeros(1, device=DEVICE).expand(3, 1024, 1000, 1000)
    ltrb = torch.zeros(1, device=DEVICE).expand(3, 4, 1000, 1000)
    weight = torch.zeros(32, 1024, 3, 3, device=DEVICE)
    with pytest.raises(UserError, match="32-bit.*smaller batch"):
        star_conv2d(x, ltrb, weight, 8, "triton")


def test_operators_are_registered_well():
    (xs,), weights, ltrbs = make(levels=LEVELS[1:])
    inputs, strides = (xs, ltrbs, weights), [stride for *_, stride in LEVELS[1:]]
    torch.library.opcheck(star_triton.star_conv, (*inputs, strides))
    grads, *inputs = [[t.detach() for t in ts] for ts in (xs, *inputs)]
    torch.library.opcheck(star_triton.star_conv_backward, (grads, *inputs, strides))


class Star(torch.nn.Module):
    def forward(self, x, ltrb, weight):
        return star_conv2d(x, ltrb, weight, 8, "triton").relu()


def test_compile_without_a_graph_break_for_any_size():
    torch.compiler.reset()
    compiled = torch.compile(Star(), backend="inductor" if GPU else "aot_eager", fullgraph=True, dynamic=True)
    for size in [(2, 3), (4, 5)]:
        (xs,), (weight,), (ltrb,) = make(levels=[(*size, 8)])
        got, wanted = compiled(xs[0], ltrb, weight), Star()(xs[0], ltrb, weight)
        torch.testing.assert_close(got, wanted)
        leaves = xs[0], ltrb, weight
        a, b = (torch.autograd.grad(out.sum(), leaves) for out in (got, wanted))
        for p, q in zip(a, b, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-4)


def test_export_for_any_size():
    (xs,), (weight,), (ltrb,) = make(levels=[(2, 3, 8)])
    size = {2: torch.export.Dim("height", min=2, max=64), 3: torch.export.Dim("width", min=2, max=64)}
    program = torch.export.export(Star(), (xs[0], ltrb, weight), dynamic_shapes=(size, size, None))
    (xs,), _, (ltrb,) = make(levels=[(4, 5, 8)])
    torch.testing.assert_close(program.module()(xs[0], ltrb, weight), Star()(xs[0], ltrb, weight))


@pytest.mark.skipif(not GPU, reason="a real pyramid takes a GPU")
@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32", "fp32"])
def test_a_real_pyramid(precision):
    levels = [(100, 168, 8), (50, 84, 16), (25, 42, 32), (13, 21, 64), (7, 11, 128)]
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        inputs = make(batch=2, channels=256, outputs=256, levels=levels, branches=2, dtype=dtype)
        assert_as_good_as_the_definition(inputs, levels)
    finally:
        torch.set_float32_matmul_precision(before)
