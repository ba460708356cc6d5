"""Which loss teaches a score to rank?  `python -m vfnet_edu.bench ranking`: frozen boxes, four losses, three seeds.

A small detector that was trained with the focal loss is frozen: its backbone, its pyramid, its boxes.  Its
classification branch is thrown away and taught anew, once with each loss, from the same first weights and on the same
batches.  Lessons and exam are scenes that the detector was not trained on.  Chapter 10 reads what this has found.
"""

import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from torch import Tensor

from vfnet_edu.data.coco import CocoIndex, read_coco
from vfnet_edu.data.loader import val_loader
from vfnet_edu.data.shapes import draw_scene, write_shape_scenes
from vfnet_edu.evaluation.frozen import Frozen, freeze, judge, one_class, vfnet_head
from vfnet_edu.losses import focal_loss, quality_focal_loss, varifocal_loss
from vfnet_edu.models.heads.vfnet import VFNetConfig, VFNetHead
from vfnet_edu.models.layers import flatten_levels
from vfnet_edu.ops.star.operator import star_conv2d_pyramid
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.weights.zoo import load

FIRST_LESSON = 900_000  # number of the first scene of a lesson: no shipped model was trained or judged on it
RECORDED = Path(__file__).with_name("ranking.json")  # what this command found, for chapter 10

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {  # name -> (logits, q) -> losses, element by element
    "FL": lambda z, q: focal_loss(z, (q > 0).to(z)),
    "VFL 0/1": lambda z, q: varifocal_loss(z, (q > 0).to(z)),
    "QFL": quality_focal_loss,
    "VFL": varifocal_loss,
}


@dataclass(frozen=True)
class Options:
    model: str = "vfnet_tiny_focal"
    """which detector is frozen"""
    classes: tuple[int, ...] = (1, 8)
    """1: is there an object? 8: which class of ShapeScenes?"""
    seeds: tuple[int, ...] = (0, 1, 2)
    losses: tuple[str, ...] = tuple(LOSSES)
    """which of FL, "VFL 0/1", QFL, VFL"""
    steps: int = 200
    """of 16 scenes each"""
    lessons: int = 480
    """scenes to learn from"""
    exams: int = 300
    """scenes to be judged on"""
    json: Path | None = None
    """also write the table to this file"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.bench ranking")
    torch.set_num_threads(1)  # small maps; and the numbers do not depend on the number of cores
    _, model = load(options.model)
    images, truth, index = exam_scenes(options.exams)
    exam, lessons = freeze(model, images, truth), freeze(model, *lesson_scenes(options.lessons))
    header = {"model": options.model, "steps": options.steps, "lessons": options.lessons, "exams": options.exams}
    header |= {"torch": torch.__version__, "device": platform.machine() + " CPU"}
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    print(f"\n{'classes':>7}  {'loss':<8} seed  positives  winners    all   kept     AP  seconds")
    rows = []
    for classes in options.classes:
        school, test = (one_class(lessons), one_class(exam)) if classes == 1 else (lessons, exam)
        for seed in options.seeds:
            for name in options.losses:
                start = time.perf_counter()
                pupil = teach(vfnet_head(model).config, school, LOSSES[name], options.steps, seed)
                marks = judge(answer(pupil, test).sigmoid(), test, index)
                print(f"{classes:>7}  {name:<8} {seed:>4}  {marks.positives:9.3f}  {marks.winners:7.3f}  "
                      f"{marks.all:5.3f}  {marks.kept:5.3f}  {marks.AP:5.1f}  {time.perf_counter() - start:7.0f}",
                      flush=True)  # fmt: skip
                rows.append({"classes": classes, "loss": name, "seed": seed} | marks._asdict())
                if options.json:
                    write_atomically(options.json, json.dumps(header | {"rows": rows}, indent=1) + "\n")


def exam_scenes(count: int = 300) -> tuple[list[Tensor], list[dict], CocoIndex]:
    """The held-out ShapeScenes: images, their objects, and both as a data set."""
    with tempfile.TemporaryDirectory() as folder:
        data = write_shape_scenes(Path(folder) / "scenes", train=0, val=count)
        index = read_coco(data / "annotations/instances_val.json", data / "val")
        images, truth = next(iter(val_loader(index, (128, 128), len(index), workers=0)))
    return list(images), list(truth), index


def lesson_scenes(count: int, first: int = 0) -> tuple[list[Tensor], list[dict]]:
    """Scenes to learn from that no shipped model has seen: images and their objects."""
    images, truth = zip(*(draw_scene(0, FIRST_LESSON + first + i) for i in range(count)), strict=True)
    return list(images), list(truth)


def branch(head: VFNetHead, pyramid: list[Tensor], ltrb: list[Tensor]) -> Tensor:
    """The classification branch alone: tower, star, last layer.  L maps, L boxes -> logits (B, P, K)"""
    tower = [head.cls_tower(x) for x in pyramid]
    (seen,) = star_conv2d_pyramid([(tower, head.score_star)], ltrb, head.config.strides)
    return flatten_levels([head.score_out(x.relu()) for x in seen], head.config.classes)


def teach(config: VFNetConfig, lessons: Frozen, loss: Loss, steps: int = 200, seed: int = 0) -> VFNetHead:
    """A new classification branch, taught with `loss`; everything else stays as it is.  Used in chapter 10.

    Args:
        config: of the frozen detector's head; the number of classes is that of the lessons.
        lessons: scenes from :func:`vfnet_edu.evaluation.frozen.freeze`.
        loss: (logits, q) -> losses, element by element; q is 0 for background.
        steps: of 16 scenes each.
        seed: of the first weights and of the order of the lessons.

    Returns:
        a head whose classification branch is taught; its box branch is not.
    """
    torch.manual_seed(seed)  # the same start and the same batches for every loss
    target = lessons.targets()  # (S, P, K)
    pupil = VFNetHead(replace(config, classes=target.shape[-1]))
    weights = [*pupil.cls_tower.parameters(), pupil.score_star, *pupil.score_out.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        batch = torch.randint(len(target), (16,))
        logits = branch(pupil, [x[batch] for x in lessons.pyramid], [x[batch] for x in lessons.ltrb])
        q = target[batch]
        value = loss(logits, q).sum() / (q > 0).sum()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return pupil.eval()


@torch.no_grad()
def answer(pupil: VFNetHead, frozen: Frozen) -> Tensor:
    """The pupil's logits on frozen scenes.  -> (S, P, K)"""
    return branch(pupil, frozen.pyramid, frozen.ltrb)
