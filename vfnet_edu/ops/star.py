"""The star-deformable convolution of VarifocalNet: the nine samples of a 3x3 kernel sit on the box that a location predicts.

It is a deformable convolution whose 18 offsets are functions of four numbers (paper, section 3.3). The operator takes the
four numbers: fewer reads, no offset tensor, and coordinates that stay float32 under mixed precision.

Four engines compute it and agree:

=================  ==========================================================================================
``reference``      the definition in plain PyTorch; any device and dtype, differentiable twice, exports
``torchvision``    ``torchvision.ops.deform_conv2d`` with :func:`star_offsets`
``embedding_bag``  fast on a CPU
``triton``         fused kernel for NVIDIA GPUs from compute capability 8.0: all levels and branches in one launch
=================  ==========================================================================================

The engine is chosen by the device of the features. Set the environment variable ``VFNET_EDU_STAR``, or pass ``engine``, to
choose another.
"""

import functools
import importlib.util
import logging
import os
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from vfnet_edu.errors import UserError
from vfnet_edu.ops.star_cpu import star_conv2d_embedding_bag
from vfnet_edu.ops.star_reference import star_axes, star_conv2d_reference

ENGINES = ("reference", "torchvision", "embedding_bag", "triton")

log = logging.getLogger(__name__)


def star_conv2d(x: Tensor, ltrb: Tensor, weight: Tensor, stride: int, engine: str | None = None) -> Tensor:
    """Star-deformable 3x3 convolution of one feature map, without bias.

    Args:
        x: (B, C, H, W) features.
        ltrb: (B, 4, H, W) box of every location: distances to its left, top, right and bottom edge, pixels of the image.
        weight: (O, C, 3, 3); tap (i, j) belongs to row (top, centre, bottom)[i] and column (left, centre, right)[j].
        stride: pixels per cell of the map.
        engine: one of :data:`ENGINES`; by default chosen by the device.

    Returns:
        (B, O, H, W). Gradients reach x, ltrb and weight; the paper's factor 0.1 on the box's gradient stays outside.

    Raises:
        ValueError: shapes that do not fit each other.
        UserError: an unknown engine, or one that cannot run here.
    """
    return star_conv2d_pyramid([([x], weight)], [ltrb], [stride], engine)[0][0]


def star_conv2d_pyramid(
    branches: Sequence[tuple[Sequence[Tensor], Tensor]],
    ltrbs: Sequence[Tensor],
    strides: Sequence[int],
    engine: str | None = None,
) -> list[list[Tensor]]:
    """:func:`star_conv2d` on all levels of a pyramid, for one or more branches that look at the same boxes.

    VFNet's head refines boxes and scores them by the same stars: two branches, five levels, here in one call::

        refined, scored = star_conv2d_pyramid([(regression, w_refine), (classification, w_score)], ltrbs, strides)

    Args:
        branches: pairs of features (one (B, C, H, W) per level) and weight (O, C, 3, 3); all branches of one shape.
        ltrbs: one (B, 4, H, W) per level, pixels of the image.
        strides: pixels per cell, one per level.
        engine: see :func:`star_conv2d`.

    Returns:
        One list per branch with one (B, O, H, W) per level.
    """
    _check(branches, ltrbs, strides)
    x = branches[0][0][0]
    engine = engine or choose_engine(x.device, x.dtype)
    device = x.device.type
    # The coordinates stay float32 (or float64) whatever the features are: bfloat16 cannot tell cell 100 from cell 100.4.
    ltrbs = [ltrb.to(torch.promote_types(ltrb.dtype, torch.float32)) for ltrb in ltrbs]
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        branches = [([x.to(dtype) for x in xs], weight.to(dtype)) for xs, weight in branches]
        with torch.autocast(device, enabled=False):
            return _run(engine, branches, ltrbs, strides)
    return _run(engine, branches, ltrbs, strides)


def star_offsets(ltrb: Tensor, stride: int) -> Tensor:
    """The star as the offsets of a general deformable convolution, to hand to ``torchvision.ops.deform_conv2d``.

    Args:
        ltrb: (B, 4, H, W) pixels of the image.
        stride: pixels per cell.

    Returns:
        (B, 18, H, W) in cells: (dy, dx) of the nine taps, row by row, as displacement from the regular 3x3 grid.
    """
    l, t, r, b = (ltrb / stride).unbind(1)
    zero = torch.zeros_like(l)
    offsets = []
    for grid_y, dy in zip((-1, 0, 1), (-t, zero, b), strict=True):
        for grid_x, dx in zip((-1, 0, 1), (-l, zero, r), strict=True):
            offsets += [dy - grid_y, dx - grid_x]  # the convolution adds the grid: take it away first
    return torch.stack(offsets, 1)


