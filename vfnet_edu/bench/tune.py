"""Which tiles are fastest here?  `python -m vfnet_edu.bench tune`: every kernel of the star with a list of tiles.

The tiles in `vfnet_edu/ops/star/triton_kernels.py` were chosen by counting instructions.  This times the alternatives:
whatever fits, gives the same result and is faster can take their place.
"""

import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor

from vfnet_edu.bench.star import DTYPES, Case, Precision, make_case, timed
from vfnet_edu.bench.star import Options as Star
from vfnet_edu.ops.star import triton as star_triton
from vfnet_edu.ops.star import triton_kernels
from vfnet_edu.ops.star.triton_kernels import TILES, Tile, TritonError, choose_tile
from vfnet_edu.runtime.errors import UserError

Kernel = Literal["forward", "backward_input", "backward_weight"]
CANDIDATES: dict[Kernel, tuple[Tile, ...]] = {  # the same for all products; what does not fit is reported as such
    "forward": (
        Tile(64, 256, 32, 2), Tile(64, 256, 32, 3), Tile(64, 256, 32, 4), Tile(64, 256, 64, 2), Tile(64, 256, 16, 3),
        Tile(64, 256, 16, 4), Tile(64, 256, 32, 2, 8, 128), Tile(64, 256, 32, 3, 8, 128), Tile(128, 256, 32, 3),
        Tile(128, 128, 32, 3), Tile(128, 128, 32, 2), Tile(64, 128, 32, 3, 4), Tile(64, 128, 32, 3),
    ),
    "backward_input": (
        Tile(64, 256, 64, 2), Tile(64, 256, 64, 3), Tile(64, 256, 32, 2), Tile(64, 256, 32, 3),
        Tile(64, 256, 32, 2, 8, 128), Tile(128, 256, 32, 2), Tile(32, 256, 64, 2, 4), Tile(32, 256, 32, 2, 4),
        Tile(64, 64, 64, 2), Tile(64, 64, 32, 2), Tile(64, 128, 32, 2), Tile(64, 32, 64, 2),
    ),
    "backward_weight": (
        Tile(64, 256, 128, 2), Tile(64, 256, 64, 2), Tile(64, 256, 64, 3), Tile(64, 256, 32, 2), Tile(32, 256, 128, 2),
        Tile(32, 256, 64, 2), Tile(64, 128, 128, 2), Tile(64, 128, 64, 2), Tile(64, 128, 64, 3),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    precisions: tuple[Precision, ...] = ("bf16",)
    kernels: tuple[Kernel, ...] = tuple(CANDIDATES)
    batch: int = 8
    size: tuple[int, int] = (800, 1344)
    """height and width of the image, multiples of 32"""
    channels: int = 256
    repeats: int = 20
    """timed runs; the median counts"""
    device: str = "auto"
    """a GPU; or cpu under TRITON_INTERPRET=1, where the times mean nothing"""
    json: Path | None = None
    """also write the table to this file"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.bench tune")
    name = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cpu" and not triton_kernels.INTERPRETED:
        raise UserError("tiles are tuned on a GPU, and there is none", remedy="run this where doctor shows one")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(f"torch {torch.__version__}, triton {version('triton')}, {where}")
    rows = []
    for precision in options.precisions:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        product = {"tf32": "tf32", "fp32": "bf16x6"}.get(precision, "16 bit")
        case = make_case(Star(options.size, options.channels), options.batch, device, DTYPES[precision])
        for kernel in options.kernels:
            print(f"\n{kernel}, {precision}, batch {options.batch}")
            found = try_tiles(kernel, product, case, device, options.repeats)
            rows += [{"kernel": kernel, "precision": precision, "tile": tile, "ms": ms} for ms, tile in found]
    if options.json:
        header = {"device": where, "torch": torch.__version__, "triton": version("triton"), "batch": options.batch}
        options.json.write_text(json.dumps(header | {"rows": rows}, indent=1), encoding="utf-8")


def try_tiles(kernel: Kernel, product: str, case: Case, device, repeats: int) -> list[tuple[float, Tile]]:
    """Milliseconds of every tile that works, the fastest first; a backward kernel is timed with the work around it."""
    saved, found = TILES[kernel, product], []
    now = choose_tile(kernel, product, torch.cuda.get_device_capability(device) if device.type == "cuda" else (9, 0))
    step = forward_step(case) if kernel == "forward" else backward_step(case)
    wanted = step()
    for tile in dict.fromkeys((now, *CANDIDATES[kernel])):
        TILES[kernel, product] = (tile, tile)
        mark = "  (now)" if tile == now else ""
        try:
            error = float(torch.stack([distance(a, b) for a, b in zip(step(), wanted, strict=True)]).max())
            ms = timed(step, device, repeats, ahead=device.type == "cuda")
        except (TritonError, RuntimeError) as reason:
            print(f"{about(tile)}  {str(reason).splitlines()[0][:70]}{mark}")
            continue
        finally:
            TILES[kernel, product] = saved
        wrong = f"  WRONG: differs by {error:.1e}" if not error < 1e-2 else ""
        print(f"{about(tile)}  {ms:8.3f} ms{mark}{wrong}", flush=True)
        if not wrong:
            found.append((ms, tile))
    found.sort(key=lambda item: item[0])
    if found:
        print(f"fastest: {found[0][1]}")
    return found


def forward_step(case: Case):
    arguments = case.xs, case.ltrbs, [case.weight], list(case.strides)
    return lambda: star_triton.star_conv(*arguments)


def backward_step(case: Case):
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(x.shape, generator=generator).to(x) for x in case.xs]
    grads = [g.contiguous(memory_format=torch.channels_last) for g in grads]
    arguments = grads, case.xs, case.ltrbs, [case.weight], list(case.strides)
    return lambda: star_triton.star_conv_backward(*arguments)


def about(tile: Tile) -> str:
    cap = f", <= {tile.registers} registers" if tile.registers else ""
    return f"{tile.m:4} x {tile.n:3} x {tile.k:3}, {tile.stages} stages, {tile.warps} warps{cap}".ljust(56)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Relative; NaN if a has any."""
    return (a.float() - b.float()).norm() / b.float().norm().clamp(min=1e-30)
