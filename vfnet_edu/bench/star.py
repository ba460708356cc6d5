"""How fast is the star?  `python -m vfnet_edu.bench star`: the engines, and what one would use instead of them.

For the whole pyramid of an 800 x 1344 image and for every level: time, arithmetic rate, share of the floor, memory.
The floor is the time of the arithmetic alone, at the rate that a large matrix product reaches here in that precision.
torchvision and deformops are given their offsets for free.

On a GPU the kernels wait in a queue and then run one after the other, and that is the time; "eager" times the
calls from Python as they come, which at batch 1 may be the CPU's. In bf16 torchvision computes in float32, with offsets
in float32: that is what autocast makes of it. In fp32 the floor is that of the CUDA cores, and our kernel, which makes
six bf16 products, may exceed it. Memory is the peak of a step beyond what was held before; "scratch" is the part of
it that is freed by the end, when only the results remain.
"""

import importlib
import importlib.util
import itertools
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torchvision.ops import deform_conv2d

from vfnet_edu.ops.star.operator import choose_engine, star_conv2d_pyramid, star_offsets

STRIDES = (8, 16, 32, 64, 128)
Precision = Literal["bf16", "fp16", "tf32", "fp32"]
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Options:
    size: tuple[int, int] = (800, 1344)
    """height and width of the image, multiples of 32"""
    channels: int = 256
    batches: tuple[int, ...] = ()
    """batch sizes; by default 1, and 1 8 16 on a GPU"""
    precisions: tuple[Precision, ...] = ()
    """by default fp32, and all four on a GPU"""
    levels: bool = True
    """also measure every level by itself"""
    device: str = "auto"
    repeats: int = 0
    """timed runs; the median counts; by default 3, and 20 on a GPU"""
    json: Path | None = None
    """also write the table to this file"""


@dataclass(frozen=True)
class Case:
    """Inputs of one measurement."""

    xs: list[Tensor]  # (B, C, H, W) per level
    ltrbs: list[Tensor]  # (B, 4, H, W) per level
    weight: Tensor  # (C, C, 3, 3)
    strides: tuple[int, ...]

    @property
    def flop(self) -> int:
        """Floating-point operations of the forward product; the backward pass has twice as many."""
        return sum(2 * 9 * x.numel() * len(self.weight) for x in self.xs)


# a function of (features, boxes or offsets, weight) to maps, with its inputs as it wants them
Contender = tuple[Callable[..., list[Tensor]], Case, list[Tensor]]


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.bench star")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device if options.device == "auto" else options.device)
    gpu = device.type == "cuda"
    batches = options.batches or ((1, 8, 16) if gpu else (1,))
    precisions = options.precisions or (("bf16", "fp16", "tf32", "fp32") if gpu else ("fp32",))
    repeats = options.repeats or (20 if gpu else 3)
    where = torch.cuda.get_device_name(device) if gpu else f"{platform.processor() or platform.machine()} CPU"
    packages = ("torch", "torchvision", "triton", "deformops")
    versions = {name: version(name) for name in packages if importlib.util.find_spec(name)}
    print(", ".join(" ".join(item) for item in versions.items()), end=", ")
    print(where if gpu else f"{where}, {torch.get_num_threads()} thread(s), CPU time per thread")
    rows = []
    for precision in precisions:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        rate = matmul_rate(device, DTYPES[precision])
        for batch in batches:
            whole = make_case(options, batch, device, DTYPES[precision])
            cases = {"all levels": whole}
            if options.levels:
                cases |= {f"P{i + 3}": pick(whole, i) for i in range(len(STRIDES))}
            for part, case in cases.items():
                locations, floor = sum(x[:, 0].numel() for x in case.xs), 1e3 * case.flop / rate
                print(f"\n{precision}, batch {batch}, {part}: {locations} locations, {options.channels} channels")
                print(f"floor of the forward pass {floor:.3f} ms, at {rate / 1e12:.3g} TFLOP/s")
                table = measure_all(case, device, precision, repeats, rate)
                print_table(table, gpu)
                print_ratios(table)
                about = {"precision": precision, "batch": batch, "part": part, "floor_ms": floor}
                rows += [about | row for row in table]
                if options.json:  # after every table: what is measured is kept
                    header = {"device": where, "threads": torch.get_num_threads(), "versions": versions}
                    options.json.write_text(
                        json.dumps(header | {"repeats": repeats, "rows": rows}, indent=1), encoding="utf-8"
                    )


