"""The COCO numbers of a checkpoint: `python -m vfnet_edu.evaluate CHECKPOINT --data DIR`.

Or ``--results FILE.json``, to score detections made elsewhere.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from vfnet_edu import recipes
from vfnet_edu.data.annotations import read_split
from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.data.loader import val_loader
from vfnet_edu.data.paths import DataPaths, find_split
from vfnet_edu.evaluation.judge import eval_record, judge
from vfnet_edu.evaluation.scores import Outcome, Scores, coco_scores
from vfnet_edu.inference import for_inference
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime import devices
from vfnet_edu.runtime.config import to_text
from vfnet_edu.runtime.errors import Exit, UserError, cli
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.viz.report import write_report
from vfnet_edu.weights import zoo


@dataclass(frozen=True)
class Options:
    """Score a checkpoint, or detections made elsewhere, on a COCO data set.

    Without a path it is the data set that the checkpoint's recipe trains on by default.
    """

    checkpoint: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")] = None
    """a run folder, best.safetensors, last.pt, or a name: vfnet_tiny, vfnet_r50_1x, ..."""
    paths: Annotated[DataPaths, tyro.conf.arg(name="")] = DataPaths()
    split: Literal["train", "val"] = "val"
    """which images to score on; train shows how much was learned by heart"""
    results: Path | None = None
    """score this COCO result file; no checkpoint and no images are needed"""
    out: Path | None = None
    """folder for results.json, scores.json, pictures and a page"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: devices.Precision = "auto"
    """what the network computes in; auto: bf16 where the device has instructions for it, else fp32"""
    compile: bool = False
    """translate the network to machine code first: minutes, for more images per second afterwards"""
    batch_size: int = 2
    """images per GPU"""
    workers: int = 2
    """data-loading processes per GPU"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.evaluate")
    if options.results and options.checkpoint is None:
        print(coco_scores(open_data(options), options.results).table())
        return
    if options.results or options.checkpoint is None:
        raise UserError("nothing to score", remedy="give a checkpoint, or --results FILE.json")
    ranks = devices.setup(options.device)
    try:
        precision = devices.choose_precision(options.precision, ranks.device)
        recipe, model = zoo.load(options.checkpoint, ranks.device)
        index = open_data(options, recipe)
        index.check_files()
        if model.classes != index.classes:
            raise UserError(
                f"{options.checkpoint} knows {_few(model.classes)}; {index.json_path} has {_few(index.classes)}",
                remedy="evaluate on data with the classes of the training set, in the same order",
                code=Exit.DATA,
            )
        model = for_inference(model, options.compile)
        scale, dtype = recipe.data.test_scale, devices.PRECISION[precision]
        loader = val_loader(index, scale, options.batch_size, ranks.rank, ranks.world, options.workers)
        with tqdm(total=-(-len(index) // ranks.world), unit="image", disable=not ranks.main, dynamic_ncols=True) as bar:
            outcome = judge(
                model, loader, index, ranks.device, autocast=dtype, tick=lambda done: bar.update(done - bar.n)
            )
        if ranks.main:
            scores = coco_scores(index, outcome.results)
            print(f"computed in {precision}\n{scores.table()}")
            record = eval_record(0, 0, scores, outcome)
            print("\n" + "\n".join(f"{k:<24}{v:.3f}" for k, v in record.items() if k[:4] in ("val_", "rank") and v))
            if options.out:
                about = {"checkpoint": options.checkpoint, "annotations": index.json_path, "precision": precision}
                write(options.out, recipe, {k: str(v) for k, v in about.items()}, scores, outcome, index)
    finally:
        devices.close()


def open_data(options: Options, recipe: Recipe | None = None) -> CocoIndex:
    """The images to score on; without a path those of the data set that the recipe is trained on by default."""
    paths, split = options.paths, options.split
    if paths == DataPaths():
        paths = DataPaths(recipes.default_data(recipe, print) if recipe else Path("data/coco"))
    found = find_split(paths, split)
    if found is None:
        what = {"train": "training", "val": "validation"}[split]
        where = f"{paths.data} has no {what} set" if paths.data else f"no {what} set is named"
        raise UserError(where, remedy=f"give --{split}-json", code=Exit.DATA)
    return read_split(found)


def write(
    folder: Path, recipe: Recipe, about: dict[str, str], scores: Scores, outcome: Outcome, index: CocoIndex
) -> None:
    """results.json in COCO's format, scores.json, config.txt and the report."""
    folder.mkdir(parents=True, exist_ok=True)
    record = scores.record() | about
    write_atomically(folder / "results.json", json.dumps(outcome.results).encode())
    write_atomically(folder / "scores.json", json.dumps(record, indent=1).encode())
    write_atomically(folder / "config.txt", to_text(recipe).encode())
    write_report(folder, scores, outcome, index, about)
    print(f"\nthe report is {folder / 'index.html'}")


def _few(names: tuple[str, ...]) -> str:
    return f"{len(names)} classes ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"


if __name__ == "__main__":
    cli(main)
