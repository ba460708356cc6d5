"""VFNet on a GPU runs channels_last: no copy that only changes the layout surrounds the star.

Without a GPU: fake tensors carry shapes and strides through the forward pass, and run nothing; what the backward pass
is handed is looked at on a CPU.
"""

import os
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import vfnet_edu as vf
from vfnet_edu.models.heads.vfnet import VFNetConfig, VFNetHead
from vfnet_edu.ops.star import operator

COPIES = {"aten::clone", "aten::copy_", "aten::_to_copy", "aten::contiguous", "aten::cat"}


class CopiesOfFeatures(TorchDispatchMode):
    """Counts the copies of tensors that are as large as a feature map of P3, and the calls of our own operators."""

    def __init__(self):
        super().__init__()
        self.copies, self.ours = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out, name = func(*args, **(kwargs or {})), func._schema.name
        if name in COPIES and out.numel() >= 2 * 100 * 136 * 256:
            self.copies[name, tuple(out.shape)] += 1
        if name.startswith("vfnet_edu::"):
            self.ours[name] += 1
        return out


def test_no_copy_of_a_feature_map(monkeypatch):
    monkeypatch.setenv("VFNET_EDU_STAR", "triton")
    monkeypatch.setattr(operator, "_triton_obstacle", lambda device, dtype: "")  # it is only asked for its shapes
    operator._choose_engine.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(2, 64, 8, 8, device="cuda").contiguous(memory_format=torch.channels_last)
        if not F.group_norm(x, 32).is_contiguous(memory_format=torch.channels_last):
            pytest.skip(f"the group norm of torch {torch.__version__} leaves channels_last on a GPU")
        with torch.device("cuda"):
            model = vf.build(vf.recipes.vfnet_r50_1x())
        for p in model.parameters():
            if p.dim() == 4:
                p.data = p.data.contiguous(memory_format=torch.channels_last)
        batch = torch.empty(2, 3, 800, 1088, device="cuda").contiguous(memory_format=torch.channels_last)
        with CopiesOfFeatures() as forward:
            model.network(batch)
    operator._choose_engine.cache_clear()
    assert forward.ours == {"vfnet_edu::star_conv": 1}
    assert not forward.copies


class Gradients(TorchDispatchMode):
    """Keeps what the star's backward operator is given."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name == "vfnet_edu::star_conv_backward":
            self.grads, self.xs = args[:2]
        return func(*args, **(kwargs or {}))


def test_gradients_arrive_channels_last(monkeypatch):
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("on a CPU the kernel runs in Triton's interpreter")
    monkeypatch.setenv("VFNET_EDU_STAR", "triton")
    operator._choose_engine.cache_clear()
    # 8 channels to a group, as in every published row: with fewer, a CPU's group norm is given contiguous maps
    head = VFNetHead(VFNetConfig(channels=256, depth=1, strides=(8, 16))).to(memory_format=torch.channels_last)
    pyramid = [torch.randn(2, 256, 4, 6), torch.randn(2, 256, 2, 3)]
    out = head([x.contiguous(memory_format=torch.channels_last) for x in pyramid])
    with Gradients() as backward:
        (out.logits.sum() + out.refined.sum()).backward()
    operator._choose_engine.cache_clear()
    assert len(backward.grads) == len(backward.xs) == 4  # two branches of two levels
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (*backward.grads, *backward.xs))


def test_memory_is_that_of_the_results_and_little_else(monkeypatch):
    pytest.importorskip("triton")
    from vfnet_edu.bench.star import Options, make_case, peak_memory
    from vfnet_edu.ops.star import triton as star_triton

    monkeypatch.setattr(star_triton, "_launch", lambda *arguments, **options: None)  # allocate, and compute nothing
    case = make_case(Options(), 1, torch.device("cpu"), torch.bfloat16)
    inputs = case.xs, case.ltrbs, [case.weight], list(case.strides)
    grads = [torch.empty_like(x) for x in case.xs]
    result = sum(x.nbytes for x in case.xs) / 1e6
    peak, scratch = peak_memory(lambda: star_triton.star_conv(*inputs), torch.device("cpu"))
    assert peak < result + 0.5 and scratch < 0.5
    peak, scratch = peak_memory(lambda: star_triton.star_conv_backward(grads, *inputs), torch.device("cpu"))
    assert peak < 2.7 * result and scratch < 1.6 * result  # gradients are summed in float32, then halved
