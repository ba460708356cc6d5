"""Parameters and floating-point operations of every part of a detector, and what the authors report about it.

python -m vfnet_edu.summary vfnet_r50_1x
python -m vfnet_edu.summary vfnet_x101_64x4d_dcn_ms_2x --size 1333 800
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated
from unittest.mock import patch

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from vfnet_edu import recipes
from vfnet_edu.models.detector import Detector, build
from vfnet_edu.priors import ceil32
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime.errors import cli


@dataclass(frozen=True)
class Options:
    """Which detector, on how large an image."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """name of the recipe"""
    size: tuple[int, int] | None = None
    """width and height of the image, pixels; by default those the recipe is tested with"""


@dataclass(frozen=True)
class Part:
    """A line of the summary."""

    name: str
    parameters: int
    trained: int  # of them with a gradient
    flops: int  # two per multiply-add; convolutions and matrix products only


NUMBERS = ("parameters", "trained", "flops")


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.summary", description=__doc__)
    recipe = recipes.by_name(options.recipe)
    width, height = options.size or recipe.data.test_scale
    with torch.device("meta"):  # shapes without numbers: no memory, no time
        model = build(recipe)
    size = (ceil32(height), ceil32(width))  # as the detector pads it
    print(as_text(recipe, summarize(model, size), size))


def summarize(model: Detector, size: tuple[int, int]) -> list[Part]:
    """Every part of a detector that was built on the meta device, then all together.

    Args:
        model: on the meta device.
        size: (height, width) of the batch of one, multiples of 32.
    """
    counts = count_flops(lambda: model.network(torch.empty(1, 3, *size, device="meta")))

    parts = []
    for name in ("backbone", "neck", "head"):
        module = model.get_submodule(name)
        whole = _part(name, list(module.parameters()), counts[type(module).__name__])
        inner = [
            _part(f"{name}.{n}", list(m.parameters()), counts.get(f"{type(module).__name__}.{n}", 0))
            for n, m in module.named_children()
            if name != "neck"
        ]
        rest = [getattr(whole, f) - sum(getattr(p, f) for p in inner) for f in NUMBERS]  # a head's star, its gains
        parts += [p for p in [*inner, Part(f"{name} itself" if inner else name, *rest)] if p.parameters or p.flops]
    return [*parts, Part("all", *(sum(getattr(p, f) for p in parts) for f in NUMBERS))]


def count_flops(run: Callable[[], object]) -> dict[str, int]:
    """FLOPs of what `run` computes: of each module by its name, and of all under "Global"."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.torchvision.deform_conv2d: _deform_flops})
    with torch.no_grad(), counter:
        run()
    return {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}


def kept_for_backward(run: Callable[[], object], known: Iterable[torch.Tensor] = ()) -> int:
    """Bytes of the tensors that autograd keeps of what `run` computes: the activations (chapter 18).

    The star is computed as on a GPU: by an engine that keeps its inputs, and no samples.

    Args:
        run: computes something and returns it, best on the meta device.
        known: tensors that do not count, such as its weights and what it is given.
    """
    kept: dict[int, torch.UntypedStorage] = {}  # two tensors may share a storage: it counts once

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    lean = patch.dict(os.environ, VFNET_EDU_STAR="torchvision")
    with lean, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    without = {tensor.untyped_storage()._cdata for tensor in known}
    total = sum(storage.nbytes() for key, storage in kept.items() if key not in without)
    del result
    return total


def _part(name: str, parameters: list[torch.Tensor], flops: int) -> Part:
    trained = [p for p in parameters if p.requires_grad]
    return Part(name, sum(p.numel() for p in parameters), sum(p.numel() for p in trained), flops)


def _deform_flops(x, weight, offset, mask, bias, *args, out_shape, **kwargs) -> int:
    """A deformable convolution counts as the plain one: the nine samples are looked up, not computed."""
    batch, channels, h, w = out_shape
    return 2 * batch * channels * h * w * weight[1:].numel()


def as_text(recipe: Recipe, parts: list[Part], size: tuple[int, int]) -> str:
    """The summary as lines, with the published numbers below."""
    width = max(len(p.name) for p in parts)
    lines = [f"{recipe.name}, one image of {size[1]} x {size[0]} pixels", ""]
    lines += [f"{'':{width}}  {'parameters':>12}  {'trained':>12}  {'GFLOP':>8}"]
    for p in parts:
        lines.append(f"{p.name:{width}}  {p.parameters:12,}  {p.trained:12,}  {p.flops / 1e9:8.1f}")
    reported = recipe.published
    numbers = {
        "AP val2017": reported.ap_val,
        "AP test-dev": reported.ap_test_dev,
        "images/s on a V100": reported.fps_v100,
    }
    known = [f"{name} {value}" for name, value in numbers.items() if value is not None]
    return "\n".join([*lines, "", "published: " + (", ".join(known) or "nothing")])


if __name__ == "__main__":
    cli(main)
