"""Train a detector: `python -m vfnet_edu.train [RECIPE] [options]`; without arguments a small VFNet on drawn shapes.

The whole of training is on this page: recipe -> data -> model -> optimizer -> loop -> checkpoint.
Several GPUs: `torchrun --nproc-per-node 8 -m vfnet_edu.train vfnet_r50_1x --data coco/`.
"""

import contextlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from vfnet_edu import recipes
from vfnet_edu.data.coco import CocoIndex, read_coco, same_classes
from vfnet_edu.data.loader import guarded, train_loader, val_loader
from vfnet_edu.data.paths import DataPaths, find_dataset
from vfnet_edu.data.shapes import write_shape_scenes
from vfnet_edu.evaluation.judge import eval_record, judge
from vfnet_edu.evaluation.scores import coco_scores
from vfnet_edu.models.detector import build
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime import config, devices
from vfnet_edu.runtime.errors import Exit, UserError, cli
from vfnet_edu.training import averaging, checkpoint, schedule
from vfnet_edu.training.meter import Meter, Stop, values
from vfnet_edu.training.run import RunFolder
from vfnet_edu.viz.report import write_report
from vfnet_edu.weights import imagenet, ours, zoo

PRECISION = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Options:
    """What a run needs beside its recipe."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    data: Path | None = None
    """data set folder: COCO 2017, annotations/instances_{train,val}.json, or train/_annotations.coco.json"""
    train_json: Path | None = None
    train_images: Path | None = None
    val_json: Path | None = None
    val_images: Path | None = None
    out: Path | None = None
    """run folder; by default runs/RECIPE"""
    resume: bool = False
    """go on with the run in the folder, bit for bit on a CPU"""
    overwrite: bool = False
    """throw away the run in the folder"""
    allow_outside_root: bool = False
    """follow file names and links that leave the image folder"""
    weights: Path | None = None
    """start from this detector checkpoint; with other classes its last layers start anew"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    eval_every: int = 1
    """epochs between evaluations; the last is always evaluated"""
    log_every: int = 10
    """steps between lines of metrics.jsonl"""
    max_steps: int = 0
    """stop early, for a trial; 0: the whole schedule"""
    tensorboard: bool = False
    """also write TensorBoard events (pip install 'vfnet_edu[tensorboard]')"""
    print: bool = False
    """show the recipe, with what you changed marked by a star, and stop"""


def main(args: list[str]) -> None:
    name, rest = (args[0], args[1:]) if args and not args[0].startswith("-") else ("vfnet_small", args)
    base = recipes.by_name(name)
    options = tyro.cli(
        Options, args=rest, default=Options(base), prog=f"python -m vfnet_edu.train {name}",
        description=__doc__, config=(tyro.conf.AvoidSubcommands,),
    )  # fmt: skip
    if options.print:
        print(config.to_text(options.recipe, base))
        return
    stop, ranks = Stop(), devices.setup(options.device)
    folder = options.out or Path("runs") / options.recipe.name
    run = RunFolder(folder, options.resume, options.overwrite) if ranks.main else contextlib.nullcontext()
    try:
        with run:
            try:
                train(options, base, ranks, folder, run, stop)
            except UserError as error:
                if error.code == Exit.WORKER:
                    stop.poll()  # the signal that asked us to stop has reached the data workers too
                raise
    finally:
        devices.close()


