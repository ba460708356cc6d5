"""How fast is a model?  `python -m vfnet_edu.bench model [RECIPE ...]`: images per second, answering and learning."""

import statistics
import time
from dataclasses import dataclass, replace

import torch
import torchvision
import tyro

from vfnet_edu import recipes
from vfnet_edu.builder import build
from vfnet_edu.ops.star import choose_engine

PRECISION = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Options:
    recipes: tyro.conf.Positional[tuple[str, ...]] = ("vfnet_r50_1x",)
    """rows to measure"""
    size: tuple[int, int] = (800, 1333)
    """height and width of the images"""
    batch: int = 1
    device: str = "auto"
    precision: str = "fp32"
    """fp32, bf16 or fp16"""
    repeats: int = 3


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
        answer, learn = (measure(model, options, device, teach) for teach in (False, True))
        peak = f"  {torch.cuda.max_memory_allocated(device) / 1e9:13.1f}" if device.type == "cuda" else ""
        print(f"{row:<28}  {answer:12.2f}  {learn:11.2f}{peak}")


def measure(model, options: Options, device: torch.device, teach: bool) -> float:
    """Images per second of whole calls, uint8 images to detections or to gradients."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, *options.size)
    images = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(options.batch)]
    h, w = options.size
    box = torch.tensor([[0.1 * w, 0.1 * h, 0.4 * w, 0.5 * h], [0.5 * w, 0.3 * h, 0.6 * w, 0.4 * h]])
    targets = [{"boxes": box, "labels": torch.tensor([0, 1])}] * options.batch
    dtype, times = PRECISION[options.precision], []
    model.train(teach)
    for _ in range(options.repeats + 1):  # the first warms up
        began = time.perf_counter()
        with torch.autocast(device.type, dtype, enabled=dtype is not None), torch.set_grad_enabled(teach):
            result = model(images, targets if teach else None)
        if teach:
            sum(result.values()).backward()
            model.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return options.batch / statistics.median(times[1:])
