"""One pass over a data set: detections, validation losses, calibration.  evaluation/scores.py turns them into AP.

``python -m vfnet_edu.evaluate CHECKPOINT --data DIR``, or ``--results FILE.json`` to score detections made elsewhere.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import torch.distributed as dist
import tyro
from tqdm import tqdm

from vfnet_edu.boxes import xyxy_to_xywh
from vfnet_edu.data.coco import CocoIndex, read_coco
from vfnet_edu.data.loader import val_loader
from vfnet_edu.data.paths import DataPaths, find_split
from vfnet_edu.data.shapes import write_shape_scenes
from vfnet_edu.evaluation.calibration import Calibration, score_iou_pairs
from vfnet_edu.evaluation.scores import Outcome, Scores, coco_scores
from vfnet_edu.recipes import EMBEDDED
from vfnet_edu.runtime import devices
from vfnet_edu.runtime.config import to_text
from vfnet_edu.runtime.errors import Exit, UserError, cli
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.viz.report import write_report
from vfnet_edu.weights import ours

__all__ = ["Outcome", "Scores", "coco_scores", "eval_record", "run"]


@torch.no_grad()
def run(
    model,
    loader: Iterable,
    index: CocoIndex,
    device: torch.device | str = "cpu",
    *,
    losses: bool = True,
    autocast: torch.dtype | None = None,
    tick: Callable[[int], None] | None = None,
) -> Outcome:
    """Detections, validation losses and calibration pairs of a data set from one forward pass per batch.

    In a distributed job every process takes its share of the loader, and all of them return the whole outcome; images
    that a sampler repeats to make the shares equal count once.

    Args:
        model: a Detector; left in the mode (training or not) it came in.
        loader: yields (images, targets), see data/loader.py.
        index: the data set the loader reads.
        losses: False saves the time of assigning targets.
        autocast: lower precision of the forward pass, e.g. torch.bfloat16.
        tick: called after each batch with the number of images done here; what it raises passes through.

    Raises:
        UserError: code DIVERGED where a score or a box is not finite, naming the image.
    """
    device, training = torch.device(device), model.training
    found: dict[int, np.ndarray] = {}  # image number -> (D, 6): x, y, w, h, score, label
    sums: dict[str, float] = {}
    calibration = Calibration()
    model.eval()
    try:
        for images, targets in loader:
            targets = [{**t, "boxes": t["boxes"].to(device), "labels": t["labels"].to(device)} for t in targets]
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                out = model.raw(images)
            candidates = model.candidates(out, images)
            scores = candidates.scores  # (B, P, K)
            if candidates.factor is not None:
                scores = scores * candidates.factor[..., None]
            _check_finite(scores, candidates.boxes, targets)
            detections = model.answer(out, images, [t["scale"] for t in targets])
            for i, (target, best) in enumerate(zip(targets, detections, strict=True)):
                boxes = xyxy_to_xywh(best.boxes.double())
                rows = torch.cat([boxes, best.scores.double()[:, None], best.labels.double()[:, None]], 1)  # (D, 6)
                found[target["index"]] = rows.cpu().numpy()
                calibration.add(target["index"], score_iou_pairs(scores[i], candidates.boxes[i], target))
            for name, value in (model.teach(out, targets, images) if losses else {}).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(images)
            if tick:
                tick(len(found))
    finally:
        model.train(training)

    seen = len(found)
    if dist.is_initialized():
        shares = [None] * dist.get_world_size()
        dist.all_gather_object(shares, (found, sums, seen, calibration))
        found, sums, seen, calibration = {}, {}, 0, Calibration()
        for their_found, their_sums, their_seen, their_calibration in shares:
            found |= their_found
            sums = {name: sums.get(name, 0.0) + value for name, value in their_sums.items()}
            seen += their_seen
            calibration.merge(their_calibration)
    images, categories = index.image_ids.tolist(), index.category_ids.tolist()
    results = [
        {"image_id": images[n], "category_id": categories[int(label)], "bbox": box, "score": score}
        for n in sorted(found)
        for *box, score, label in found[n].tolist()
    ]
    return Outcome(results, {name: total / max(seen, 1) for name, total in sums.items()}, calibration)


def _check_finite(scores: torch.Tensor, boxes: torch.Tensor, targets: list[dict]) -> None:
    fine = scores.isfinite().all(2).all(1) & boxes.isfinite().all(2).all(1)  # (B,)
    if not fine.all():
        image = targets[int((~fine).nonzero()[0])]["image_id"]
        raise UserError(
            f"image {image!r}: the model's scores or boxes are not finite",
            remedy="it has diverged: take an earlier checkpoint and a lower learning rate",
            code=Exit.DIVERGED,
        )


def eval_record(epoch: int, step: int, scores: Scores, outcome: Outcome) -> dict:
    """The line that one evaluation adds to a run's metrics.jsonl (schema: viz/report.py)."""
    return {"kind": "eval", "epoch": epoch, "step": step, **scores.record(), **outcome.record()}