def train(options: Options, base: Recipe, ranks: devices.Ranks, folder: Path, run: RunFolder, stop: Stop) -> None:
    recipe, device = options.recipe, ranks.device
    say = print if ranks.main else lambda *_: None

    # ---- data: the classes come from the json
    learn, check = open_data(options, ranks, say)
    per_gpu, passes = schedule.batch_shape(recipe.data, ranks.world)

    # ---- model: fresh, from ImageNet, from a detector, or from where this run stopped
    torch.manual_seed(recipe.seed)
    model = build(recipe, learn.classes)
    state = None
    if options.resume:
        ranks.wait()  # the main process has cleared away what was half written
        state, note = checkpoint.load(folder)
        if ranks.main:
            run.check_same(model.recipe, learn.classes)
        model.load_state_dict(state["model"])
        if device.type == "cpu":
            torch.set_num_threads(state["threads"])  # another number would round sums otherwise
        say(note or f"resuming after step {state['step']}")
    elif options.weights:
        _, _, start = ours.read(zoo.find(options.weights))
        fresh = ours.load_state(model, start, options.weights, new_classes=True)
        say(f"starting from {options.weights}" + (f"; other classes, so anew: {', '.join(fresh)}" if fresh else ""))
    else:
        imagenet.load_backbone(model, recipe.backbone_weights)
    model = model.to(device, memory_format=torch.channels_last)
    taught = DistributedDataParallel(model) if ranks.world > 1 else model
    optimizer = schedule.make_optimizer(model, recipe.optim)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.optim.precision == "fp16")
    dtype = PRECISION[recipe.optim.precision]
    average = averaging.make_average(model) if recipe.swa.epochs else None

    # ---- where we are: randomness is a function of (seed, epoch, image), so this and the weights are the whole state
    at = {"epoch": 0, "step_in_epoch": 0, "step": 0, "evaluations": 0, "best": -1.0}
    if state:
        at = {k: state[k] for k in at}
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        if average:
            average.load_state_dict(state["average"])
    epochs = recipe.optim.epochs + recipe.swa.epochs
    loader = train_loader(
        learn, recipe.data.augment, per_gpu, recipe.seed, range(at["epoch"], epochs),
        at["step_in_epoch"] * passes, ranks.rank, ranks.world, passes, recipe.data.workers,
    )  # fmt: skip
    steps = loader.order.per_epoch() // passes
    total, last_step = steps * recipe.optim.epochs, options.max_steps or math.inf
    scale = recipe.data.batch_size / recipe.optim.lr_batch  # linear scaling (Goyal et al. 2017)
    rate = recipe.optim.lr * scale
    say(
        f"{epochs} epochs of {steps} steps of {recipe.data.batch_size} images"
        f" = {ranks.world} process(es) x {per_gpu} images x {passes} pass(es) on {device}, {recipe.optim.precision}\n"
        f"learning rate {recipe.optim.lr:g} x {recipe.data.batch_size}/{recipe.optim.lr_batch} images = {rate:g},"
        f" after {schedule.warmup_steps(recipe.optim, total)} warm-up steps"
    )
    facts = {
        "training images": len(learn), "validation images": len(check) if check else 0, "classes": len(learn.classes),
        "steps": total, "learning rate": rate, "device": str(device), "torch": torch.__version__,
    }  # fmt: skip
    if ranks.main:
        run.start(model.recipe, base, learn.classes, at["step"], at["evaluations"], options.tensorboard)

    def save() -> None:
        if ranks.main:
            checkpoint.save(folder, at | {
                "model": model.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict(),
                "recipe": config.to_dict(model.recipe), "classes": list(learn.classes),
                "threads": torch.get_num_threads(), "average": average.state_dict() if average else {},
            })  # fmt: skip

    # ---- the loop
    with guarded(recipe.data.workers):
        batches = iter(loader)
        while at["epoch"] < epochs and at["step"] < last_step:
            averages = at["epoch"] >= recipe.optim.epochs  # weight averaging, after the run proper
            if at["epoch"] == recipe.optim.epochs and at["step_in_epoch"] == 0:
                ranks.wait()  # the main process has written the best weights, from which this starts
                averaging.start_from_best(model, folder)
                optimizer = schedule.make_optimizer(model, recipe.optim)
            model.train()
            meter = Meter()
            name = f"epoch {at['epoch'] + 1}/{epochs}"
            with tqdm(total=steps, initial=at["step_in_epoch"], desc=name, unit="step", disable=not ranks.main) as bar:
                while at["step_in_epoch"] < steps and at["step"] < last_step:
                    lr = schedule.learning_rate(recipe.optim, rate, at["step"], at["epoch"], total)
                    if averages:
                        lr = averaging.swa_rate(recipe.swa, scale, at["step_in_epoch"] / steps)
                    schedule.set_rate(optimizer, lr)
                    for part in range(passes):
                        images, targets = meter.next(batches)
                        quiet = ranks.world > 1 and part < passes - 1  # exchange gradients once per step
                        with taught.no_sync() if quiet else contextlib.nullcontext():
                            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                                losses = taught(images, targets)
                            terms = values(losses)
                            # before the update, so that the weights stay sound
                            if ranks.any(not math.isfinite(sum(terms.values()))):
                                raise diverged(folder, at, lr, terms, targets)
                            scaler.scale(sum(losses.values()) / passes).backward()
                        meter.add(terms, len(images) * ranks.world)
                    if recipe.optim.clip_norm > 0:
                        scaler.unscale_(optimizer)
                        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.clip_norm)
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad()

                    at["step"], at["step_in_epoch"] = at["step"] + 1, at["step_in_epoch"] + 1
                    bar.set_postfix_str(meter.short(), refresh=False)
                    bar.update()
                    if ranks.main and (at["step"] % options.log_every == 0 or at["step_in_epoch"] == steps):
                        when = at["epoch"] + at["step_in_epoch"] / steps
                        run.log(kind="train", step=at["step"], epoch=when, lr=lr, **meter.take())
                    if ranks.any(stop.asked):
                        save()
                        stop.poll()

            # ---- judge, keep the best, write the report
            if averages and at["step_in_epoch"] == steps:
                averaging.join(average, model, cycle=at["epoch"] - recipe.optim.epochs)
            judged = average.module if averages else model
            epochs_done = at["epoch"] + at["step_in_epoch"] / steps
            last = epochs_done == epochs or at["step"] >= last_step
            scores, outcome, ap = None, None, -1.0
            if check and (last or epochs_done % options.eval_every == 0):
                save()  # a stop during the evaluation costs the evaluation only
                share = (ranks.rank, ranks.world, recipe.data.workers)
                shown = val_loader(check, recipe.data.test_scale, per_gpu, *share)
                outcome = judge(judged, shown, check, device, autocast=dtype, tick=stop.poll)
                if ranks.main:
                    scores = coco_scores(check, outcome.results)
                    run.log(**eval_record(epochs_done, at["step"], scores, outcome))
                    ap = scores.numbers["AP"]
                    say(f"epoch {epochs_done:g}: AP {100 * ap:.1f}" + (f" ({scores.why})" if scores.why else ""))
                at["evaluations"] += 1
            if ranks.main and (ap >= at["best"] or not check):
                at["best"] = ap
                ours.save(folder / "best.safetensors", judged, {"ap": f"{ap:.4f}", "epoch": f"{epochs_done:g}"})
            if at["step_in_epoch"] == steps:
                at["epoch"], at["step_in_epoch"] = at["epoch"] + 1, 0
            save()
            if ranks.main:
                write_report(folder, scores, outcome, check, facts)
    if ranks.main:
        run.status("done", step=at["step"], best_ap=at["best"])
        say((f"best AP {100 * at['best']:.1f}; " if check else "") + f"open {folder / 'index.html'}")


