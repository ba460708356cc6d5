"""Where a run is, and where it is going: how many steps of how many images, and at which learning rate."""

import math
from dataclasses import dataclass

import torch

from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.data.loader import Loader, train_loader
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime.devices import Ranks
from vfnet_edu.training import schedule
from vfnet_edu.training.averaging import swa_rate


@dataclass
class Progress:
    """Where a run is.

    Which images a step sees and how they are changed is a function of (seed, epoch, image): this, the weights and the
    optimizer are the whole state of a run.
    """

    epoch: int = 0  # epochs that are done
    step_in_epoch: int = 0
    step: int = 0  # optimizer steps that are done, over all epochs
    evaluations: int = 0
    best: float = -1.0  # AP of the best evaluation, in [0, 1]

    def advance(self) -> None:
        """One more step is done."""
        self.step, self.step_in_epoch = self.step + 1, self.step_in_epoch + 1

    def close_epoch(self) -> None:
        """The next epoch begins."""
        self.epoch, self.step_in_epoch = self.epoch + 1, 0


@dataclass(frozen=True)
class Plan:
    """Where a run is going.

    Its epochs are those of the recipe, then those of its weight averaging.
    """

    recipe: Recipe
    images_per_pass: int  # in one forward pass of one process
    passes: int  # forward passes of one process that make up a step
    world: int  # processes
    steps: int  # per epoch
    last_step: float = math.inf  # a trial ends here

    @property
    def epochs(self) -> int:
        return self.recipe.optim.epochs + self.recipe.swa.epochs

    @property
    def total(self) -> int:
        """Steps before the weight averaging: what the learning rate's schedule stretches over."""
        return self.steps * self.recipe.optim.epochs

    @property
    def batch_scale(self) -> float:
        """Linear scaling of the learning rate with the number of images per step (Goyal et al. 2017)."""
        return self.recipe.data.batch_size / self.recipe.optim.lr_batch

    def finished(self, at: Progress) -> bool:
        return at.epoch >= self.epochs or at.step >= self.last_step

    def in_epoch(self, at: Progress) -> bool:
        """The epoch has a step left."""
        return at.step_in_epoch < self.steps and at.step < self.last_step

    def averages(self, at: Progress) -> bool:
        """The epoch belongs to the weight averaging."""
        return at.epoch >= self.recipe.optim.epochs

    def epochs_done(self, at: Progress) -> float:
        return at.epoch + at.step_in_epoch / self.steps

    def evaluates(self, at: Progress) -> bool:
        """Whether it is time for an evaluation: every few epochs, and at the end in any case."""
        done = self.epochs_done(at)
        return done == self.epochs or at.step >= self.last_step or done % self.recipe.eval_every == 0

    def rate(self, at: Progress) -> float:
        """The learning rate of the next step."""
        if self.averages(at):
            return swa_rate(self.recipe.swa, self.batch_scale, at.step_in_epoch / self.steps)
        rate = self.recipe.optim.lr * self.batch_scale
        return schedule.learning_rate(self.recipe.optim, rate, at.step, at.epoch, self.total)

    def facts(self) -> dict[str, object]:
        """For the table of the report."""
        return {"steps": self.total, "learning rate": self.recipe.optim.lr * self.batch_scale}

    def loader(self, index: CocoIndex, at: Progress, rank: int) -> Loader:
        """The batches from `at` to the end of the run, for one process."""
        data = self.recipe.data
        return train_loader(
            index, data.augment, self.images_per_pass, self.recipe.seed, range(at.epoch, self.epochs),
            at.step_in_epoch * self.passes, rank, self.world, self.passes, data.workers,
        )  # fmt: skip

    def story(self, device: torch.device, precision: str) -> str:
        """Steps, batch and learning rate in words."""
        optim, images = self.recipe.optim, self.recipe.data.batch_size
        return (
            f"{self.epochs} epochs of {self.steps} steps of {images} images"
            f" = {self.world} process(es) x {self.images_per_pass} images x {self.passes} pass(es) on {device},"
            f" {precision}\n"
            f"learning rate {optim.lr:g} x {images}/{optim.lr_batch} images = {optim.lr * self.batch_scale:g},"
            f" after {schedule.warmup_steps(optim, self.total)} warm-up steps"
        )


def make_plan(recipe: Recipe, index: CocoIndex, ranks: Ranks, max_steps: int = 0) -> Plan:
    """How a recipe works through a data set.

    Args:
        recipe: of the run.
        index: the images to learn from.
        ranks: the processes that share the work.
        max_steps: stop early; 0: the whole schedule.

    Raises:
        UserError: the batch does not divide among the processes.
    """
    images, passes = schedule.batch_shape(recipe.data, ranks.world)
    order = train_loader(index, recipe.data.augment, images, 0, range(1), world=ranks.world, accumulate=passes).order
    return Plan(recipe, images, passes, ranks.world, order.per_epoch() // passes, max_steps or math.inf)
