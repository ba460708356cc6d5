"""The star-deformable convolution as fused GPU kernels, forward and backward, written in Triton.

One launch serves all levels of the pyramid and all branches. A program takes a tile of locations, fetches the features
under their stars straight into the operands of a matrix product, and writes neither the offsets nor the nine-fold
column buffer of an im2col implementation.

Layout. Channels last: a map is an array of rows, a location per row, image by image; the channels of a location are
contiguous, so a fetch is a few wide reads. The maps stay where they are: a kernel is handed the address of every level
and branch, and a program picks its own. With R branches, C channels in and OUT channels out::

    xs R x (B, H, W, C) per level    ltrbs (B, H, W, 4) float32, image pixels, per level    weights R x (OUT, 9, C)
    outs R x (B, H, W, OUT) per level

Forward, for a location p:  out[p] = sum over taps of weight[tap] @ sample[p, tap], with bilinear samples of x.
Backward, with column[p, tap] = grad[p] @ weight[tap], the gradient of a sample:

* x: every fetch returns its share of the column. Stars overlap, so these are atomic float32 additions, in any order.
  For ``torch.use_deterministic_algorithms`` a separate kernel does them in a fixed order, sorted by target.
* ltrb: the column times the slope of the sample, summed over channels and taps. One program owns a location, so there
  is no need for atomics.
* weight: samples times gradients, summed over the locations in a fixed number of parts, again without atomics.

Whatever the dtype of the features, they are interpolated and summed in float32.
"""

# A kernel is written in Triton's language, not Python: its constexpr take plain values, its static_range is unrolled.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

import math
from typing import NamedTuple

import triton
import triton.language as tl
from triton import knobs
from triton.errors import TritonError as TritonError  # for others to catch: only this module imports Triton

# The interpreter (TRITON_INTERPRET=1) multiplies bfloat16 as if its bits were an integer: there, widen the operands.
INTERPRETED = bool(knobs.runtime.interpret)


def pack_level(height: int, width: int, stride: int) -> int:
    """A level as one integer, to hand to a kernel: no memory to copy to the GPU, or to keep for a CUDA graph.

    Triton recompiles a kernel for integers that are 1, multiples of 16, or longer than 32 bits. This one is always
    odd and long, so that one kernel serves all sizes.
    """
    return 1 << 61 | height << 41 | width << 21 | stride << 1 | 1


@triton.jit
def _unpack_level(level):
    return ((level >> 41) & 0xFFFFF).to(tl.int32), ((level >> 21) & 0xFFFFF).to(tl.int32), (level >> 1) & 0xFFFFF


@triton.jit
def _locate(tile, levels, batch, M: tl.constexpr):
    """The M locations of a tile: their level, their rows in it, which of them exist, and their place.

    The place is: the row at which their image begins, y and x in it, and the height, width and stride of the level.
    """
    level, packed, first_tile, next_tile = 0, levels[0], 0, 0
    for i in tl.static_range(len(levels)):  # every level has tiles of its own: look for the last that begins before
        level = tl.where(tile >= next_tile, i, level)
        packed = tl.where(tile >= next_tile, levels[i], packed)
        first_tile = tl.where(tile >= next_tile, next_tile, first_tile)
        height, width, _ = _unpack_level(levels[i])
        next_tile += tl.cdiv(batch * height * width, M)
    height, width, stride = _unpack_level(packed)
    row = (tile - first_tile) * M + tl.arange(0, M)
    exists = row < batch * height * width
    image = row // (height * width)
    cell = row - image * (height * width)
    y = cell // width
    x = cell - y * width
    return level, row, exists, (image * (height * width), y, x, height, width, stride)


@triton.jit
def _pick(pointers, number):
    """One of a tuple, by a number known only at run time."""
    chosen = pointers[0]
    for i in tl.static_range(1, len(pointers)):
        chosen = tl.where(number == i, pointers[i], chosen)
    return chosen


