"""Does DCNv2 help the toy?  `python -m vfnet_edu.bench deform`: one convolution deformed, three seeds, and a control.

As in :mod:`vfnet_edu.bench.ranking` a small detector is frozen and its classification branch taught anew, with the
varifocal loss.  Once the convolution of its tower is plain, then it is a DCNv2, whose offset predictor learns at a
tenth of the rate or at the whole; first weights and batches are the same.
Chapter 17 reads what this has found.
"""

import json
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from torch import Tensor

from vfnet_edu.bench.ranking import answer, branch, exam_scenes, lesson_scenes
from vfnet_edu.evaluation.frozen import Frozen, freeze, judge, vfnet_head
from vfnet_edu.losses import varifocal_loss
from vfnet_edu.models.heads.vfnet import VFNetConfig, VFNetHead
from vfnet_edu.models.layers import ConvNorm
from vfnet_edu.ops.dcn import ModulatedDeformConv2d
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.weights.zoo import load

RECORDED = Path(__file__).with_name("deform.json")  # what this command found, for chapter 17
RATE = 3e-3


@dataclass(frozen=True)
class Options:
    model: str = "vfnet_tiny_focal"
    """which detector is frozen"""
    seeds: tuple[int, ...] = (0, 1, 2)
    rates: tuple[float, ...] = (0.0, 0.1, 1.0)
    """of the layer that predicts offsets and masks, times that of all others; 0: a plain convolution instead"""
    steps: int = 200
    """of `batch` scenes each"""
    batch: int = 16
    lessons: int = 480
    """scenes to learn from"""
    exams: int = 300
    """scenes to be judged on"""
    json: Path | None = None
    """also write the table to this file"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.bench deform")
    torch.set_num_threads(1)  # small maps; and the numbers do not depend on the number of cores
    _, model = load(options.model)
    images, truth, index = exam_scenes(options.exams)
    exam, lessons = freeze(model, images, truth), freeze(model, *lesson_scenes(options.lessons))
    header = {"model": options.model, "steps": options.steps, "batch": options.batch, "lessons": options.lessons}
    header |= {"exams": options.exams, "torch": torch.__version__, "device": platform.machine() + " CPU"}
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    print("\nseed  rate   loss  positives  winners   kept     AP  cells moved  mask  seconds")
    rows = []
    for seed in options.seeds:
        for rate in options.rates:
            start = time.process_time()
            pupil, last = teach(vfnet_head(model).config, lessons, rate, options.steps, options.batch, seed)
            marks = judge(answer(pupil, exam).sigmoid(), exam, index)
            moved, mask = habits(pupil, exam)
            row = {"seed": seed, "rate": rate, "loss": last, **marks._asdict(), "moved": moved, "mask": mask}
            rows.append(row)
            print(f"{seed:>4}  {rate:4.1f}  {last:5.3f}  {marks.positives:9.3f}  "
                  f"{marks.winners:7.3f}  {marks.kept:5.3f}  {marks.AP:5.1f}  {moved:11.2f}  {mask:4.2f}  "
                  f"{time.process_time() - start:7.0f}", flush=True)  # fmt: skip
            if options.json:
                write_atomically(options.json, json.dumps(header | {"rows": rows}, indent=1) + "\n")


def teach(
    config: VFNetConfig, lessons: Frozen, rate: float, steps: int, batch: int, seed: int
) -> tuple[VFNetHead, float]:
    """A new classification branch, its tower's last convolution plain or a DCNv2.

    Args:
        config: of the frozen detector's head.
        lessons: scenes from :func:`vfnet_edu.evaluation.frozen.freeze`.
        rate: of the layer that predicts offsets and masks, times that of all others; 0: the convolution is plain.
        steps: of `batch` scenes each.
        batch: scenes of a step.
        seed: of the first weights and of the order of the lessons.

    Returns:
        a head whose classification branch is taught, and the mean loss of its last 20 steps.
    """
    torch.manual_seed(seed)
    pupil = VFNetHead(replace(config, dcn=False))  # the same first weights for both
    if rate:
        plain, pupil = pupil.state_dict(), VFNetHead(replace(config, dcn=True))
        pupil.load_state_dict(plain, strict=False)  # it has more: the layers that predict offsets and masks
    chance = torch.Generator().manual_seed(seed)
    target, losses = lessons.targets(), []  # (S, P, K)
    tower = dict(pupil.cls_tower.named_parameters())
    movers = [tower.pop(name) for name in list(tower) if "conv_offset" in name]
    groups = [{"params": [*tower.values(), pupil.score_star, *pupil.score_out.parameters()], "lr": RATE}]
    groups += [{"params": movers, "lr": rate * RATE}] if movers else []
    optimizer = torch.optim.AdamW(groups)
    highest = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        chosen = torch.randint(len(target), (batch,), generator=chance)
        logits = branch(pupil, [x[chosen] for x in lessons.pyramid], [x[chosen] for x in lessons.ltrb])
        q = target[chosen]
        value = varifocal_loss(logits, q).sum() / (q > 0).sum()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(value.detach()))
    return pupil.eval(), sum(losses[-20:]) / len(losses[-20:])


@torch.no_grad()
def habits(pupil: VFNetHead, exam: Frozen) -> tuple[float, float]:
    """How far the taps of its tower moved, mean over all of them, in cells; and the mean mask.  Plain: (0, 1)."""
    last = pupil.cls_tower[-1]
    assert isinstance(last, ConvNorm)
    if not isinstance(last.conv, ModulatedDeformConv2d):
        return 0.0, 1.0
    moved: list[Tensor] = []
    masks: list[Tensor] = []
    for x in exam.pyramid:
        offset, mask = last.conv.conv_offset(pupil.cls_tower[:-1](x)).split([18, 9], dim=1)
        moved.append(offset.unflatten(1, (9, 2)).norm(dim=2).flatten())
        masks.append(mask.sigmoid().flatten())
    return float(torch.cat(moved).mean()), float(torch.cat(masks).mean())
