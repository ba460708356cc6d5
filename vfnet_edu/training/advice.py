"""Which command fits a data set on this machine, why, and about how long it will take.

Rules of thumb: they rest on what an object loses when its image is made smaller, and on one training that was recorded
(README: 292 photographs of blood cells).  A command to start from, not the best one.
"""

import math
import os
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from vfnet_edu import recipes
from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.data.loader import Samples
from vfnet_edu.data.transforms import resized_size
from vfnet_edu.losses import total
from vfnet_edu.models.detector import build
from vfnet_edu.priors import ceil32
from vfnet_edu.recipe import LARGEST, Recipe, at_size
from vfnet_edu.runtime.devices import PRECISION, Ranks
from vfnet_edu.training.learner import Learner, make_learner

SIZES = (128, 160, 192, 224, 256, 320, 384, 448, 512, 640)  # to choose from without a GPU
CELLS = 2.0  # so many cells of the finest level a side of an object should have ...
SHARE = 0.95  # ... in this share of all objects
STEPS = 900  # what the recorded training took; fewer steps on photographs are too few
MOST_EPOCHS = 100
PATIENCE = 4.0  # seconds: after a first step that took longer, no second is measured
PIXELS = 1_000_000  # in a step that is measured: more would take too long to ask for


@dataclass(frozen=True)
class Advice:
    """A command, and why."""

    options: tuple[str, ...]  # of `vfnet_edu.train`, without those that name the data
    reasons: tuple[tuple[str, str], ...]  # (what, why)


@dataclass(frozen=True)
class Speed:
    """Seconds per image."""

    load: float
    learn: float
    answer: float
    images: int  # in the step that was measured
    threads: int


def cells(recipe: Recipe, index: CocoIndex) -> np.ndarray:
    """(G,) side of every object to learn, sqrt(width x height), in cells of the finest level.

    Images are resized to the recipe's test scale.
    """
    these = index.valid & ~index.crowd
    h, w = index.heights[index.rows[these]], index.widths[index.rows[these]]
    long, short = max(recipe.data.test_scale), min(recipe.data.test_scale)
    ratio = np.minimum(long / np.maximum(h, w), short / np.minimum(h, w))
    sides = np.sqrt(index.xywh[these, 2] * index.xywh[these, 3])
    return sides * ratio / recipe.head.strides[0]


def what_is_lost(recipe: Recipe, index: CocoIndex) -> str:
    """A sentence about objects that become smaller than a cell; "" where they are less than one in a hundred."""
    small = float((cells(recipe, index) < 1).mean())
    if small < 0.01:
        return ""
    height, width = _median_size(index)
    h, w = resized_size(height, width, recipe.data.test_scale)
    better = next((s for s in SIZES if s > max(h, w) and _smaller(at_size(recipe, s), index) < small / 2), None)
    other = f"; at --size {better} {_percent(_smaller(at_size(recipe, better), index))}" if better else ""
    return (
        f"images of {width} x {height} pixels become {w} x {h}: {_percent(small)} of the objects are then smaller than"
        f" a cell of {recipe.head.strides[0]} pixels, and hardly to be found{other} (vfnet_edu.check says more)"
    )


def advise(train: CocoIndex, val: CocoIndex | None, device: torch.device, measure: bool = True) -> Advice:
    """A command to start from.

    Args:
        train: the images to learn from (`CocoIndex.for_training`).
        val: those to be judged by.
        device: what it will run on.
        measure: take the time of a training step, for an estimate of the whole.
    """
    gpu = device.type == "cuda"
    base = recipes.vfnet_r50_1x() if gpu else recipes.vfnet_small()
    size = _own_size(train) if gpu else _smallest_size(base, train)
    fits = size in (None, max(base.data.test_scale))
    recipe = base if size is None or fits else at_size(base, size)
    recipe, epochs = _long_enough(recipe, len(train))
    why = "with a GPU, the paper's smallest; it starts from ImageNet's weights, which are downloaded"
    if not gpu:
        why = "PyTorch sees no GPU here; vfnet_r50_1x, the paper's smallest, needs one"
    reasons = [(base.name, why), ("size" if fits else f"--size {size}", _about_size(base, recipe, train))]
    if epochs:
        reasons.append((f"--optim.epochs {recipe.optim.epochs}", _about_epochs(recipe, len(train))))
    if measure:
        reasons.append(("time", _about_time(recipe, train, val, device)))
    options = (base.name, *(() if fits else ("--size", str(size))), *epochs)
    return Advice(options, tuple(reasons))


# ---- Size ------------------------------------------------------------------------------------------------------------


