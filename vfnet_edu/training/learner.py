"""Everything that changes while a run goes on: weights, optimizer, loss scale, running average, and where we are."""

import contextlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from vfnet_edu.models.detector import Detector
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime.config import to_dict
from vfnet_edu.runtime.devices import Ranks, choose_precision
from vfnet_edu.training import averaging
from vfnet_edu.training.plan import Plan, Progress
from vfnet_edu.training.schedule import make_optimizer


@dataclass
class Learner:
    """A detector that is being taught, and what teaches it."""

    model: Detector
    taught: nn.Module  # the model, or DistributedDataParallel around it
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # of the loss in fp16; does nothing otherwise
    average: AveragedModel | None  # of the weights; None where the recipe does not average
    ranks: Ranks  # among which it learns
    precision: str  # a key of devices.PRECISION
    at: Progress

    @property
    def recipe(self) -> Recipe:
        return self.model.recipe

    def exchanging(self, now: bool):
        """A context in which gradients are exchanged between processes, or wait for the next pass to be added up."""
        if isinstance(self.taught, DistributedDataParallel) and not now:
            return self.taught.no_sync()
        return contextlib.nullcontext()

    def enter_epoch(self, plan: Plan, folder: Path) -> None:
        """Ready to learn.  The averaging starts from the best weights of the run so far, with a new optimizer."""
        if plan.averages(self.at) and self.at.epoch == self.recipe.optim.epochs and self.at.step_in_epoch == 0:
            self.ranks.wait()  # the main process has written those weights
            averaging.start_from_best(self.model, folder)
            self.optimizer = make_optimizer(self.model, self.recipe.optim)
        self.model.train()

    def leave_epoch(self, plan: Plan) -> Detector:
        """The detector that is to be judged: this one, or the running average, which the epoch's last weights join."""
        if self.average is None or not plan.averages(self.at):
            return self.model
        if self.at.step_in_epoch == plan.steps:
            averaging.join(self.average, self.model, cycle=self.at.epoch - self.recipe.optim.epochs)
        return cast(Detector, self.average.module)  # torch only knows it as a module

    def state(self) -> dict:
        """All of it, for a checkpoint: tensors, numbers, strings and containers of them."""
        return asdict(self.at) | {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "recipe": to_dict(self.recipe),
            "classes": list(self.model.classes),
            "threads": torch.get_num_threads(),
        }

    def restore(self, state: dict) -> None:
        """Resume from :meth:`state`; on a CPU, identical to the last bit."""
        self.at = Progress(**{f.name: state[f.name] for f in fields(Progress)})
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        if self.model.mean.device.type == "cpu":
            torch.set_num_threads(state["threads"])  # another number would round sums differently


def make_learner(model: Detector, ranks: Ranks) -> Learner:
    """A learner at the start of its run; the model moves to the device of this process."""
    optim = model.recipe.optim
    precision = choose_precision(optim.precision, ranks.device)
    model = model.to(ranks.device).to(memory_format=torch.channels_last)
    return Learner(
        model=model,
        taught=DistributedDataParallel(model) if ranks.world > 1 else model,
        optimizer=make_optimizer(model, optim),
        scaler=torch.amp.GradScaler(ranks.device.type, enabled=precision == "fp16"),
        average=averaging.make_average(model) if model.recipe.swa.epochs else None,
        ranks=ranks,
        precision=precision,
        at=Progress(),
    )
