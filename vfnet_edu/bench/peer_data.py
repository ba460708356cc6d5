"""Data of `bench peers`: loading, reading and scoring, beside torchvision, pycocotools and faster-coco-eval."""

import contextlib
import io
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from vfnet_edu import recipes
from vfnet_edu.bench import synthetic
from vfnet_edu.bench.sizes import Sizes
from vfnet_edu.bench.turns import Turn
from vfnet_edu.data.coco import read_coco
from vfnet_edu.data.loader import train_loader
from vfnet_edu.data.shapes import write_shape_scenes
from vfnet_edu.evaluation.scores import coco_scores
from vfnet_edu.runtime.files import cache_folder


def scenes(sizes: Sizes) -> tuple[Path, Path]:
    """The json and the image folder of drawn scenes of 480 x 640."""
    folder = write_shape_scenes(sizes.folder / f"scenes_{sizes.scenes}", sizes.scenes, 1, (480, 640))
    return folder / "annotations" / "instances_train.json", folder / "train"


def batches_of(loader: Iterable, workers: int, count: int) -> Turn:
    """So many batches of an endless loader whose workers are at work already."""
    running = []

    def before():
        running.append(iter(loader))
        list(itertools.islice(running[0], 2 + 4 * workers))  # more than they prepare in advance

    return Turn(lambda: list(itertools.islice(running[0], count)), before, after=running.clear)


def our_loader(workers: int) -> Callable[[Sizes], Turn]:
    def make(sizes: Sizes) -> Turn:
        index, _ = read_coco(*scenes(sizes)).for_training()
        config = recipes.vfnet_r50_1x().data.augment
        return batches_of(train_loader(index, config, 2, 0, range(10**6), workers=workers), workers, sizes.batches)

    return make


def peer_loader(workers: int) -> Callable[[Sizes], Turn]:
    """What torchvision's documentation proposes for detection."""

    def make(sizes: Sizes) -> Turn:
        change = v2.Compose(
            [v2.ToImage(), v2.RandomShortestSize(800, 1333), v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes()]
        )
        path, folder = scenes(sizes)
        data: Any = wrap_dataset_for_transforms_v2(
            silenced(lambda: CocoDetection(folder, str(path), transforms=change))()
        )
        loader = DataLoader(
            data, 2, sampler=RandomSampler(data, num_samples=10**6), num_workers=workers, collate_fn=list
        )
        return batches_of(loader, workers, sizes.batches)

    return make


def annotations_to_read(sizes: Sizes) -> Path:
    return synthetic.annotations(sizes.folder, max(1, round(1e6 * sizes.json_mb / synthetic.IMAGE_BYTES)))


def our_first_reading(sizes: Sizes) -> Turn:
    path = annotations_to_read(sizes)

    def forget():
        for entry in (cache_folder() / "coco").glob(f"{path.stem}-*.npz"):
            entry.unlink()

    return Turn(lambda: read_coco(path, path.parent), before=forget)


def our_next_reading(sizes: Sizes) -> Turn:
    path = annotations_to_read(sizes)  # the first reading, a turn before, has filled the cache
    return Turn(lambda: read_coco(path, path.parent))


def pycocotools_reading(sizes: Sizes) -> Turn:
    from pycocotools.coco import COCO

    path = annotations_to_read(sizes)
    return Turn(silenced(lambda: COCO(path)))


def our_scores(sizes: Sizes) -> Turn:
    path = synthetic.annotations(sizes.folder, sizes.scored)
    index, results = read_coco(path, path.parent), synthetic.detections(path, sizes.detections)
    return Turn(lambda: coco_scores(index, results))


def pycocotools_scores(sizes: Sizes) -> Turn:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return library_scores(COCO, COCOeval, sizes)


def faster_coco_eval_scores(sizes: Sizes) -> Turn:
    from faster_coco_eval import COCO, COCOeval_faster

    return library_scores(COCO, COCOeval_faster, sizes)


def library_scores(coco: Any, coco_eval: Any, sizes: Sizes) -> Turn:
    """What the documentation of pycocotools and of faster-coco-eval proposes; the annotations are read before."""
    path = synthetic.annotations(sizes.folder, sizes.scored)
    truth, results = silenced(lambda: coco(str(path)))(), synthetic.detections(path, sizes.detections)

    def run():
        judge = coco_eval(truth, truth.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        return judge.stats

    return Turn(silenced(run))


def silenced(function: Callable[[], Any]) -> Callable[[], Any]:
    """The same without what it prints."""

    def run():
        with contextlib.redirect_stdout(io.StringIO()):
            return function()

    return run