def _median_size(index: CocoIndex) -> tuple[int, int]:
    """(height, width) of the image in the middle, by area."""
    return index.size(int(np.argsort(index.heights * index.widths, kind="stable")[len(index) // 2]))


def _own_size(index: CocoIndex) -> int | None:
    """The size of the photographs, where it is less than that of COCO training; else None."""
    longest = max(_median_size(index))
    return ceil32(longest) if longest < 1000 else None


def _smallest_size(recipe: Recipe, index: CocoIndex) -> int:
    """The smallest of `SIZES` at which most objects have some cells, but not above the size of the photographs."""
    useful = [size for size in SIZES if size < ceil32(max(_median_size(index))) + 32] or [SIZES[0]]
    enough = (size for size in useful if (cells(at_size(recipe, size), index) >= CELLS).mean() >= SHARE)
    return next(enough, useful[-1])


def _smaller(recipe: Recipe, index: CocoIndex) -> float:
    """The share of objects smaller than a cell."""
    return float((cells(recipe, index) < 1).mean())


def _about_size(base: Recipe, recipe: Recipe, index: CocoIndex) -> str:
    height, width = _median_size(index)
    rows = {
        max(r.data.test_scale): r for r in (base, recipe, at_size(recipe, min(ceil32(max(height, width)), LARGEST)))
    }
    shares = ", ".join(f"{_percent(_smaller(r, index))} at {size}" for size, r in sorted(rows.items()))
    few = float((cells(recipe, index) < CELLS).mean())
    return (
        f"the median image is {width} x {height}; objects smaller than a cell of {recipe.head.strides[0]} pixels, which"
        f" are hardly found: {shares}; time grows with the square; at {max(recipe.data.test_scale)},"
        f" {_percent(1 - few)} have sides of {CELLS:g} cells or more"
    )


# ---- Time ------------------------------------------------------------------------------------------------------------


def _long_enough(recipe: Recipe, images: int) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with enough epochs for `STEPS`, and the options that say so; () where its own are enough."""
    optim = recipe.optim
    epochs = min(math.ceil(STEPS / math.ceil(images / recipe.data.batch_size)), MOST_EPOCHS)
    if epochs <= optim.epochs:
        return recipe, ()
    options = ["--optim.epochs", str(epochs)]
    drops = tuple(round(epochs * drop / optim.epochs) for drop in optim.drop_at)
    if optim.schedule == "step":
        optim = replace(optim, drop_at=drops)
        options += ["--optim.drop-at", *map(str, drops)]
    return replace(recipe, optim=replace(optim, epochs=epochs)), tuple(options)


def _about_epochs(recipe: Recipe, images: int) -> str:
    steps = math.ceil(images / recipe.data.batch_size)
    all_steps = steps * recipe.optim.epochs
    enough = f"{all_steps:,} in all; the training on record (292 photographs of blood cells) took about {STEPS}"
    if all_steps < STEPS:
        enough = f"{all_steps:,} in all: very few images, more of them would help most"
    return f"{images:,} images make {steps:,} step{'s' * (steps > 1)} of {recipe.data.batch_size} an epoch, {enough}"


def _about_time(recipe: Recipe, train: CocoIndex, val: CocoIndex | None, device: torch.device) -> str:
    try:
        speed = measure_speed(recipe, train, device)
    except (RuntimeError, MemoryError) as error:  # no room for a step
        return f"not known, a step failed: {str(error).splitlines()[0]:.200}"
    optim, change = recipe.optim, recipe.data.augment
    epochs = min(change.small_epochs, optim.epochs) * (change.small**2 - 1) + optim.epochs  # small ones count less
    load = speed.load if device.type == "cpu" else 0.0  # else other processes load in the meantime
    seconds = len(train) * epochs * (speed.learn + load)
    evaluations = math.ceil(optim.epochs / recipe.eval_every)
    seconds += evaluations * (len(val) if val else 0) * (speed.answer + load)
    on = f"{speed.threads} thread{'s' * (speed.threads > 1)}" if device.type == "cpu" else "this GPU"
    return (
        f"about {_duration(seconds)}, an estimate: a step of {speed.images} image{'s' * (speed.images > 1)} took"
        f" {speed.learn * speed.images:.2f} s just now, on {on}{_busy()}"
    )


def _busy() -> str:
    """What other programs do to the estimate; "" where this is not known, or they do nothing."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # Windows has none
    return (
        f"; other programs are busy (load {load:.0f} on {cores} cores), without them it is less" if load > cores else ""
    )


def measure_speed(recipe: Recipe, index: CocoIndex, device: torch.device) -> Speed:
    """Load some images, learn from them and answer once; of two steps the second counts, as the first prepares much."""
    h, w = resized_size(*_median_size(index), recipe.data.test_scale)
    count = min(max(PIXELS // (h * w), 1), recipe.data.images_per_gpu, len(index))
    began = time.perf_counter()
    samples = Samples(index, recipe.data.augment, recipe.seed)
    # Epochs after the small ones, so that images have their whole size.
    pairs = [
        samples[recipe.data.augment.small_epochs, row] for row in np.linspace(0, len(index) - 1, count).astype(int)
    ]
    load = (time.perf_counter() - began) / count
    for pair in pairs:
        if isinstance(pair, Exception):
            raise pair
    images, targets = zip(*pairs, strict=True)
    keys = ("boxes", "labels")
    batch = list(images), [{key: torch.from_numpy(target[key]) for key in keys} for target in targets]
    with torch.random.fork_rng():
        learner = make_learner(build(recipe, index.classes), Ranks(0, 1, device))
        learn = _timed(learner, batch, teach=True)
        if learn < PATIENCE:
            learn = _timed(learner, batch, teach=True)
        answer = _timed(learner, batch, teach=False)
    return Speed(load, learn / count, answer / count, count, torch.get_num_threads())


def _timed(learner: Learner, batch: tuple[list, list], teach: bool) -> float:
    """Seconds that one step takes, or one answer."""
    device, dtype = learner.ranks.device, PRECISION[learner.precision]
    learner.model.train(teach)
    began = time.perf_counter()
    with torch.autocast(device.type, dtype, enabled=dtype is not None), torch.set_grad_enabled(teach):
        result = learner.model(*batch) if teach else learner.model(batch[0])
    if teach:
        total(result).backward()
        learner.optimizer.step()
        learner.optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1.5:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.0f} hours"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share == 0 or share >= 0.01 else "under 1 %"
