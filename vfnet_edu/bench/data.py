"""How fast does data arrive?  `python -m vfnet_edu.bench data`: images per second, by number of workers."""

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from vfnet_edu import recipes
from vfnet_edu.data.annotations import read_split
from vfnet_edu.data.loader import train_loader
from vfnet_edu.data.paths import find_dataset
from vfnet_edu.data.shapes import write_shape_scenes


@dataclass(frozen=True)
class Options:
    recipe: tyro.conf.Positional[str] = "vfnet_r50_1x"
    """whose resize and augmentation to measure"""
    data: Path | None = None
    """data set folder; by default the embedded one, drawn at 640 x 480"""
    workers: tuple[int, ...] = (0, 1, 2)
    """numbers of loading processes to try"""
    batches: int = 20
    """batches to time, after two to warm up"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.bench data")
    data = recipes.by_name(options.recipe).data
    folder = options.data or write_shape_scenes(Path("data/shape_scenes_640"), 100, 0, (480, 640))
    layout = find_dataset(folder)
    index, _ = read_split(layout.train).for_training()
    print(f"{options.recipe}, {folder}: {len(index)} images, batches of {data.images_per_gpu}\n")
    print("workers  images/s  images/s per worker")
    for workers in options.workers:
        loader = train_loader(index, data.augment, data.images_per_gpu, 0, range(10**6), workers=workers)
        batches = iter(loader)
        for _ in range(2):
            next(batches)
        began = time.perf_counter()
        images = sum(len(batch) for batch, _ in itertools.islice(batches, options.batches))
        rate = images / (time.perf_counter() - began)
        print(f"{workers:7d}  {rate:8.1f}  {rate / max(workers, 1):8.1f}")
        del batches