@triton.jit
def _edges(ltrb_ptr, row, exists, stride):
    """The distances to the left, top, right and bottom edge, in cells; and how many cells a pixel is.

    A product instead of a division, which takes a hundred instructions: the same if the stride is a power of two.
    """
    cells = 1.0 / stride.to(tl.float32)
    left = tl.load(ltrb_ptr + row * 4 + 0, mask=exists, other=0.0) * cells
    top = tl.load(ltrb_ptr + row * 4 + 1, mask=exists, other=0.0) * cells
    right = tl.load(ltrb_ptr + row * 4 + 2, mask=exists, other=0.0) * cells
    bottom = tl.load(ltrb_ptr + row * 4 + 3, mask=exists, other=0.0) * cells
    return (left, top, right, bottom), cells


@triton.jit
def _axis(centre, before, after, step, size, SLOPE: tl.constexpr):
    """One coordinate of a tap: the cell before it, the weight of the cell after, and whether to fetch either of them.

    Step 0, 1, 2 is the edge before, the centre, the edge after. A cell of weight 0 is not fetched, unless the slope of
    a coordinate that moves is asked for: at a whole number that is the slope to the right.
    """
    at = centre.to(tl.float32)
    at = tl.where(step == 0, at - before, tl.where(step == 2, at + after, at))
    near = tl.minimum(tl.maximum(at, -2.0), size.to(tl.float32) + 1.0)  # NaN becomes -2, outside: never an address
    low = tl.floor(near)
    far = tl.where(at == at, near - low, at)  # but NaN stays in the weight, and shows in the output
    least = 0.0
    if SLOPE:
        least = tl.where(step == 1, 0.0, -1.0)
    cell = low.to(tl.int32)
    return cell, far, (cell >= 0) & (cell < size), (cell >= -1) & (cell + 1 < size) & (far > least)


@triton.jit
def _tap(tap, place, edges, exists, SLOPE: tl.constexpr):
    """The 2x2 cells around a tap: the row of the first, the weight of the lower and of the right ones, four masks."""
    start, y, x, height, width, _ = place
    left, top, right, bottom = edges
    step_y = tap // 3
    step_x = tap - step_y * 3
    y0, dy, upper, lower = _axis(y, top, bottom, step_y, height, SLOPE)
    x0, dx, near, far = _axis(x, left, right, step_x, width, SLOPE)
    upper, lower = upper & exists, lower & exists
    return start + y0 * width + x0, dy[:, None], dx[:, None], (upper & near, upper & far, lower & near, lower & far)


@triton.jit
def _fetch(ptr, width, masks, C: tl.constexpr):
    """The features of the 2x2 cells, in float32, 0 where masked."""
    v00 = tl.load(ptr, mask=masks[0][:, None], other=0.0).to(tl.float32)
    v01 = tl.load(ptr + C, mask=masks[1][:, None], other=0.0).to(tl.float32)
    v10 = tl.load(ptr + width * C, mask=masks[2][:, None], other=0.0).to(tl.float32)
    v11 = tl.load(ptr + width * C + C, mask=masks[3][:, None], other=0.0).to(tl.float32)
    return v00, v01, v10, v11


@triton.jit
def _sample(ptr, width, dy, dx, masks, C: tl.constexpr):
    """Bilinear interpolation between the 2x2 cells."""
    v00, v01, v10, v11 = _fetch(ptr, width, masks, C)
    return v00 * ((1 - dy) * (1 - dx)) + v01 * ((1 - dy) * dx) + v10 * (dy * (1 - dx)) + v11 * (dy * dx)