# ------------------------------------------------------------------ the command
@dataclass(frozen=True)
class Options:
    """Score a checkpoint, or detections made elsewhere, on a COCO data set.

    Without a path it is the data set that the checkpoint's recipe trains on by default.
    """

    checkpoint: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")] = None
    """best.safetensors, last.pt or a run folder"""
    paths: Annotated[DataPaths, tyro.conf.arg(name="")] = DataPaths()
    split: Literal["train", "val"] = "val"
    """which images to score on; train shows how much was learned by heart"""
    results: Path | None = None
    """score this COCO result file; no checkpoint and no images are needed"""
    out: Path | None = None
    """folder for results.json, scores.json, pictures and a page"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    batch_size: int = 2
    """images per GPU"""
    workers: int = 2
    """data-loading processes per GPU"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.evaluate")
    if (options.checkpoint is None) == (options.results is None):
        raise UserError("nothing to score", remedy="give a checkpoint, or --results FILE.json")
    if options.results:
        print(coco_scores(open_data(options), options.results).table())
        return
    ranks = devices.setup(options.device)
    try:
        recipe, model = ours.load(options.checkpoint, ranks.device)
        index = open_data(options, recipe.name)
        index.check_files()
        if model.classes != index.classes:
            raise UserError(
                f"{options.checkpoint} knows {_few(model.classes)}; {index.json_path} has {_few(index.classes)}",
                remedy="evaluate on data with the classes of the training set, in the same order",
                code=Exit.DATA,
            )
        scale = recipe.data.test_scale
        loader = val_loader(index, scale, options.batch_size, ranks.rank, ranks.world, options.workers)
        with tqdm(total=-(-len(index) // ranks.world), unit="image", disable=not ranks.main, dynamic_ncols=True) as bar:
            outcome = run(model, loader, index, ranks.device, tick=lambda done: bar.update(done - bar.n))
        if ranks.main:
            scores = coco_scores(index, outcome.results)
            print(scores.table())
            record = eval_record(0, 0, scores, outcome)
            print("\n" + "\n".join(f"{k:<24}{v:.3f}" for k, v in record.items() if k[:4] in ("val_", "rank") and v))
            if options.out:
                write(options.out, recipe, options.checkpoint, scores, outcome, index)
    finally:
        devices.close()


def open_data(options: Options, recipe: str = "") -> CocoIndex:
    """The images to score on; without a path those of the data set that the recipe is trained on by default."""
    paths, split = options.paths, options.split
    if paths == DataPaths():
        paths = DataPaths(write_shape_scenes(Path("data/shape_scenes")) if recipe in EMBEDDED else Path("data/coco"))
    found = find_split(paths, split)
    if found is None:
        what = {"train": "training", "val": "validation"}[split]
        where = f"{paths.data} has no {what} set" if paths.data else f"no {what} set is named"
        raise UserError(where, remedy=f"give --{split}-json", code=Exit.DATA)
    return read_coco(*found)


def write(folder: Path, recipe, checkpoint: Path, scores: Scores, outcome: Outcome, index: CocoIndex) -> None:
    """results.json in COCO's format, scores.json, config.txt and the report."""
    folder.mkdir(parents=True, exist_ok=True)
    record = scores.record() | {"checkpoint": str(checkpoint), "annotations": str(index.json_path)}
    write_atomically(folder / "results.json", json.dumps(outcome.results).encode())
    write_atomically(folder / "scores.json", json.dumps(record, indent=1).encode())
    write_atomically(folder / "config.txt", to_text(recipe).encode())
    write_report(folder, scores, outcome, index, {"checkpoint": checkpoint, "annotations": index.json_path})
    print(f"\nthe report is {folder / 'index.html'}")


def _few(names: tuple[str, ...]) -> str:
    return f"{len(names)} classes ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"


if __name__ == "__main__":
    cli(main)
