"""Focal against varifocal loss, head by head: `python -m vfnet_edu.bench losses`.

Runs of the same small detector: five heads, each with the focal and with the varifocal loss of its row in the results
tables, each pair with the same seeds.  Backbone, neck and images are those of `vfnet_small`; optimizer and schedule are
the same for all; in a head, only what is measured in pixels is fitted to the small images.  `vfnet_edu.train` trains.
"""

import contextlib
import json
import multiprocessing
import platform
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torchvision
import tyro

from vfnet_edu import recipes, train
from vfnet_edu.data.paths import DataPaths
from vfnet_edu.data.shapes import write_shape_scenes
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime import devices
from vfnet_edu.runtime.errors import UserError
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.training.meter import Stop
from vfnet_edu.training.run import RunFolder

ROWS = {  # head -> its rows with the focal and with the varifocal loss
    "vfnet": ("vfnet_r50_focal_1x", "vfnet_r50_1x"),
    "atss": ("atss_r50_fl_1x", "atss_r50_vfl_1x"),
    "retinanet": ("retinanet_r50_fl_1x", "retinanet_r50_vfl_1x"),
    "foveabox": ("foveabox_r50_fl_1x", "foveabox_r50_vfl_1x"),
    "reppoints": ("reppoints_r50_fl_1x", "reppoints_r50_vfl_1x"),
}
FITTED = {  # to objects of 18 to 80 pixels on three levels; `score_std` so that all first scores have the same spread
    "vfnet": {"box_unit": 2.0, "anchor_size": 4.0, "star_std": 0.02},
    "atss": {"anchor_size": 4.0, "score_std": 0.05},
    "retinanet": {"anchor_sizes": (2.0, 2 * 2 ** (1 / 3), 2 * 2 ** (2 / 3)), "score_std": 0.1},
    "foveabox": {"base_edge": 1.0, "scale_ranges": ((1, 32), (16, 64), (32, 2048)), "score_std": 0.1},
    "reppoints": {"base_scale": 2.0, "score_std": 0.9},
}
COLUMNS = {  # key of an evaluation in metrics.jsonl -> title
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "rank_correlation": "rank corr.",
    "rank_correlation_within": "within obj.",
}


@dataclass(frozen=True)
class Options:
    heads: tuple[str, ...] = tuple(ROWS)
    """which of vfnet, atss, retinanet, foveabox, reppoints"""
    steps: int = 600
    """length of every run, rounded up to whole epochs"""
    data: Path | None = None
    """data set folder; by default the embedded one"""
    size: int = 128
    """longest and shortest side of the images, pixels"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """of the first weights and of the order of the images; both losses of a head have the same"""
    jobs: int = 1
    """runs side by side, each in a process of its own"""
    threads: int = 1
    """CPU threads of each of them"""
    device: str = "cpu"
    out: Path = Path("runs/losses")
    """folder for the run folders; runs already in it are resumed, and finished ones are not repeated"""
    json: Path | None = None
    """also write the table to this file"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.bench losses")
    if unknown := set(options.heads) - set(ROWS):
        raise UserError(f"no such head: {', '.join(sorted(unknown))}", remedy=f"choose from {', '.join(ROWS)}")
    options = replace(options, data=options.data or write_shape_scenes(Path("data/shape_scenes")))
    pairs = [(kind, loss) for kind in options.heads for loss in ("focal", "varifocal")]
    table = [(*pair, seed) for seed in options.seeds for pair in pairs]
    spawn = multiprocessing.get_context("spawn")  # signal handlers and threads of their own
    with ProcessPoolExecutor(options.jobs, spawn) as pool:
        rows = list(pool.map(measure, table, [options] * len(table)))
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine() + " CPU"
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "python": platform.python_version()}
    print(", ".join(f"{k} {v}" for k, v in versions.items()) + f", {where}, seeds {options.seeds}")
    print_table(rows)
    if options.json:
        header = {"versions": versions, "device": where, "seeds": options.seeds, "data": str(options.data)}
        write_atomically(options.json, json.dumps(header | {"rows": rows}, indent=1))


def small(kind: str, loss: str) -> Recipe:
    """`vfnet_small` with another head: loss, its numbers and the suppression of duplicates from the head's own row.

    Batches, optimizer and schedule are those that the recorded table was made with.
    """
    row = recipes.by_name(ROWS[kind][loss == "varifocal"])
    base = replace(recipes.vfnet_small(), data=recipes.SHAPES, optim=recipes.SCRATCH, eval_every=1)
    shared = {name: getattr(base.head, name) for name in ("channels", "depth", "strides", "score_std")}
    head = replace(row.head, **shared | FITTED[kind])
    return replace(base, name=f"small_{kind}_{loss}", head=head, detect=row.detect)


def measure(row: tuple[str, str, int], options: Options) -> dict:
    """Train one row with one seed, and return what its last evaluation found."""
    kind, loss, seed = row
    torch.set_num_threads(options.threads)
    recipe, side = small(kind, loss), (options.size, options.size)
    folder = options.out / f"{kind}_{loss}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    ranks = devices.setup(options.device)
    with (
        (folder / "log.txt").open("a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        paths = DataPaths(options.data)
        learn, _ = train.open_data(train.Options(recipe, paths), print)
        epochs = -(-options.steps // (len(learn) // recipe.data.batch_size))
        recipe = replace(
            recipe,
            seed=seed,
            eval_every=epochs,
            data=replace(recipe.data, augment=replace(recipe.data.augment, long_side=side, short_side=side),
                         test_scale=side, workers=0 if ranks.device.type == "cpu" else 4),
            optim=replace(recipe.optim, epochs=epochs),
        )  # fmt: skip
        told = train.Options(recipe, paths, resume=(folder / "last.pt").exists())
        with RunFolder(folder, told.resume, overwrite=True) as run:
            train.train(told, recipe, ranks, run, Stop())
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [r for r in records if r["kind"] == "eval"][-1]
    print(f"{kind} {loss}, seed {seed}: AP {100 * last['AP']:.1f} after {last['step']} steps", flush=True)
    return {"head": kind, "loss": loss, "seed": seed, "steps": last["step"]} | {key: last[key] for key in COLUMNS}


def print_table(rows: list[dict]) -> None:
    """Means over the seeds, and the AP of each."""
    titles = "".join(f"{title:>12}" for title in COLUMNS.values())
    print(f"\n{'head':<10} {'loss':<9}  steps{titles}   AP of each seed")
    for kind, loss in dict.fromkeys((row["head"], row["loss"]) for row in rows):
        mine = [row for row in rows if (row["head"], row["loss"]) == (kind, loss)]
        means = {key: statistics.mean(row[key] for row in mine) for key in COLUMNS}
        cells = [f"{100 * v:12.1f}" if k.startswith("AP") else f"{v:12.3f}" for k, v in means.items()]
        each = " ".join(f"{100 * row['AP']:.1f}" for row in mine)
        print(f"{kind:<10} {loss:<9} {mine[0]['steps']:6d}{''.join(cells)}   {each}")
