"""The star-deformable convolution of VarifocalNet: the nine samples of a 3x3 kernel sit on the predicted box.

It is a deformable convolution whose 18 offsets are functions of four numbers (paper, section 3.3). The operator takes
the four numbers: fewer reads, no offset tensor, and coordinates that stay float32 under mixed precision.

Four engines compute it and agree:

=================  ==========================================================================================
``reference``      the definition in plain PyTorch; any device and dtype, differentiable twice
``torchvision``    ``torchvision.ops.deform_conv2d`` with :func:`star_offsets`; exports, as samples of a grid
``embedding_bag``  fast on a CPU
``triton``         fused kernel for NVIDIA GPUs from compute capability 8.0: all levels and branches in one launch
=================  ==========================================================================================

The engine is chosen by the device of the features. To choose another, pass ``engine`` or set the environment variable
``VFNET_EDU_STAR``.
"""

import functools
import importlib.util
import logging
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from vfnet_edu.ops.dcn import deformable_conv2d
from vfnet_edu.ops.star.embedding_bag import star_conv2d_pyramid_embedding_bag
from vfnet_edu.ops.star.reference import star_conv2d_reference
from vfnet_edu.runtime.errors import UserError

ENGINES = ("reference", "torchvision", "embedding_bag", "triton")

Branch = tuple[Sequence[Tensor], Tensor]  # features of all levels, weight

log = logging.getLogger(__name__)


def star_conv2d(x: Tensor, ltrb: Tensor, weight: Tensor, stride: int, engine: str | None = None) -> Tensor:
    """Star-deformable 3x3 convolution of one feature map, without bias.

    Args:
        x: (B, C, H, W) features.
        ltrb: (B, 4, H, W) box of every location: distances to its left, top, right and bottom edge, image pixels.
        weight: (O, C, 3, 3); tap (i, j) samples row (top, centre, bottom)[i] and column (left, centre, right)[j].
        stride: pixels per cell of the map.
        engine: one of :data:`ENGINES`; by default chosen by the device.

    Returns:
        (B, O, H, W). Gradients reach x, ltrb and weight; the paper's factor 0.1 on the box's gradient stays outside.

    Raises:
        ValueError: shapes or dtypes that do not match.
        UserError: an unknown engine, or one that cannot run here.
    """
    return star_conv2d_pyramid([([x], weight)], [ltrb], [stride], engine)[0][0]


def star_conv2d_pyramid(
    branches: Sequence[Branch], ltrbs: Sequence[Tensor], strides: Sequence[int], engine: str | None = None
) -> list[list[Tensor]]:
    """:func:`star_conv2d` on all levels of a pyramid, for one or more branches that look at the same boxes.

    VFNet's head refines boxes and scores them by the same stars: two branches and five levels, here in one call::

        refined, scored = star_conv2d_pyramid([(regression, w_refine), (classification, w_score)], ltrbs, strides)

    Args:
        branches: pairs of features (one (B, C, H, W) per level) and weight (O, C, 3, 3); the same C and O in all.
        ltrbs: one (B, 4, H, W) per level, image pixels.
        strides: pixels per cell, one per level.
        engine: see :func:`star_conv2d`.

    Returns:
        One list per branch, with one (B, O, H, W) per level.
    """
    x = branches[0][0][0]
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        branches = [([x.to(dtype) for x in xs], weight.to(dtype)) for xs, weight in branches]
        with torch.autocast(device, enabled=False):
            return star_conv2d_pyramid(branches, ltrbs, strides, engine)
    _check(branches, ltrbs, strides)
    # Whatever the features are, the coordinates stay (at least) float32: bfloat16 cannot tell cell 100 from 100.4.
    ltrbs = [ltrb if ltrb.dtype == torch.float64 else ltrb.float() for ltrb in ltrbs]
    engine = engine or choose_engine(x.device, x.dtype)
    if not any(ltrb.numel() for ltrb in ltrbs):
        engine = "reference"  # no location: the only engine that has no launch to size
    if engine == "triton":
        if obstacle := _triton_obstacle(x.device, x.dtype):
            raise UserError(f"star engine 'triton': {obstacle}", remedy="choose another engine, or none")
        from vfnet_edu.ops.star.triton import star_conv2d_pyramid_triton  # nothing else needs Triton

        return star_conv2d_pyramid_triton(branches, ltrbs, strides)
    if engine == "embedding_bag":
        return star_conv2d_pyramid_embedding_bag(branches, ltrbs, strides)
    by_level = {"reference": star_conv2d_reference, "torchvision": star_conv2d_torchvision}
    if engine not in by_level:
        raise UserError(f"unknown star engine {engine!r}", remedy=f"choose one of {', '.join(ENGINES)}")
    return [
        [by_level[engine](x, ltrb, weight, stride) for x, ltrb, stride in zip(xs, ltrbs, strides, strict=True)]
        for xs, weight in branches
    ]


