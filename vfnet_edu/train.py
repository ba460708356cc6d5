"""Train a detector: `python -m vfnet_edu.train [RECIPE] [options]`; without arguments a small VFNet on drawn shapes.

The whole of training is on this page: begin, step, judge, keep.
Several GPUs: `torchrun --nproc-per-node 8 -m vfnet_edu.train vfnet_r50_1x --data coco/`.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from vfnet_edu import recipes
from vfnet_edu.data.annotations import read_split
from vfnet_edu.data.coco import CocoIndex, never_learned, same_classes
from vfnet_edu.data.loader import guarded, val_loader
from vfnet_edu.data.paths import DataPaths, find_dataset
from vfnet_edu.evaluation.judge import eval_record, judge
from vfnet_edu.evaluation.scores import Outcome, Scores, coco_scores
from vfnet_edu.losses import total
from vfnet_edu.models.detector import Detector, build
from vfnet_edu.recipe import Recipe, at_size
from vfnet_edu.runtime import config, devices
from vfnet_edu.runtime.devices import PRECISION, Ranks
from vfnet_edu.runtime.errors import Exit, UserError, cli
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.training import checkpoint, schedule
from vfnet_edu.training.advice import what_is_lost
from vfnet_edu.training.learner import Learner, make_learner
from vfnet_edu.training.meter import Meter, Stop, read_losses
from vfnet_edu.training.plan import Plan, Progress, make_plan
from vfnet_edu.training.run import RunFolder, check_same
from vfnet_edu.weights import imagenet, ours, zoo


@dataclass(frozen=True)
class Options:
    """What a run needs besides its recipe."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    paths: Annotated[DataPaths, tyro.conf.arg(name="")] = DataPaths()
    size: int = 0
    """fit images into a square of so many pixels, in training and testing; 0: as the recipe says"""
    out: Path | None = None
    """run folder; by default runs/RECIPE"""
    resume: bool = False
    """resume the run in the folder, bit for bit on a CPU"""
    overwrite: bool = False
    """throw away the run in the folder"""
    allow_outside_root: bool = False
    """follow file names and links that leave the image folder"""
    weights: Path | None = None
    """start from this detector checkpoint; with other classes its last layers start fresh"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    log_every: int = 10
    """steps between lines of metrics.jsonl"""
    max_steps: int = 0
    """stop early, for a trial; 0: the whole schedule"""
    tensorboard: bool = False
    """also write TensorBoard events (pip install 'vfnet_edu[tensorboard]')"""
    print: bool = False
    """show the recipe, with what you changed marked by a star, and exit"""


def main(args: list[str]) -> None:
    name, rest = (args[0], args[1:]) if args and not args[0].startswith("-") else ("vfnet_small", args)
    base = recipes.by_name(name)
    options = tyro.cli(
        Options, args=rest, default=Options(base), prog=f"python -m vfnet_edu.train {name}",
        description=__doc__, config=(tyro.conf.AvoidSubcommands,),
    )  # fmt: skip
    options = replace(options, recipe=sized(options, base))
    if options.print:
        print(config.to_text(options.recipe, base))
        return
    stop, ranks = Stop(), devices.setup(options.device)
    folder = options.out or Path("runs") / options.recipe.name
    try:
        with RunFolder(folder, options.resume, options.overwrite, ranks.main) as run:
            with stop.explains(Exit.WORKER), guarded(options.recipe.data.workers):
                train(options, base, ranks, run, stop)
    finally:
        devices.close()


def sized(options: Options, base: Recipe) -> Recipe:
    """The recipe of the options, at their `size`.

    Raises:
        UserError: lengths are given as well, or the size is out of range.
    """
    data, usual = options.recipe.data, base.data
    if not options.size:
        return options.recipe
    lengths = [(d.augment.long_side, d.augment.short_side, d.test_scale) for d in (data, usual)]
    if lengths[0] != lengths[1]:
        raise UserError("--size and single lengths are given", remedy="leave out --size, or the others")
    return at_size(options.recipe, options.size)


def train(options: Options, base: Recipe, ranks: Ranks, run: RunFolder, stop: Stop) -> None:
    """A whole run, from its first step or from where it stopped."""
    learn, check = open_data(options, run.say)
    plan = make_plan(options.recipe, learn, ranks, options.max_steps)
    learner = begin(options, learn.classes, ranks, run)
    at = learner.at
    run.say(plan.story(ranks.device, learner.precision))
    run.start(learner.recipe, base, learn.classes, at.step, at.evaluations, options.tensorboard)
    facts = plan.facts() | {"training images": len(learn), "validation images": len(check) if check else 0}
    batches = iter(plan.loader(learn, at, ranks.rank))

    while not plan.finished(at):
        learner.enter_epoch(plan, run.path)
        meter = Meter()
        with run.bar(f"epoch {at.epoch + 1}/{plan.epochs}", plan.steps, at.step_in_epoch) as bar:
            while plan.in_epoch(at):
                rate = plan.rate(at)
                stopping = step(learner, plan, rate, batches, meter, run, stop)
                at.advance()
                bar.set_postfix_str(meter.short(), refresh=False)
                bar.update()
                if at.step % options.log_every == 0 or not plan.in_epoch(at):
                    run.log(kind="train", step=at.step, epoch=plan.epochs_done(at), lr=rate, **meter.take())
                if stopping:
                    run.save(learner.state())
                    stop.poll()

        judged, scores, outcome = learner.leave_epoch(plan), None, None
        if check and plan.evaluates(at):
            run.save(learner.state())  # a stop during the evaluation costs only the evaluation
            scores, outcome = examine(judged, learner, plan, check, run, stop)
            at.evaluations += 1
        ap = scores.numbers["AP"] if scores else -1.0
        if ap >= at.best or not check:
            at.best = ap
            run.save_best(judged, ap, plan.epochs_done(at))
        if at.step_in_epoch == plan.steps:
            at.close_epoch()
        run.save(learner.state())
        run.report(scores, outcome, check, facts)

    run.status("done", step=at.step, best_ap=at.best)
    run.say((f"best AP {100 * at.best:.1f}; " if check else "") + f"open {run.path / 'index.html'}")


def begin(options: Options, classes: tuple[str, ...], ranks: Ranks, run: RunFolder) -> Learner:
    """A learner with fresh weights, with ImageNet's, with those of another detector, or where this run stopped.

    Raises:
        UserError: no such weights, weights that do not fit, or a recipe that differs from the resumed run's.
    """
    recipe = options.recipe
    torch.manual_seed(recipe.seed)
    model = build(recipe, classes)
    if options.resume:
        ranks.wait()  # the main process has cleared away anything half written
        state, note = checkpoint.load(run.path)
        check_same(run.path, state, model.recipe, classes)
        learner = make_learner(model, ranks)
        learner.restore(state)
        run.say(note or f"resuming after step {learner.at.step}")
        return learner
    if options.weights:
        path = zoo.find(options.weights)
        made, _, state = ours.read(path)
        fresh = ours.load_state(model, state, path, new_classes=True, made_with=str(made.get("name", "")))
        anew = f"; other classes, so fresh: {', '.join(fresh)}" if fresh else ""
        run.say(f"starting from {options.weights}{anew}")
    elif loaded := imagenet.load_backbone(model, recipe.backbone_weights):
        run.say(loaded)
    return make_learner(model, ranks)


def step(
    learner: Learner, plan: Plan, rate: float, batches: Iterator, meter: Meter, run: RunFolder, stop: Stop
) -> bool:
    """One update of the weights, by the mean gradient of all passes and processes.

    Returns:
        whether any process has been asked to stop.

    Raises:
        UserError: code DIVERGED where a loss is not finite; the weights are still those from before the step.
    """
    optim, scaler, optimizer, ranks = learner.recipe.optim, learner.scaler, learner.optimizer, learner.ranks
    dtype = PRECISION[learner.precision]
    passes, shown = [], []
    for number in range(1, plan.passes + 1):
        images, targets = meter.next(batches)
        with learner.exchanging(now=number == plan.passes):
            with torch.autocast(ranks.device.type, dtype, enabled=dtype is not None):
                losses = learner.taught(images, targets)
            scaler.scale(total(losses) / plan.passes).backward()
        passes.append(losses)
        shown.append(targets)
    terms, broken, stopping = read_losses(passes, stop.asked, ranks)  # here the step waits for the device, once
    if broken:
        raise diverged(run.path, learner.at, rate, terms, shown)
    meter.add(terms, learner.recipe.data.batch_size)
    if optim.clip_norm > 0:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(learner.model.parameters(), optim.clip_norm)
    schedule.set_rate(optimizer, rate)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    return stopping


def examine(
    model: Detector, learner: Learner, plan: Plan, check: CocoIndex, run: RunFolder, stop: Stop
) -> tuple[Scores | None, Outcome]:
    """One evaluation by all processes together; the scores are known to the main process only."""
    at, ranks, data, dtype = learner.at, learner.ranks, plan.recipe.data, PRECISION[learner.precision]
    loader = val_loader(check, data.test_scale, plan.images_per_pass, ranks.rank, ranks.world, data.workers)
    outcome = judge(model, loader, check, ranks.device, autocast=dtype, tick=stop.poll)
    if not ranks.main:
        return None, outcome
    scores, epochs = coco_scores(check, outcome.results), plan.epochs_done(at)
    run.log(**eval_record(epochs, at.step, scores, outcome))
    run.say(f"epoch {epochs:g}: AP {100 * scores.numbers['AP']:.1f}" + (f" ({scores.why})" if scores.why else ""))
    return scores, outcome


def open_data(options: Options, say: Callable[[str], None]) -> tuple[CocoIndex, CocoIndex | None]:
    """The images to learn from and those to be judged by (None where there are none).

    Raises:
        UserError: no data, a file that is missing or wrong, or classes that differ.
    """
    layout = find_dataset(options.paths if options.paths != DataPaths() else recipes.default_data(options.recipe, say))
    train = read_split(layout.train)
    for note in train.notes:
        say(note)
    train.check_files(options.allow_outside_root)
    learn, dropped = train.for_training()
    say(f"{len(learn)} training images of {len(learn.classes)} classes; {dropped}")
    if lost := what_is_lost(options.recipe, learn):
        say(lost)
    if layout.val is None:
        say("no validation set: nothing will be evaluated; the last weights are kept")
        return learn, None
    check = read_split(layout.val)
    check.check_files(options.allow_outside_root)
    same_classes(train, check)
    strangers = never_learned(train, check)
    say(f"{len(check)} validation images" + (f"; never seen in training: {', '.join(strangers)}" if strangers else ""))
    return learn, check


def diverged(
    folder: Path, at: Progress, lr: float, passes: list[dict[str, float]], shown: list[list[dict]]
) -> UserError:
    """A loss is not finite: the UserError that says where; diverged.json keeps what is needed to look into it."""
    bad = [i for i, terms in enumerate(passes) if not math.isfinite(sum(terms.values()))]
    which = bad[0] if bad else -1  # none: another process has it
    terms, images = passes[which], [t["image_id"] for t in shown[which]]
    what = ", ".join(f"{k} {v:g}" for k, v in terms.items())
    bundle = asdict(at) | {"lr": lr, "losses": str(terms), "image_ids": images}
    with contextlib.suppress(UserError):  # another machine of the run may not have the folder
        write_atomically(folder / "diverged.json", json.dumps(bundle))
    return UserError(
        f"step {at.step}: the loss is not finite ({what}) on images {images}; the weights before it are sound",
        remedy="try half the --optim.lr, or --optim.clip-norm 35; diverged.json has the batch",
        code=Exit.DIVERGED,
    )


if __name__ == "__main__":
    cli(main)
