"""How far can an AP be trusted?  `python -m vfnet_edu.bench interval`: the bootstrap on 5,000 scenes, and its exam.

Two shipped detectors that differ in their loss alone answer the same held-out scenes.  For each AP, and for their
difference, the bootstrap gives an interval.  Whether it is worth its name is seen from the same scenes in small exams:
many disjoint sets, each with its own AP.  Chapter 17 reads what this has found.
"""

import json
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from vfnet_edu.data.coco import CocoIndex, read_coco
from vfnet_edu.data.loader import val_loader
from vfnet_edu.data.shapes import write_shape_scenes
from vfnet_edu.evaluation.bootstrap import Matched, ap_of_draws, draw, interval, match_once
from vfnet_edu.evaluation.judge import judge
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.weights.zoo import load

RECORDED = Path(__file__).with_name("interval.json")  # what this command found, for chapter 17


@dataclass(frozen=True)
class Options:
    models: tuple[str, str] = ("vfnet_tiny_focal", "vfnet_tiny")
    """two that answer the same scenes; the difference is the second minus the first"""
    scenes: int = 5000
    """held-out ShapeScenes; the first 300 are those that every chapter is judged on"""
    exam: int = 300
    """scenes of a small exam"""
    draws: int = 2000
    """of the bootstrap"""
    seed: int = 0
    """of the draws"""
    json: Path | None = None
    """also write the table to this file"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.bench interval")
    torch.set_num_threads(1)  # small maps; and the numbers do not depend on the number of cores
    with tempfile.TemporaryDirectory() as folder:
        data = write_shape_scenes(Path(folder) / "scenes", train=0, val=options.scenes)
        index = read_coco(data / "annotations/instances_val.json", data / "val")
        first, second = (match_once(index, answers(name, index)) for name in options.models)

    header = {"models": options.models, "scenes": options.scenes, "exam": options.exam, "draws": options.draws}
    header |= {"seed": options.seed, "torch": torch.__version__, "device": platform.machine() + " CPU"}
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    table = header | compare(first, second, options)
    for name, row in table["rows"].items():
        low, high = row["interval"]
        exams = row["exams"]
        print(f"{name:<18} {row['AP']:6.2f}  [{low:.2f}, {high:.2f}]  mean of {len(exams)} exams of {options.exam}: "
              f"{np.mean(exams):.2f}, standard deviation {np.std(exams, ddof=1):.2f}")  # fmt: skip
    if options.json:
        write_atomically(options.json, json.dumps(table, indent=1) + "\n")


def answers(name: str, index: CocoIndex) -> list[dict]:
    """COCO results of a detector on a data set of ShapeScenes."""
    recipe, model = load(name)
    loader = val_loader(index, recipe.data.test_scale, 50, workers=0)
    return judge(model, loader, index, losses=False).results


def compare(first: list[Matched], second: list[Matched], options: Options) -> dict:
    """Rows for both detectors and for the second minus the first, in AP points, from the same draws and exams."""
    each = options.scenes // options.exam  # disjoint exams
    exams = np.zeros((each, options.scenes), int)
    for e in range(each):
        exams[e, e * options.exam : (e + 1) * options.exam] = 1
    counts = draw(options.scenes, options.draws, options.seed)
    whole = np.ones((1, options.scenes), int)
    rows = {}
    for name, matched in zip(options.models, (first, second), strict=True):
        (ap,), drawn, small = (100 * ap_of_draws(matched, c) for c in (whole, counts, exams))
        rows[name] = {"AP": float(ap), "drawn": drawn, "exams": small}
    a, b = (rows[name] for name in options.models)
    rows["difference"] = {key: b[key] - a[key] for key in a}
    for row in rows.values():
        drawn, row["exams"] = row.pop("drawn"), [round(float(ap), 3) for ap in row["exams"]]
        row |= {"AP": round(row["AP"], 3), "interval": [round(v, 3) for v in interval(drawn)]}
        row["sd"] = round(float(np.std(drawn, ddof=1)), 4)
    return {"rows": rows}
