"""Batches, in an order that is a pure function of (seed, epoch).

Nothing here has a state to save: a run that is resumed asks for its epoch and batch, and gets the images it would have
got, changed in the same way, whatever the number of worker processes.
"""

import contextlib
import itertools
import os
import shutil
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.data.images import read_image
from vfnet_edu.data.transforms import AugmentConfig, augment, generator, resize, resized_size
from vfnet_edu.priors import ceil32
from vfnet_edu.runtime.errors import Exit, UserError

Batch = tuple[list[Tensor], list[dict]]


# ---- The order -------------------------------------------------------------------------------------------------------


def epoch_order(wide: np.ndarray, batch_size: int, seed: int, epoch: int, multiple: int = 1) -> np.ndarray:
    """Images of one epoch, shuffled into batches that are all landscape or all portrait, so that little is padded.

    As in mmdetection, each of the two groups is filled up to whole batches with images of its own, and the batches to a
    multiple of `multiple`, so every image is seen at least once.

    Args:
        wide: (N,) bool, landscape or not.

    Returns:
        (number of batches, batch_size) rows of the index.
    """
    rng = generator(seed, epoch, -1)
    groups = [rng.permutation(np.flatnonzero(wide == side)) for side in (False, True)]
    batches = [np.resize(group, (-(-len(group) // batch_size), batch_size)) for group in groups]
    batches = rng.permutation(np.concatenate(batches))
    return np.resize(batches, (-(-len(batches) // multiple) * multiple, batch_size))


@dataclass(frozen=True)
class Order:
    """The batches of one process over some epochs; yields lists of (epoch, row).

    The ranks of a step take consecutive batches. Hence 8 processes do in one step what one process does when it
    accumulates 8 batches.
    """

    wide: np.ndarray  # (N,) bool
    batch_size: int
    seed: int
    epochs: range
    start_batch: int = 0  # in the first of the epochs
    rank: int = 0
    world: int = 1
    accumulate: int = 1

    def per_epoch(self) -> int:
        landscape = int(self.wide.sum())
        batches = sum(-(-n // self.batch_size) for n in (landscape, len(self.wide) - landscape))
        return -(-batches // (self.world * self.accumulate)) * self.accumulate

    def __len__(self) -> int:
        return max(len(self.epochs) * self.per_epoch() - self.start_batch, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        start = self.start_batch
        for epoch in self.epochs:
            order = epoch_order(self.wide, self.batch_size, self.seed, epoch, self.world * self.accumulate)
            for batch in order[self.rank :: self.world][start:].tolist():
                yield [(epoch, row) for row in batch]
            start = 0


def _by_padded_size(index: CocoIndex, scale: tuple[int, int], batch_size: int) -> list[list[tuple[int, int]]]:
    """Batches of images that need no padding beyond their own: what is found does not depend on the batch size."""
    groups = {}
    for row in range(len(index)):
        size = tuple(ceil32(side) for side in resized_size(*index.size(row), scale))
        groups.setdefault(size, []).append((0, row))
    return [group[i : i + batch_size] for group in groups.values() for i in range(0, len(group), batch_size)]


# ---- Samples and batches ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Samples(Dataset[tuple[Tensor, dict] | UserError]):
    """(epoch, row) -> (image, target), or the UserError that says why there is none: an error raised in a worker would
    reach the user as a page of traceback."""

    index: CocoIndex
    change: AugmentConfig | tuple[int, int]  # how to augment, or only the scale to fit into
    seed: int = 0

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict] | UserError:
        epoch, row = key
        boxes, labels = self.index.target(row)
        try:
            image = read_image(self.index.path(row), self.index.size(row))
        except UserError as error:
            return error
        if isinstance(self.change, AugmentConfig):
            rng = generator(self.seed, epoch, row)
            image, boxes, labels, scale = augment(self.change.in_epoch(epoch), rng, image, boxes, labels)
        else:
            image, boxes, scale = resize(image, boxes, self.change)
        target = {
            "boxes": boxes,
            "labels": labels,
            "image_id": int(self.index.image_ids[row]),
            "scale": scale,
            "original_size": self.index.size(row),
            "index": row,
        }
        return torch.from_numpy(np.stack(cv2.split(image))), target  # (h, w, 3) -> (3, h, w)


class Loader:
    """Batches (images, targets), prepared by `workers` other processes (0: by this one).

    images: list of (3, h, w) uint8. targets: list of dicts with "boxes" (G, 4) float32 xyxy and "labels" (G,) int64 as
    tensors, "image_id", "index" (row of the index), "scale" (sx, sy) = resized / original, "original_size" (h, w).

    Iterating raises UserError: a bad image (named), or a worker that died or hung for `timeout` seconds.
    """

    def __init__(self, samples: Samples, order, workers: int, timeout: float = 120):
        self.samples, self.order, self.workers, self.timeout = samples, order, workers, timeout

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        batches = DataLoader(
            self.samples,
            batch_sampler=self.order,
            num_workers=self.workers,
            collate_fn=list,
            pin_memory=torch.cuda.is_available(),
            timeout=self.timeout if self.workers else 0,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # workers draw their (unused) seeds from it: the global one is left alone
        )
        stream = iter(batches)
        try:
            with guarded(self.workers):
                for done in range(len(self)):
                    yield _unpack(self._next(stream, done))
        finally:
            # An error on its way up keeps the stream alive; the garbage collector, which finds both much later, takes
            # them apart in an order that waits five seconds for every worker, in vain.
            getattr(stream, "_shutdown_workers", lambda: None)()

    def _next(self, stream: Iterator[list], done: int) -> list:
        try:
            return next(stream)
        except RuntimeError as error:
            if "DataLoader timed out" in str(error):
                raise self._hung(done) from error
            raise

    def _hung(self, done: int) -> UserError:
        awaited = next(itertools.islice(self.order, done, None))
        files = ", ".join(str(self.samples.index.path(row)) for _, row in awaited)
        what = f"no batch came within {self.timeout:g} seconds; it should hold {files}"
        return UserError(what, remedy="is the disk or the network drive stuck?", code=Exit.WORKER)


def _unpack(samples: list) -> Batch:
    for sample in samples:
        if isinstance(sample, UserError):
            raise sample
    images, targets = zip(*samples, strict=True)
    # Boxes travel as numpy: every tensor costs an open file, and those are scarce. Pinning turns tuples into lists.
    change = {"boxes": torch.from_numpy, "labels": torch.from_numpy, "scale": tuple, "original_size": tuple}
    return list(images), [t | {key: into(t[key]) for key, into in change.items()} for t in targets]


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which still wants its batches


@contextlib.contextmanager
def guarded(workers: int):
    """Turn the death of a worker into a UserError. Put it around a training loop: torch may raise anywhere in it."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error):
            raise
        if isinstance(error, BrokenPipeError) and not _raised_in(error, "multiprocessing"):
            raise  # it is our own stdout that was closed, as by `... | head`
        raise UserError(
            f"a data-loading process died ({str(error).strip().splitlines()[0]}): most likely it ran out of memory"
            f" ({workers} workers; free: {_free()})",
            remedy=f"use fewer, --data.workers {workers // 2}; in a container, give it more shared memory",
            code=Exit.WORKER,
        ) from error


def _raised_in(error: BaseException, package: str) -> bool:
    """Whether the innermost Python function on the path of an error belongs to `package`."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return modules[-1].split(".")[0] == package


def _free() -> str:
    free = {}
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Linux says; macOS and Windows do not
        free["memory"] = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError):
        free["shared memory"] = shutil.disk_usage("/dev/shm").free
    return ", ".join(f"{what} {size / 1e9:.1f} GB" for what, size in free.items()) or "unknown"


# ---- The two loaders -------------------------------------------------------------------------------------------------


def train_loader(
    index: CocoIndex,
    augment: AugmentConfig,
    batch_size: int,
    seed: int,
    epochs: range,
    start_batch: int = 0,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
    workers: int = 2,
    timeout: float = 120,
) -> Loader:
    """Batches of one process, epoch after epoch: ``loader.order.per_epoch()`` of them each, a multiple of `accumulate`.

    One loader serves the whole run, so the workers start once and never wait for an epoch to end.

    Args:
        index: of the images to learn from (`CocoIndex.for_training`).
        batch_size: images per batch of this process.
        epochs: those to run, as ``range(3, 12)`` for a run resumed in epoch 3.
        start_batch: where to start in the first of them; earlier images are not read.
        accumulate: batches that the caller adds up to one step.
    """
    order = Order(index.widths > index.heights, batch_size, seed, epochs, start_batch, rank, world, accumulate)
    return Loader(Samples(index, augment, seed), order, workers, timeout)


def val_loader(
    index: CocoIndex,
    scale: tuple[int, int],
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 2,
    timeout: float = 120,
) -> Loader:
    """Every image once over all ranks, only resized (to fit into `scale`), in an order of its own."""
    batches = _by_padded_size(index, scale, batch_size)
    return Loader(Samples(index, scale), batches[rank::world], workers, timeout)