def open_data(options: Options, ranks: devices.Ranks, say) -> tuple[CocoIndex, CocoIndex | None]:
    """The images to learn from and those to be judged by (None where there are none).

    Raises:
        UserError: no data, a file that is missing or wrong, or classes that differ.
    """
    paths = (options.data, options.train_json, options.train_images, options.val_json, options.val_images)
    if options.recipe.name in recipes.EMBEDDED and not any(paths):
        say("drawing the embedded data set into data/shape_scenes")
        paths = (write_shape_scenes(Path("data/shape_scenes")), *paths[1:])
    elif not any(paths):
        paths = (Path("data/coco"), *paths[1:])
    layout = find_dataset(DataPaths(*paths))
    train = read_coco(layout.train_json, layout.train_images)
    train.check_files(options.allow_outside_root)
    learn, dropped = train.for_training()
    say(f"{len(learn)} training images of {len(learn.classes)} classes; {dropped}")
    if layout.val_json is None:
        say("no validation set: nothing will be judged; the last weights are kept")
        return learn, None
    check = read_coco(layout.val_json, layout.val_images)
    check.check_files(options.allow_outside_root)
    same_classes(train, check)
    say(f"{len(check)} validation images")
    return learn, check


def diverged(folder: Path, at: dict, lr: float, terms: dict[str, float], targets: list[dict]) -> UserError:
    """A loss is not finite: say where, and keep what is needed to look into it."""
    images = [t["image_id"] for t in targets]
    what = ", ".join(f"{k} {v:g}" for k, v in terms.items())
    with contextlib.suppress(OSError):  # another machine of the run may not have the folder
        (folder / "diverged.json").write_text(json.dumps({**at, "lr": lr, "losses": str(terms), "image_ids": images}))
    return UserError(
        f"step {at['step']}: the loss is not finite ({what}) on images {images}; the weights before it are sound",
        remedy="try half the --optim.lr, or --optim.clip-norm 35; diverged.json has the batch",
        code=Exit.DIVERGED,
    )


if __name__ == "__main__":
    cli(main)
