"""The run folder: one run at a time, nothing lost, everything about a run in one place."""

import contextlib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision
from filelock import FileLock
from tqdm import tqdm

from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.evaluation.scores import Outcome, Scores
from vfnet_edu.models.detector import Detector
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime.config import difference, from_dict, to_dict, to_text
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.runtime.files import append_line, try_lock, write_atomically
from vfnet_edu.training import checkpoint
from vfnet_edu.training.card import write_card
from vfnet_edu.viz.report import write_report
from vfnet_edu.weights import ours

FREE_TO_CHANGE = (
    "data.workers",
    "optim.epochs",
    "data.images_per_gpu",
    "eval_every",
)  # a resumed run may differ in these


class RunFolder:
    """The folder of one run, locked for as long as the process lives.

    Only the main process of a run writes; on the others every method does nothing, so the training loop need not ask
    which of the processes it is in.

    Args:
        path: the folder; made if need be.
        resume: go on with what is there.
        overwrite: throw away what is there.
        main: whether this is the process that writes.

    Raises:
        UserError: it belongs to a running process, holds another run, or cannot be written.
    """

    def __init__(self, path: Path, resume: bool = False, overwrite: bool = False, main: bool = True):
        self.path, self.main, self.board, self.lock = Path(path), main, None, None
        if not main:
            return
        self.lock = self._take()
        if (self.path / "metrics.jsonl").exists() and not resume:
            if not overwrite:
                self.lock.release()
                raise UserError(
                    f"{self.path} already holds a run", "add --resume to go on, or --overwrite", code=Exit.BUSY
                )
            for name in ("metrics.jsonl", "last.pt", "previous.pt", "best.safetensors", "status.json"):
                (self.path / name).unlink(missing_ok=True)
        checkpoint.sweep(self.path)
        self.status("starting")

    def _take(self) -> FileLock:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = try_lock(self.path / ".lock")
        except OSError as error:
            what = f"{self.path}: cannot write here: {error.strerror}"
            raise UserError(what, "give another --out", code=Exit.STORAGE) from error
        if lock is None:
            owner = _read_json(self.path / "status.json")
            who = f"process {owner['pid']} on {owner['host']}" if {"pid", "host"} <= owner.keys() else "another process"
            raise UserError(f"{self.path} belongs to {who}", "wait, or give another --out", code=Exit.BUSY)
        return lock

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind, error, _traceback) -> None:
        """Whatever ends the run is written down: status.json for scripts, error.log for the curious."""
        if self.lock is None:
            return
        if error is not None:
            asked = isinstance(error, KeyboardInterrupt | BrokenPipeError) or getattr(error, "code", 1) in (130, 143)
            resumable = (self.path / checkpoint.LAST).exists()
            with contextlib.suppress(UserError):  # on a full disk: the error to show is what ended the run
                self.status("interrupted" if asked else "failed", error=str(error), resumable=resumable)
                self.write("error.log", "".join(traceback.format_exception(error)))
        self.lock.release()

    # ------------------------------------------------------------------ what a person sees
    def say(self, text: str) -> None:
        """A line on the terminal."""
        if self.main:
            print(text)

    def bar(self, name: str, total: int, done: int = 0) -> tqdm:
        """A progress bar of `total` steps."""
        return tqdm(total=total, initial=done, desc=name, unit="step", disable=not self.main)

    # ------------------------------------------------------------------ what the run is
    def start(
        self, recipe: Recipe, base: Recipe, classes: tuple[str, ...], step: int, evaluations: int, tensorboard: bool
    ) -> None:
        """Write down what this run is, and forget what was logged after the state it starts from."""
        if not self.main:
            return
        self.describe(recipe, base, classes)
        self.rewind(step, evaluations)
        self.status("running", step=step)
        if tensorboard:
            self.board = _tensorboard(self.path)

    def describe(self, recipe: Recipe, base: Recipe, classes: tuple[str, ...]) -> None:
        """config.json (read back by --resume), config.txt (for people), environment.json."""
        self.write("config.json", json.dumps({"recipe": to_dict(recipe), "classes": list(classes)}, indent=1))
        self.write("config.txt", to_text(recipe, base) + "\n")
        environment = {
            "command": shlex.join(["python", "-m", "vfnet_edu.train", *sys.argv[1:]]),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
            "git": _git_commit(),
        }
        self.write("environment.json", json.dumps(environment, indent=1))

    def write(self, name: str, text: str) -> None:
        """A file of the folder, whole or not at all."""
        if self.main:
            write_atomically(self.path / name, text)

    def save(self, state: dict) -> None:
        """Everything that the run needs to go on, into last.pt."""
        if self.main:
            checkpoint.save(self.path, state)

    def save_best(self, model: Detector, ap: float, epoch: float) -> None:
        """The weights that detect best so far, into best.safetensors."""
        if self.main:
            ours.save(self.path / "best.safetensors", model, {"ap": f"{ap:.4f}", "epoch": f"{epoch:g}"})

    def report(
        self, scores: Scores | None, outcome: Outcome | None, check: CocoIndex | None, facts: dict[str, object]
    ) -> None:
        """The pictures, index.html, and the model card README.md."""
        if self.main:
            write_report(self.path, scores, outcome, check, facts)
            write_card(self.path, check)

    # ------------------------------------------------------------------ what happens
    def log(self, **record) -> None:
        """One json line into metrics.jsonl."""
        if not self.main:
            return
        record = {k: round(v, 6) if isinstance(v, float) else v for k, v in record.items()}
        append_line(self.path / "metrics.jsonl", json.dumps(record))
        for key, value in record.items():
            if self.board and isinstance(value, float):
                self.board.add_scalar(f"{record['kind']}/{key}", value, record["step"])

    def rewind(self, step: int, evaluations: int) -> None:
        """Forget what was logged after the checkpoint: it will be done, and logged, again."""
        path, kept, evals = self.path / "metrics.jsonl", [], 0
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a killed process
            evals += record.get("kind") == "eval"
            if record.get("step", 0) <= step and (record.get("kind") != "eval" or evals <= evaluations):
                kept.append(line)
        self.write("metrics.jsonl", "".join(line + "\n" for line in kept))

    def status(self, state: str, **more) -> None:
        """status.json: what a script that started us may want to know."""
        record = {"state": state, "pid": os.getpid(), "host": platform.node(), "time": time.time(), **more}
        self.write("status.json", json.dumps(record, indent=1))


