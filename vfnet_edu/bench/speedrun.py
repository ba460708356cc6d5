"""The ladder of the fastest way to 59 AP on ShapeScenes: `python -m vfnet_edu.bench speedrun`.

Rules: the 2,400 drawn scenes to learn from and the 300 to be judged by, nothing pretrained, two threads, the whole
command from its first import to its report.  Time and AP are the mean of three seeds.  Every rung is the one above it
with one idea more, and a command that can be run; the last is `vfnet_small` as it is.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.runtime.files import write_atomically


@dataclass(frozen=True)
class Rung:
    """One idea, and the options that give the recipe up to it."""

    idea: str
    options: str  # of `python -m vfnet_edu.train vfnet_small`


PLAIN = " --data.augment.small-epochs 0 --optim.schedule cosine"
BEGAN = (
    "--data.batch-size 16 --data.images-per-gpu 16 --optim.lr-batch 16 --optim.warmup-steps 150"
    " --optim.betas 0.9 0.999 --eval-every 1 --optim.precision fp32 --optim.epochs 6" + PLAIN
)
RUNGS = (
    Rung("the recipe of version 0.1.0: 900 steps of 16 images, an evaluation after every epoch", BEGAN),
    Rung(
        "batches of 8: 1,500 updates from a sixth fewer images",
        "--optim.betas 0.9 0.999 --eval-every 1 --optim.precision fp32" + PLAIN,
    ),
    Rung("a shorter memory: AdamW's second beta .95 instead of .999", "--eval-every 1 --optim.precision fp32" + PLAIN),
    Rung("two evaluations instead of five", "--optim.precision fp32" + PLAIN),
    Rung("bfloat16 where the processor computes in it", PLAIN.strip()),
    Rung("images of 96 pixels in all but the last epoch, and a rate that falls along a line: `vfnet_small`", ""),
)


@dataclass(frozen=True)
class Options:
    rungs: tuple[int, ...] = tuple(range(len(RUNGS)))
    """which of them to climb"""
    seeds: tuple[int, ...] = (0, 1, 2)
    threads: int = 2
    out: Path = Path("runs/speedrun")
    """folder of the run folders; those that are there are measured anew"""
    json: Path | None = None
    """also write the table there"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.bench speedrun")
    print(f"torch {torch.__version__}, {platform.machine()}, {options.threads} threads, seeds {options.seeds}\n")
    print("| rung | seconds | AP, mean (least to most) | idea |\n| --: | --: | :-- | --- |")
    rows = []
    for number in options.rungs:
        rows.append(climb(number, options))
        print(line(rows[-1]), flush=True)
    if options.json:
        versions = {"torch": torch.__version__, "machine": platform.machine(), "threads": options.threads}
        write_atomically(options.json, json.dumps(versions | {"seeds": options.seeds, "rows": rows}, indent=1))


def climb(number: int, options: Options) -> dict:
    """Time and AP of one rung, with each seed."""
    rung, seconds, aps = RUNGS[number], [], []
    for seed in options.seeds:
        folder = options.out / f"rung{number}_seed{seed}"
        command = ["vfnet_small", *rung.options.split(), "--seed", str(seed), "--out", str(folder), "--overwrite"]
        began = time.perf_counter()
        run_training(command, options.threads)
        seconds.append(time.perf_counter() - began)
        records = [json.loads(text) for text in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
        aps.append(100 * [record["AP"] for record in records if record["kind"] == "eval"][-1])
    return {"rung": number, "idea": rung.idea, "options": rung.options, "seconds": seconds, "AP": aps}


def run_training(command: list[str], threads: int) -> None:
    """`python -m vfnet_edu.train` in a process of its own.

    Raises:
        UserError: it failed; with its last lines.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-m", "vfnet_edu.train", *command],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        last = " / ".join(done.stderr.strip().splitlines()[-1:])
        raise UserError(f"train {' '.join(command)} ended with {done.returncode}: {last}", code=Exit.WORKER)


def line(row: dict) -> str:
    """A row of the table in book/speedrun.md."""
    seconds, aps = statistics.mean(row["seconds"]), row["AP"]
    spread = f"{statistics.mean(aps):.1f} ({min(aps):.1f} to {max(aps):.1f})"
    return f"| {row['rung']} | {seconds:.0f} | {spread} | {row['idea']} |"
