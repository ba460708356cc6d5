"""The run folder: one run at a time, nothing lost, everything about a run in one place."""

import fcntl
import json
import os
import platform
import shlex
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch
import torchvision

from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime.config import difference, from_dict, to_dict, to_text
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.training.checkpoint import LAST, sweep

FREE_TO_CHANGE = ("data.workers", "optim.epochs", "data.images_per_gpu")  # a resumed run may differ in these


class RunFolder:
    """The folder of one run, locked for as long as the process lives.

    Args:
        path: the folder; made if need be.
        resume: go on with what is there.
        overwrite: throw away what is there.

    Raises:
        UserError: it belongs to a running process, holds another run, or cannot be written.
    """

    def __init__(self, path: Path, resume: bool = False, overwrite: bool = False):
        self.path, self.board = Path(path), None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = open(self.path / ".lock", "a+")  # noqa: SIM115 (held until the process ends)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot write here: {error.strerror}", "give another --out", code=Exit.STORAGE
            ) from error
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.lock.seek(0)
            owner = self.lock.read().strip() or "another process"
            self.lock.close()
            raise UserError(f"{self.path} belongs to {owner}", "wait, or give another --out", code=Exit.BUSY) from None
        self.lock.truncate(0)
        self.lock.write(f"process {os.getpid()} on {platform.node()}")
        self.lock.flush()
        if (self.path / "metrics.jsonl").exists() and not resume:
            if not overwrite:
                self.lock.close()
                raise UserError(
                    f"{self.path} already holds a run", "add --resume to go on, or --overwrite", code=Exit.BUSY
                )
            for name in ("metrics.jsonl", "last.pt", "previous.pt", "best.safetensors", "status.json"):
                (self.path / name).unlink(missing_ok=True)
        sweep(self.path)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind, error, _traceback) -> None:
        """Whatever ends the run is written down: status.json for scripts, error.log for the curious."""
        if error is not None:
            asked = getattr(error, "code", 1) in (130, 143)
            self.status("interrupted" if asked else "failed", error=str(error), resumable=(self.path / LAST).exists())
            self.write("error.log", "".join(traceback.format_exception(error)))
        self.lock.close()

    # ------------------------------------------------------------------ what the run is
    def start(
        self, recipe: Recipe, base: Recipe, classes: tuple[str, ...], step: int, evaluations: int, tensorboard: bool
    ) -> None:
        """Write down what this run is, and forget what was logged after the state it starts from."""
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

    def check_same(self, recipe: Recipe, classes: tuple[str, ...]) -> None:
        """A resumed run must be the same run.

        Raises:
            UserError: what differs, leaf by leaf.
        """
        saved = json.loads((self.path / "config.json").read_text())
        if tuple(saved["classes"]) != tuple(classes):
            raise UserError(
                f"{self.path}: this run was about {saved['classes']}, the data has {list(classes)}",
                "use the same annotations, or another --out",
            )
        changes = difference(recipe, from_dict(Recipe, saved["recipe"]))
        changes = {k: v for k, v in changes.items() if k not in FREE_TO_CHANGE}
        if changes:
            shown = ", ".join(f"{k} {old!r} -> {new!r}" for k, (old, new) in changes.items())
            raise UserError(
                f"{self.path}: the recipe has changed: {shown}", "resume with the same options, or give another --out"
            )

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    # ------------------------------------------------------------------ what happens
    def log(self, **record) -> None:
        """One json line into metrics.jsonl."""
        record = {k: round(v, 6) if isinstance(v, float) else v for k, v in record.items()}
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        for key, value in record.items() if self.board else ():
            if isinstance(value, float):
                self.board.add_scalar(f"{record['kind']}/{key}", value, record["step"])

    def rewind(self, step: int, evaluations: int) -> None:
        """Forget what was logged after the checkpoint: it will be done, and logged, again."""
        path, kept, evals = self.path / "metrics.jsonl", [], 0
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a killed process
            evals += record.get("kind") == "eval"
            if record.get("step", 0) <= step and (record.get("kind") != "eval" or evals <= evaluations):
                kept.append(line)
        path.write_text("".join(line + "\n" for line in kept))

    def status(self, state: str, **more) -> None:
        """status.json: what a script that started us may want to know."""
        record = {"state": state, "pid": os.getpid(), "host": platform.node(), "time": time.time(), **more}
        temporary = self.path / ".status.tmp"
        temporary.write_text(json.dumps(record, indent=1))
        temporary.replace(self.path / "status.json")


def _tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("TensorBoard is not installed", "pip install 'vfnet_edu[tensorboard]'") from error
    return SummaryWriter(folder / "tensorboard")


def _git_commit() -> str:
    """Of the folder we were started in; "" outside git."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        return done.stdout.strip() if done.returncode == 0 else ""
    except (OSError, subprocess.SubprocessError):
        return ""