def star_offsets(ltrb: Tensor, stride: int) -> Tensor:
    """The star as the offsets of a general deformable convolution, to hand to ``torchvision.ops.deform_conv2d``.

    Args:
        ltrb: (B, 4, H, W) image pixels.
        stride: pixels per cell.

    Returns:
        (B, 18, H, W) in cells: (dy, dx) of the nine taps, row by row, as displacements from the regular 3x3 grid.

    Derived in chapter 11.
    """
    left, top, right, bottom = (ltrb / stride).unbind(1)
    zero = torch.zeros_like(left)
    offsets = []
    for grid_y, dy in zip((-1, 0, 1), (-top, zero, bottom), strict=True):
        for grid_x, dx in zip((-1, 0, 1), (-left, zero, right), strict=True):
            offsets += [dy - grid_y, dx - grid_x]  # the convolution adds the grid: subtract it first
    return torch.stack(offsets, 1)


def star_conv2d_torchvision(x: Tensor, ltrb: Tensor, weight: Tensor, stride: int) -> Tensor:
    """See :func:`star_conv2d`."""
    return deformable_conv2d(x, star_offsets(ltrb, stride), weight)


@torch.compiler.assume_constant_result  # a compiled model keeps the engine it was traced with
def choose_engine(device: torch.device, dtype: torch.dtype) -> str:
    """The engine that ``VFNET_EDU_STAR`` names, else the fastest that runs on this device; logged once."""
    return _choose_engine(device, dtype, torch.compiler.is_exporting(), os.environ.get("VFNET_EDU_STAR", ""))


@functools.cache
def _choose_engine(device: torch.device, dtype: torch.dtype, exporting: bool, wanted: str) -> str:
    if exporting:
        engine, reason = "torchvision", "exported programs are made of standard operators"  # see ops/dcn.py
    elif wanted:
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


@torch.compiler.assume_constant_result
def _triton_obstacle(device: torch.device, dtype: torch.dtype) -> str:
    """Why the Triton kernel cannot run here, or nothing."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if dtype == torch.float64:
        return "the kernel does not support float64"
    if device.type == "cuda":
        if torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
            return "the kernel needs an NVIDIA GPU of compute capability 8.0 or more"
    elif os.environ.get("TRITON_INTERPRET") != "1":
        return f"the kernel does not run on {device.type}, except in Triton's interpreter (TRITON_INTERPRET=1)"
    return ""


def _check(branches: Sequence[Branch], ltrbs: Sequence[Tensor], strides: Sequence[int]) -> None:
    """Refuse what some engines would not notice: they would read out of bounds."""
    shape, first = branches[0][1].shape, branches[0][0][0]
    for xs, weight in branches:
        if not len(xs) == len(ltrbs) == len(strides):
            raise ValueError(f"{len(xs)} feature maps, {len(ltrbs)} box maps, {len(strides)} strides: one each a level")
        if weight.shape != shape or weight.shape[2:] != (3, 3):
            raise ValueError(f"weights must be (O, C, 3, 3), the same in all branches, not {tuple(weight.shape)}")
        for x, ltrb in zip(xs, ltrbs, strict=True):
            batch, channels, height, width = x.shape
            if ltrb.shape != (batch, 4, height, width) or channels != shape[1]:
                shapes = ", ".join(str(tuple(t.shape)) for t in (x, ltrb, weight))
                raise ValueError(f"features (B, C, H, W), boxes (B, 4, H, W), weight (O, C, 3, 3) do not fit: {shapes}")
            if {(t.dtype, t.device) for t in (x, weight)} != {(first.dtype, first.device)} or batch != first.shape[0]:
                about = ", ".join(f"{t.dtype} {tuple(t.shape)} on {t.device}" for t in (first, x, weight))
                raise ValueError(f"all levels and weights must have one batch size, dtype and device: {about}")