@triton.jit
def _dot(a, b, acc, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    if WIDEN:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    if PRECISION == "tf32":
        # The tensor cores cut 13 bits off. Rounding instead, in the operand that is in registers, halves the error.
        a = tl.inline_asm_elementwise("cvt.rna.tf32.f32 $0, $1;", "=r,r", [a], dtype=tl.float32, is_pure=True, pack=1)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit(do_not_specialize=["batch"])
def star_forward(
    xs, ltrbs, weights, outs, levels, batch,
    C: tl.constexpr, OUT: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """M locations, N channels out. For all taps, for K channels in at a time: fetch, interpolate, multiply.

    Built up in chapter 13, in four steps.

    Grid: (tiles, OUT / N, R).
    """
    branch = tl.program_id(2)
    level, row, exists, place = _locate(tl.program_id(0), levels, batch, M)
    width = place[4]
    edges, _ = _edges(_pick(ltrbs, level), row, exists, place[5])
    map_ = branch * len(levels) + level
    x_ptr, weight_ptr, out_ptr = _pick(xs, map_), _pick(weights, branch), _pick(outs, map_)
    n = tl.program_id(1) * N + tl.arange(0, N)
    k = tl.arange(0, K)

    acc = tl.zeros((M, N), dtype=tl.float32)
    for tap in range(9):
        first, dy, dx, masks = _tap(tap, place, edges, exists, SLOPE=False)
        x_tile = x_ptr + first[:, None] * C + k[None, :]  # (M, K)
        weight_tile = weight_ptr + n[None, :] * (9 * C) + tap * C + k[:, None]  # (K, N)
        for c in range(0, C, K):
            sample = _sample(x_tile + c, width, dy, dx, masks, C)
            weight = tl.load(weight_tile + c)
            acc = _dot(sample.to(weight.dtype), weight, acc, PRECISION, WIDEN)
    tl.store(out_ptr + row[:, None] * OUT + n[None, :], acc.to(out_ptr.dtype.element_ty), mask=exists[:, None])


@triton.jit(do_not_specialize=["batch"])
def star_backward_input(
    grads, xs, ltrbs, weights, dxs, dltrbs, levels, batch,
    C: tl.constexpr, OUT: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, ATOMIC: tl.constexpr,
):  # fmt: skip
    """Gradients of M locations: added to dxs (like xs, but float32) if ATOMIC, and stored in dltrbs.

    A dltrb is (R, B, H, W, 4) float32: every branch has its own, to be summed.

    For all taps, for K channels in at a time: multiply to get the column, take its slopes, hand back its shares.
    Grid: (tiles, R).
    """
    branch = tl.program_id(1)
    level, row, exists, place = _locate(tl.program_id(0), levels, batch, M)
    height, width = place[3], place[4]
    edges, cells = _edges(_pick(ltrbs, level), row, exists, place[5])
    map_ = branch * len(levels) + level
    grad_ptr, x_ptr, weight_ptr, dx_ptr = _pick(grads, map_), _pick(xs, map_), _pick(weights, branch), _pick(dxs, map_)
    dltrb_ptr = _pick(dltrbs, level) + branch * (batch * height * width * 4)
    n = tl.arange(0, N)
    k = tl.arange(0, K)
    grad_tile = grad_ptr + row[:, None] * OUT + n[None, :]  # (M, N)
    grad = tl.load(grad_tile, mask=exists[:, None], other=0.0)

    dleft = tl.zeros((M,), dtype=tl.float32)
    dtop = tl.zeros((M,), dtype=tl.float32)
    dright = tl.zeros((M,), dtype=tl.float32)
    dbottom = tl.zeros((M,), dtype=tl.float32)
    for tap in range(9):
        first, dy, dx, masks = _tap(tap, place, edges, exists, SLOPE=True)
        slope_y = tl.zeros((M,), dtype=tl.float32)
        slope_x = tl.zeros((M,), dtype=tl.float32)
        for c in range(0, C, K):
            weight_tile = weight_ptr + n[:, None] * (9 * C) + tap * C + c + k[None, :]  # (N, K)
            column = tl.zeros((M, K), dtype=tl.float32)
            if N == OUT:  # one tile holds the whole gradient of its locations: it was fetched once, above
                column = _dot(grad, tl.load(weight_tile), column, PRECISION, WIDEN)
            else:
                for o in range(0, OUT, N):
                    part = tl.load(grad_tile + o, mask=exists[:, None], other=0.0)
                    column = _dot(part, tl.load(weight_tile + o * (9 * C)), column, PRECISION, WIDEN)
            cell = first[:, None] * C + c + k[None, :]
            v00, v01, v10, v11 = _fetch(x_ptr + cell, width, masks, C)
            slope_y += tl.sum(column * ((v10 - v00) * (1 - dx) + (v11 - v01) * dx), axis=1)
            slope_x += tl.sum(column * ((v01 - v00) * (1 - dy) + (v11 - v10) * dy), axis=1)
            if ATOMIC:
                target = dx_ptr + cell
                tl.atomic_add(target, column * ((1 - dy) * (1 - dx)), mask=masks[0][:, None], sem="relaxed")
                tl.atomic_add(target + C, column * ((1 - dy) * dx), mask=masks[1][:, None], sem="relaxed")
                tl.atomic_add(target + width * C, column * (dy * (1 - dx)), mask=masks[2][:, None], sem="relaxed")
                tl.atomic_add(target + width * C + C, column * (dy * dx), mask=masks[3][:, None], sem="relaxed")
        # A larger top distance moves the upper taps up, a larger bottom distance the lower ones down; and sideways.
        dtop = tl.where(tap // 3 == 0, dtop - slope_y, dtop)
        dbottom = tl.where(tap // 3 == 2, dbottom + slope_y, dbottom)
        dleft = tl.where(tap % 3 == 0, dleft - slope_x, dleft)
        dright = tl.where(tap % 3 == 2, dright + slope_x, dright)
    tl.store(dltrb_ptr + row * 4 + 0, dleft * cells, mask=exists)
    tl.store(dltrb_ptr + row * 4 + 1, dtop * cells, mask=exists)
    tl.store(dltrb_ptr + row * 4 + 2, dright * cells, mask=exists)
    tl.store(dltrb_ptr + row * 4 + 3, dbottom * cells, mask=exists)


@triton.jit(do_not_specialize=["batch", "tiles"])
def star_backward_weight(
    grads, xs, ltrbs, part_ptr, levels, batch, tiles,
    C: tl.constexpr, OUT: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """One part of the weight's gradient, of part (parts, R, 9, C, OUT) float32: one tap, K channels in, N out.

    With seven parts, each is the sum over every seventh tile. Grid: (9 * C / K * OUT / N, parts, R).
    """
    block, part = tl.program_id(0), tl.program_id(1)
    branch = tl.program_id(2)
    part_ptr += (part.to(tl.int64) * tl.num_programs(2) + branch) * 9 * C * OUT

    blocks_n: tl.constexpr = OUT // N
    blocks_k: tl.constexpr = C // K
    n = block % blocks_n * N + tl.arange(0, N)
    k = block // blocks_n % blocks_k * K + tl.arange(0, K)
    tap = block // (blocks_n * blocks_k)

    acc = tl.zeros((K, N), dtype=tl.float32)
    for tile in range(part, tiles, tl.num_programs(1)):
        level, row, exists, place = _locate(tile, levels, batch, M)
        edges, _ = _edges(_pick(ltrbs, level), row, exists, place[5])
        x_ptr, grad_ptr = _pick(xs, branch * len(levels) + level), _pick(grads, branch * len(levels) + level)
        first, dy, dx, masks = _tap(tap, place, edges, exists, SLOPE=False)
        sample = _sample(x_ptr + first[:, None] * C + k[None, :], place[4], dy, dx, masks, C)  # (M, K)
        grad = tl.load(grad_ptr + row[:, None] * OUT + n[None, :], mask=exists[:, None], other=0.0)  # (M, N)
        acc = _dot(tl.trans(sample.to(grad.dtype)), grad, acc, PRECISION, WIDEN)
    tl.store(part_ptr + (tap * C + k)[:, None] * OUT + n[None, :], acc)


@triton.jit
def star_gather_gradient(
    column_ptr, column_row_ptr, factor_ptr, begin_ptr, dx_ptr,
    C: tl.constexpr, K: tl.constexpr, READS: tl.constexpr,
):  # fmt: skip
    """The gradient of one cell of x in a fixed order: the sum of the columns that read it, times their factors.

    The reads are sorted by cell: those of cell p are begin[p] to begin[p + 1]. Grid: (P, C / K).
    """
    cell = tl.program_id(0)
    k = tl.program_id(1) * K + tl.arange(0, K)
    begin, end = tl.load(begin_ptr + cell), tl.load(begin_ptr + cell + 1)
    acc = tl.zeros((READS, K), dtype=tl.float32)
    for i in range(begin, end, READS):
        read = i + tl.arange(0, READS)
        row = tl.load(column_row_ptr + read, mask=read < end, other=0)  # int64: there are nine columns per location
        factor = tl.load(factor_ptr + read, mask=read < end, other=0.0)
        column = tl.load(column_ptr + row[:, None] * C + k[None, :], mask=(read < end)[:, None], other=0.0)
        acc += column.to(tl.float32) * factor[:, None]
    tl.store(dx_ptr + cell.to(tl.int64) * C + k, tl.sum(acc, axis=0))


class Tile(NamedTuple):
    """How much a program does at a time, and what it may use for it."""

    m: int  # locations
    n: int  # channels out
    k: int  # channels in
    stages: int  # of the pipeline that fetches ahead
    warps: int = 8
    registers: int | None = None  # at most this many per thread, so that more programs fit into a multiprocessor


# A tile too large spills registers to memory, or does not fit into shared memory; these do neither
# (tests/test_star_compile.py). Counted, not yet timed: `python -m vfnet_edu.bench tune` does that.
TILES = {
    # kernel, product                compute capability 9      others: less shared memory, or less tensor memory
    ("forward", "16 bit"): (Tile(64, 256, 32, 3), Tile(64, 256, 32, 3)),
    ("forward", "tf32"): (Tile(64, 256, 32, 2), Tile(64, 256, 16, 2)),
    ("forward", "bf16x6"): (Tile(128, 128, 32, 2), Tile(32, 128, 32, 2)),
    ("backward_input", "16 bit"): (Tile(64, 256, 64, 2), Tile(64, 256, 32, 2)),
    ("backward_input", "tf32"): (Tile(64, 64, 64, 2), Tile(32, 32, 32, 2)),
    ("backward_input", "bf16x6"): (Tile(64, 32, 64, 2), Tile(64, 32, 16, 2)),
    ("backward_weight", "16 bit"): (Tile(64, 256, 128, 2), Tile(64, 256, 32, 2)),
    ("backward_weight", "tf32"): (Tile(32, 256, 128, 2), Tile(32, 256, 64, 2)),
    ("backward_weight", "bf16x6"): (Tile(64, 128, 64, 2), Tile(64, 128, 32, 2)),
}


def choose_tile(kernel: str, product: str, capability: tuple[int, int]) -> Tile:
    return TILES[kernel, product][0 if capability[0] == 9 else 1]


def launch_options(kernel: str, product: str, channels: int, outputs: int, capability: tuple[int, int]) -> dict:
    """Tile sizes and compiler options of a kernel.

    Args:
        kernel: "forward", "backward_input" or "backward_weight".
        product: "16 bit", "tf32" or "bf16x6": six bfloat16 products that make a float32 one, still on tensor cores.
        channels, outputs: multiples of 32.
        capability: compute capability of the GPU.
    """
    tile = choose_tile(kernel, product, capability)
    return {
        "M": tile.m,
        "N": math.gcd(tile.n, outputs),  # still a power of two, and a divisor
        "K": math.gcd(tile.k, channels),
        "PRECISION": "ieee" if product == "16 bit" else product,
        "WIDEN": INTERPRETED,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
        "maxnreg": tile.registers,
        "enable_fp_fusion": True,
    }