def star_conv2d_torchvision(x: Tensor, ltrb: Tensor, weight: Tensor, stride: int) -> Tensor:
    """See :func:`star_conv2d`. In at least float32: torchvision wants offsets of the features' dtype, and has no bfloat16."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    outside = stride * (sum(x.shape[2:]) + 2)  # pixels: further than any cell
    safe = ltrb.nan_to_num(nan=outside).clamp(-outside, outside)  # torchvision turns a NaN into an address and crashes
    out = deform_conv2d(x.to(dtype), star_offsets(safe, stride).to(dtype), weight.to(dtype), padding=1)
    return out.masked_fill(ltrb.isnan().any(1, keepdim=True), torch.nan).to(x.dtype)


@torch.compiler.assume_constant_result  # a compiled model keeps the engine it was traced with
def choose_engine(device: torch.device, dtype: torch.dtype) -> str:
    """The engine that ``VFNET_EDU_STAR`` names, else the fastest that runs on this device; logged once."""
    return _choose_engine(device, dtype, os.environ.get("VFNET_EDU_STAR", ""))


@functools.cache
def _choose_engine(device: torch.device, dtype: torch.dtype, wanted: str) -> str:
    if wanted:
        engine, reason = wanted, "VFNET_EDU_STAR"
    elif device.type == "cpu":
        engine, reason = "embedding_bag", "CPU"
    elif device.type == "cuda":
        obstacle = _triton_obstacle(device, dtype)
        engine, reason = ("torchvision", obstacle) if obstacle else ("triton", torch.cuda.get_device_name(device))
    else:
        engine, reason = "reference", f"no kernel for {device.type}"
    log.info("star convolution: engine %s (%s)", engine, reason)
    return engine


def _triton_obstacle(device: torch.device, dtype: torch.dtype) -> str:
    """Why the Triton kernel cannot run here, or nothing."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if dtype == torch.float64:
        return "no float64 in the Triton kernel"
    if device.type == "cuda":
        if torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
            return "the Triton kernel needs an NVIDIA GPU of compute capability 8.0"
    elif os.environ.get("TRITON_INTERPRET") != "1":
        return f"Triton does not run on {device.type}, but in its interpreter (TRITON_INTERPRET=1)"
    return ""


def _run(engine, branches, ltrbs, strides) -> list[list[Tensor]]:
    if engine == "triton":
        x = branches[0][0][0]
        if obstacle := _triton_obstacle(x.device, x.dtype):
            raise UserError(f"star engine 'triton': {obstacle}", remedy="choose another engine, or none")
        from vfnet_edu.ops.star_triton import star_conv2d_pyramid_triton  # the one place that needs Triton

        return star_conv2d_pyramid_triton(branches, ltrbs, strides)
    if engine == "reference":
        star_conv2d_level = star_conv2d_reference
    elif engine == "torchvision":
        star_conv2d_level = star_conv2d_torchvision
    elif engine == "embedding_bag":
        star_conv2d_level = star_conv2d_embedding_bag
    else:
        raise UserError(f"unknown star engine {engine!r}", remedy=f"choose one of {', '.join(ENGINES)}")
    return [
        [star_conv2d_level(x, ltrb, weight, stride) for x, ltrb, stride in zip(xs, ltrbs, strides, strict=True)]
        for xs, weight in branches
    ]


def _check(branches, ltrbs, strides) -> None:
    """Shapes that do not fit would be read out of place, not refused, by some of the engines."""
    shape = branches[0][1].shape
    for xs, weight in branches:
        if len(xs) != len(ltrbs) or len(strides) != len(ltrbs):
            raise ValueError(f"{len(xs)} feature maps, {len(ltrbs)} box maps and {len(strides)} strides: one of each per level")
        if weight.shape != shape or weight.shape[2:] != (3, 3):
            raise ValueError(f"weights must be (O, C, 3, 3), the same in all branches, not {tuple(weight.shape)}")
        for x, ltrb in zip(xs, ltrbs, strict=True):
            batch, channels, height, width = x.shape
            if ltrb.shape != (batch, 4, height, width) or channels != shape[1]:
                raise ValueError(
                    f"features {tuple(x.shape)} need boxes {(batch, 4, height, width)} and a weight (O, {channels}, 3, 3), "
                    f"not {tuple(ltrb.shape)} and {tuple(shape)}"
                )