def check_same(folder: Path, state: dict, recipe: Recipe, classes: Sequence[str]) -> None:
    """A resumed run must be the run that stopped.

    Args:
        folder: of the run, for the message.
        state: what was saved, with the "recipe" as a plain dict and its "classes".
        recipe: what was asked for now.
        classes: of the data at hand.

    Raises:
        UserError: what differs, leaf by leaf.
    """
    if list(state["classes"]) != list(classes):
        raise UserError(
            f"{folder}: this run learned {state['classes']}, the data has {list(classes)}",
            "use the same annotations, or another --out",
        )
    changes = difference(recipe, from_dict(Recipe, state["recipe"]))
    changes = {k: v for k, v in changes.items() if k not in FREE_TO_CHANGE}
    if changes:
        shown = ", ".join(f"{k} {old!r} -> {new!r}" for k, (old, new) in changes.items())
        raise UserError(
            f"{folder}: the recipe has changed: {shown}", "resume with the same options, or give another --out"
        )


def _read_json(path: Path) -> dict:
    """What a json file holds; nothing where it is missing or torn."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("TensorBoard is not installed", "pip install 'vfnet_edu[tensorboard]'") from error
    return SummaryWriter(folder / "tensorboard")


def _git_commit() -> str:
    """The commit of the folder we were started in; "" outside git."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        return done.stdout.strip() if done.returncode == 0 else ""
    except (OSError, subprocess.SubprocessError):
        return ""
