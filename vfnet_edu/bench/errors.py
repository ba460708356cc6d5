"""What does the star repair?  `python -m vfnet_edu.bench errors`: the errors of a detector with it, and without it.

Short trainings of `vfnet_tiny`: as it is, and with a head that has no star and so neither scores nor refines by it (the
first and the last row of the paper's table 3, in small).  Three seeds, the same scenes.  Chapter 16 reads what this has
found.
"""

import contextlib
import io
import json
import platform
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

from vfnet_edu import recipes, train
from vfnet_edu.data.coco import CocoIndex, read_coco
from vfnet_edu.data.loader import val_loader
from vfnet_edu.data.paths import DataPaths
from vfnet_edu.data.shapes import write_shape_scenes
from vfnet_edu.evaluation.errors import KINDS, split_errors
from vfnet_edu.evaluation.judge import judge
from vfnet_edu.evaluation.scores import coco_scores
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime import devices
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.training.meter import Stop
from vfnet_edu.training.run import RunFolder
from vfnet_edu.weights import zoo

RECORDED = Path(__file__).with_name("errors.json")  # what this command found, for chapter 16
VARIANTS = {  # name -> what it changes in the head of `vfnet_tiny`
    "star": {},
    "no star": {"star": False, "refine": False, "box_weight": 2.0},  # as in `vfnet_r50_raw_1x`
}


@dataclass(frozen=True)
class Options:
    epochs: int = 2
    """of 150 steps of 16 scenes; in all but the last they are 0.75 times as large"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """of the first weights and of the order of the scenes; all variants have the same"""
    json: Path | None = None
    """also write the table to this file"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.bench errors")
    torch.set_num_threads(1)
    header = {"epochs": options.epochs, "torch": torch.__version__, "device": platform.machine() + " CPU"}
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    print(f"{'variant':<14}seed    AP  AP50   what fixing one kind would add to AP50: {', '.join(KINDS)}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        school = write_shape_scenes(Path(folder) / "school", val=16)  # judged here only because a training does
        exam = write_shape_scenes(Path(folder) / "exam", train=0, val=300)
        index = read_coco(exam / "annotations/instances_val.json", exam / "val")
        for seed in options.seeds:
            for name in VARIANTS:
                run = taught(short(name, seed, options.epochs), school, Path(folder) / f"{name}_{seed}")
                rows.append({"variant": name, "seed": seed} | marks(run, index))
                print(_line(rows[-1]), flush=True)
                if options.json:
                    write_atomically(options.json, json.dumps(header | {"rows": rows}, indent=1).encode() + b"\n")


def short(name: str, seed: int, epochs: int) -> Recipe:
    """The recipe of a variant, shortened."""
    base = recipes.vfnet_tiny()
    data = replace(base.data, workers=0, augment=replace(base.data.augment, small_epochs=epochs - 1))
    optim = replace(base.optim, epochs=epochs, warmup_steps=100)
    head = replace(base.head, **VARIANTS[name])
    return replace(base, head=head, data=data, optim=optim, seed=seed, eval_every=epochs)


def taught(recipe: Recipe, data: Path, folder: Path) -> Path:
    """Train without a word.  -> the run folder"""
    told = train.Options(recipe, DataPaths(data))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ranks = devices.setup("cpu")
        with RunFolder(folder, False, overwrite=True) as run:
            train.train(told, recipe, ranks, run, Stop())
    return folder


def marks(run: Path, index: CocoIndex) -> dict:
    """AP, AP50, the number of errors of each kind, and what fixing it would add to AP50; in percent."""
    recipe, model = zoo.load(run)
    outcome = judge(model, val_loader(index, recipe.data.test_scale, 16, workers=0), index, losses=False)
    numbers, split = coco_scores(index, outcome.results).numbers, split_errors(index, outcome.results)
    return {
        **{name: round(100 * numbers[name], 2) for name in ("AP", "AP50", "AP75")},
        "counts": split.counts(),
        "gains": {kind: round(100 * gain, 2) for kind, gain in split.gains.items()},
        "all but missed": round(100 * split.ap50(KINDS[:-1]), 2),
    }


def _line(row: dict) -> str:
    gains = "  ".join(f"{gain:5.2f}" for gain in row["gains"].values())
    return f"{row['variant']:<14}{row['seed']:>4} {row['AP']:>5.1f} {row['AP50']:>5.1f}   {gains}"