def make_case(options: Options, batch: int, device: torch.device, dtype: torch.dtype) -> Case:
    """A pyramid with boxes as a trained head gives them: the locations inside an object point at its edges."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.rand(shape, generator=generator)

    height, width = options.size
    xs, ltrbs = [], []
    for stride in STRIDES:
        h, w = -(-height // stride), -(-width // stride)
        coarse = rand(batch, 4, -(-h // 8) + 1, -(-w // 8) + 1)
        ltrb = (1 + 6 * F.interpolate(coarse, size=(h, w), mode="bilinear")) * stride  # background: smooth
        y, x = torch.meshgrid(torch.arange(h) * stride, torch.arange(w) * stride, indexing="ij")
        for image in ltrb:
            for _ in range(12):
                cx, cy, half = rand(1) * width, rand(1) * height, (2 + 6 * rand(1)) * stride
                box = torch.stack([x - cx + half, y - cy + half, cx + half - x, cy + half - y])
                noisy = box * (0.97 + 0.06 * rand(4, h, w))
                image.copy_(torch.where(box.amin(0) > 0, noisy, image))
        features = torch.randn(batch, options.channels, h, w, generator=generator)
        xs.append(features.to(device, dtype).contiguous(memory_format=torch.channels_last))
        ltrbs.append(ltrb.to(device).contiguous(memory_format=torch.channels_last))
    weight = torch.randn(options.channels, options.channels, 3, 3, generator=generator) / (9 * options.channels) ** 0.5
    return Case(xs, ltrbs, weight.to(device, dtype).contiguous(memory_format=torch.channels_last), STRIDES)


def pick(case: Case, level: int) -> Case:
    return Case([case.xs[level]], [case.ltrbs[level]], case.weight, (case.strides[level],))


def contenders(case: Case, device: torch.device, precision: str) -> dict[str, Contender]:
    """What to measure, by name."""
    offsets = [star_offsets(ltrb, stride) for ltrb, stride in zip(case.ltrbs, case.strides, strict=True)]
    half = [o.to(case.weight.dtype) for o in offsets]
    autocast = torch.autocast(device.type, DTYPES[precision]) if precision == "bf16" else nullcontext()

    def plain(xs, _, weight):
        return [F.conv2d(x, weight, padding=1) for x in xs]

    def torchvision_(xs, offsets, weight):
        with autocast:  # torchvision has no bfloat16: autocast takes it through float32
            return [deform_conv2d(x, o, weight, padding=(1, 1)) for x, o in zip(xs, offsets, strict=True)]

    def engine(name):
        def run(xs, ltrbs, weight):
            return star_conv2d_pyramid([(xs, weight)], ltrbs, case.strides, name)[0]

        return run

    def two_branches(xs, ltrbs, weight):
        pair = star_conv2d_pyramid([(xs, weight), (xs, weight)], ltrbs, case.strides)
        return pair[0] + pair[1]

    found: dict[str, Contender] = {"plain 3x3 convolution": (plain, case, case.ltrbs)}
    if device.type == "cuda" or precision == "fp32":
        rows = replace(case, xs=[x.contiguous() for x in case.xs], weight=case.weight.contiguous())
        found["torchvision"] = torchvision_, rows, (offsets if precision == "bf16" else half)
    if device.type == "cuda" and importlib.util.find_spec("deformops"):

        def deformops(xs, offsets, weight):
            conv = importlib.import_module("deformops.registry").conv
            return [conv(x.permute(0, 2, 3, 1), o, weight, padding=1) for x, o in zip(xs, offsets, strict=True)]

        native = [o.permute(0, 2, 3, 1).unflatten(3, (1, 9, 2)).contiguous() for o in half]
        found["deformops"] = deformops, case, native
    if device.type == "cpu" or len(case.xs[0]) == 1:  # it keeps 25 copies of the features
        found["reference"] = engine("reference"), case, case.ltrbs
    best = choose_engine(device, case.weight.dtype)
    if best not in found:
        found[best] = engine(best), case, case.ltrbs
    found[f"{best}, two branches"] = two_branches, case, case.ltrbs
    return found


def measure_all(case: Case, device: torch.device, precision: str, repeats: int, rate: float) -> list[dict]:
    table = []
    for name, (function, inputs, where) in contenders(case, device, precision).items():
        work = case.flop * (2 if "two branches" in name else 1)
        row: dict[str, Any] = {"name": name}
        try:
            for part, backward in ("forward", False), ("both", True):
                found = measure(function, inputs, where, device, repeats, backward)
                row |= {f"{part}_{key}": value for key, value in found.items()}
            row["backward_ms"] = row["both_ms"] - row["forward_ms"]
            row["forward_tflops"] = work / row["forward_ms"] / 1e9
            row["forward_share"] = work / rate * 1e3 / row["forward_ms"]
            row["both_share"] = 3 * work / rate * 1e3 / row["both_ms"]
        except Exception as error:  # out of memory, a rival that lacks the precision: the others go on
            row["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
        table.append(row)
    return table


def measure(function, case: Case, where: list[Tensor], device, repeats: int, backward: bool) -> dict[str, float]:
    """Median milliseconds and peak extra megabytes of forward, or of forward and backward."""
    xs = [x.detach().requires_grad_(backward) for x in case.xs]
    where = [w.detach().requires_grad_(backward) for w in where]
    weight = case.weight.detach().requires_grad_(backward)
    generator = torch.Generator().manual_seed(1)
    upstream = None

    def step():
        nonlocal upstream
        with torch.set_grad_enabled(backward):
            out = function(xs, where, weight)
            if not backward:
                return out
            if upstream is None:
                upstream = [torch.empty_like(o).copy_(torch.randn(o.shape, generator=generator)) for o in out]
            return out, torch.autograd.grad(out, [*xs, *where, weight], upstream, allow_unused=True)

    step()  # compile, tune, fill caches
    peak, scratch = peak_memory(step, device)
    eager = timed(step, device, repeats)
    queued = timed(step, device, repeats, ahead=True) if device.type == "cuda" else eager
    return {"mb": peak, "scratch_mb": scratch, "eager_ms": eager, "ms": queued}


def timed(step: Callable, device: torch.device, repeats: int, ahead: bool = False) -> float:
    """Median milliseconds: of the GPU between two events, or of all the process's CPU threads together.

    Process time ignores what else the machine does; divided by the number of threads it is the time on an idle one.

    Args:
        ahead: keep the GPU busy until the CPU has handed over all kernels of the step, so that none waits for the next.
    """
    times, cpu_ms = [], 0.0
    for _ in range(repeats + ahead):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            if ahead:
                torch.cuda._sleep(int(4e6 * cpu_ms))  # clock cycles: twice as long as handing over takes, at 2 GHz
            began = time.perf_counter()
            begin.record()
            step()
            end.record()
            cpu_ms = 1e3 * (time.perf_counter() - began)
            torch.cuda.synchronize(device)
            times.append(begin.elapsed_time(end))
        else:
            began = time.process_time()
            step()
            times.append(1e3 * (time.process_time() - began) / torch.get_num_threads())
    return statistics.median(times[ahead:])


def peak_memory(step: Callable, device: torch.device) -> tuple[float, float]:
    """Megabytes that PyTorch holds at the worst moment of a step, beyond those before, and beyond those after it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        results = step()
        peak, after = torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
        del results
        return (peak - before) / 1e6, (peak - after) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        results = step()
    del results
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    held = list(itertools.accumulate(size for _, size in changes))
    return max(held) / 1e6, (max(held) - held[-1]) / 1e6


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)  # the first call chooses and loads a kernel
    return 2 * n**3 / timed(lambda: torch.mm(a, b), device, 10) * 1e3


