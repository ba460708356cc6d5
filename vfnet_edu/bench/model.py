"""How fast is a model?  `python -m vfnet_edu.bench model [RECIPE ...]`: images per second, answering and learning.

With `--profile`, also where the time of a training step goes, kernel by kernel.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torchvision
import tyro
from torch.profiler import ProfilerActivity, profile

from vfnet_edu import losses, recipes
from vfnet_edu.models.detector import build
from vfnet_edu.ops.star.operator import choose_engine
from vfnet_edu.runtime.devices import PRECISION


@dataclass(frozen=True)
class Options:
    recipes: tyro.conf.Positional[tuple[str, ...]] = ("vfnet_r50_1x",)
    """recipes to measure"""
    size: tuple[int, int] = (800, 1333)
    """height and width of the images"""
    batch: int = 1
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    repeats: int = 3
    profile: int = 0
    """also list this many of the kernels (on a CPU: operators) that take longest in a training step"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.bench model")
    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(found if options.device == "auto" else options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {name}, {options.precision}")
    engine = choose_engine(device, PRECISION[options.precision] or torch.float32)
    h, w = options.size
    print(f"batch {options.batch} x 3 x {h} x {w}, star engine {engine}, median of {options.repeats}\n")
    print(f"{'recipe':<28}  answer img/s  learn img/s" + ("  learn peak GB" if device.type == "cuda" else ""))
    for row in options.recipes:
        model = build(replace(recipes.by_name(row), backbone_weights="none")).to(device)
        model = model.to(memory_format=torch.channels_last)
        answer = measure(model, options, device, teach=False)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        learn = measure(model, options, device, teach=True)
        peak = f"  {torch.cuda.max_memory_allocated(device) / 1e9:13.1f}" if device.type == "cuda" else ""
        print(f"{row:<28}  {answer:12.2f}  {learn:11.2f}{peak}")
        if options.profile:
            print_profile(model, options, device)
        del model  # before the next is built


def measure(model, options: Options, device: torch.device, teach: bool) -> float:
    """Images per second of whole calls, uint8 images to detections or to gradients."""
    step, times = make_step(model, options, device, teach), []
    for _ in range(options.repeats + 1):  # the first warms up
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return options.batch / statistics.median(times[1:])


def make_step(model, options: Options, device: torch.device, teach: bool) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)
    shape = (3, *options.size)
    images = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(options.batch)]
    h, w = options.size
    box = torch.tensor([[0.1 * w, 0.1 * h, 0.4 * w, 0.5 * h], [0.5 * w, 0.3 * h, 0.6 * w, 0.4 * h]])
    targets = [{"boxes": box, "labels": torch.tensor([0, 1])}] * options.batch
    dtype = PRECISION[options.precision]
    model.train(teach)

    def step():
        with torch.autocast(device.type, dtype, enabled=dtype is not None), torch.set_grad_enabled(teach):
            result = model(images, targets if teach else None)
        if teach:
            losses.total(result).backward()
            model.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def print_profile(model, options: Options, device: torch.device) -> None:
    """The longest kernels of one training step, and all kernels of the star together."""
    step = make_step(model, options, device, teach=True)
    step()
    gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as profiler:
        step()
    found = [
        (e.self_device_time_total if gpu else e.self_cpu_time_total, e.count, e.key) for e in profiler.key_averages()
    ]
    total = sum(us for us, *_ in found)
    if not total:
        print("the profiler saw no kernel: is profiling allowed on this machine?")
        return
    print(f"\n{'share':>7} {'ms':>9} {'calls':>6}  of a training step: {total / 1e3:.2f} ms in {len(found)} kinds")
    for us, calls, name in sorted(found, reverse=True)[: options.profile]:
        print(f"{us / total:7.1%} {us / 1e3:9.3f} {calls:6}  {name[:90]}")
    star = [(us, calls) for us, calls, name in found if "star_" in name]
    print(f"{sum(us for us, _ in star) / total:7.1%} {sum(us for us, _ in star) / 1e3:9.3f}"
          f" {sum(calls for _, calls in star):6}  all kernels of the star\n")  # fmt: skip
