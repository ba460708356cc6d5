"""Operators of `bench peers`: the star convolution and ATSS, beside torchvision, onnxruntime and the naive way."""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from vfnet_edu.bench.assign import random_boxes
from vfnet_edu.bench.sizes import Sizes
from vfnet_edu.bench.star import STRIDES, Case, make_case
from vfnet_edu.bench.star import Options as StarOptions
from vfnet_edu.bench.turns import Skipped, Turn
from vfnet_edu.ops.star.operator import star_conv2d_pyramid, star_offsets
from vfnet_edu.priors import pyramid_anchors

CPU = torch.device("cpu")


def pyramid(sizes: Sizes) -> Case:
    return make_case(StarOptions(sizes.pyramid, sizes.channels), 1, CPU, torch.float32)


def star(xs: list[Tensor], where: list[Tensor], weight: Tensor) -> list[Tensor]:
    return star_conv2d_pyramid([(xs, weight)], where, STRIDES)[0]


def deformable(xs: list[Tensor], where: list[Tensor], weight: Tensor) -> list[Tensor]:
    return [deform_conv2d(x, offset, weight, padding=(1, 1)) for x, offset in zip(xs, where, strict=True)]


def convolve(function: Callable, learn: bool) -> Callable[[Sizes], Turn]:
    """Forward, or forward and backward, on all levels; torchvision is given its offsets for nothing."""

    def make(sizes: Sizes) -> Turn:
        case = pyramid(sizes)
        xs, where, weight = case.xs, case.ltrbs, case.weight
        if function is deformable:
            where = [star_offsets(ltrb, stride) for ltrb, stride in zip(where, STRIDES, strict=True)]
            xs, where, weight = [x.contiguous() for x in xs], [w.contiguous() for w in where], weight.contiguous()
        inputs = [t.requires_grad_(learn) for t in (*xs, *where, weight)]
        generator = torch.Generator().manual_seed(0)
        upstream = [torch.empty_like(x).copy_(torch.randn(x.shape, generator=generator)) for x in xs]

        def run():
            with torch.set_grad_enabled(learn):
                out = function(xs, where, weight)
                return torch.autograd.grad(out, inputs, upstream) if learn else out

        return Turn(run)

    return make


def onnx_runtime(sizes: Sizes) -> Turn:
    """The same convolution as ONNX's DeformConv."""
    try:
        helper, onnxruntime = map(importlib.import_module, ("onnx.helper", "onnxruntime"))
    except ImportError:
        raise Skipped("not installed: pip install onnx onnxruntime") from None
    kinds = [helper.make_tensor_value_info(name, 1, None) for name in ("x", "w", "offset", "y")]  # 1: float32
    node = helper.make_node("DeformConv", ["x", "w", "offset"], ["y"], pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    graph = helper.make_graph([node], "star", kinds[:3], kinds[3:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception as error:  # its own classes differ from version to version
        raise Skipped(f"onnxruntime {onnxruntime.__version__} has no DeformConv on a CPU") from error
    case = pyramid(sizes)
    levels = zip(case.xs, case.ltrbs, STRIDES, strict=True)
    weight = case.weight.contiguous().numpy()
    inputs = [
        {"x": x.contiguous().numpy(), "w": weight, "offset": star_offsets(ltrb, stride).contiguous().numpy()}
        for x, ltrb, stride in levels
    ]
    return Turn(lambda: [session.run(None, level) for level in inputs])


def assign(function: Callable) -> Callable[[Sizes], Turn]:
    def make(sizes: Sizes) -> Turn:
        shapes = [(-(-sizes.pyramid[0] // s), -(-sizes.pyramid[1] // s)) for s in STRIDES]
        anchors, level_sizes = pyramid_anchors(shapes, STRIDES, (8.0,)), [h * w for h, w in shapes]
        boxes = random_boxes(sizes.boxes, sizes.pyramid)
        return Turn(lambda: function(anchors, level_sizes, boxes))

    return make