def print_table(table: list[dict], gpu: bool) -> None:
    eager = f"{'eager':>10}" if gpu else ""
    print(f"{'':<28}{'forward':>10}{eager}{'TFLOP/s':>9}{'of floor':>9}{'peak':>9}{'scratch':>9}"
          f"{'fwd + bwd':>12}{eager}{'of floor':>9}{'peak':>9}{'scratch':>9}")  # fmt: skip
    for row in table:
        if "error" in row:
            print(f"{row['name']:<28}   {row['error'][:80]}")
            continue
        forward, both = (f"{row[k]:>7.2f} ms" if gpu else "" for k in ("forward_eager_ms", "both_eager_ms"))
        print(f"{row['name']:<28}{row['forward_ms']:>7.2f} ms{forward}{row['forward_tflops']:>9.3g}"
              f"{row['forward_share']:>9.0%}{row['forward_mb']:>6.0f} MB{row['forward_scratch_mb']:>6.0f} MB"
              f"{row['both_ms']:>9.2f} ms{both}{row['both_share']:>9.0%}{row['both_mb']:>6.0f} MB"
              f"{row['both_scratch_mb']:>6.0f} MB")  # fmt: skip


def print_ratios(table: list[dict]) -> None:
    """What is asked of a kernel: its times and its memory against torchvision's and against a plain convolution's."""
    rows = {row["name"]: row for row in table if "error" not in row}
    base, plain = rows.pop("torchvision", None), rows.pop("plain 3x3 convolution", None)
    for name, row in rows.items():
        times = 2 if "two branches" in name else 1
        parts = [f"{name}:"]
        if base:
            faster = [times * base[k] / row[k] for k in ("forward_ms", "backward_ms", "forward_eager_ms")]
            peak, scratch = (times * base[k] / max(row[k], 1e-3) for k in ("both_mb", "both_scratch_mb"))
            parts += [f"forward {faster[0]:.1f} x (eager {faster[2]:.1f} x), backward {faster[1]:.1f} x as fast as"]
            parts += [f"torchvision, peak memory 1/{peak:.1f}, scratch 1/{scratch:.1f};"]
        if plain:
            slower = [row[k] / plain[k] / times for k in ("forward_ms", "both_ms")]
            parts += [f"{slower[0]:.1f} x the time of a plain convolution forward, {slower[1]:.1f} x both"]
        print(" ".join(parts))
