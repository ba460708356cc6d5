"""How fast does ATSS assign?  `python -m vfnet_edu.bench assign`: against the naive reference, by number of boxes.

The reference takes all pairs of anchors and boxes at every step; its matches are those of the package, and a test
compares them.  Both are measured in turn, so whatever else the machine does affects both.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from vfnet_edu.assigners import BACKGROUND, atss
from vfnet_edu.bench.star import peak_memory, timed
from vfnet_edu.boxes import centers, iou, xyxy_to_ltrb
from vfnet_edu.priors import pyramid_anchors

STRIDES = (8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Options:
    boxes: tuple[int, ...] = (7, 50, 200, 1000)
    """numbers of boxes in the image; the first is the unit of the last column"""
    size: tuple[int, int] = (800, 1344)
    """height and width of the image"""
    repeats: int = 5
    """rounds of both; the median counts"""
    threads: int = 1
    """CPU threads"""
    device: str = "cpu"
    json: Path | None = None
    """also write the table to this file"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.bench assign")
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    shapes = [(-(-options.size[0] // s), -(-options.size[1] // s)) for s in STRIDES]
    anchors = pyramid_anchors(shapes, STRIDES, (8.0,), device=device)  # (P, 4)
    level_sizes = [h * w for h, w in shapes]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{options.threads} thread(s)"
    print(f"torch {torch.__version__}, {where}, {len(anchors)} anchors in {options.size[0]} x {options.size[1]} pixels")
    print(f"\n{'boxes':>6}{'ours':>12}{'naive':>12}{'times':>8}{'ours, peak':>13}{'naive, peak':>13}"
          f"{f'of {options.boxes[0]} boxes':>14}")  # fmt: skip
    rows = []
    for count in options.boxes:
        rows.append(measure(anchors, level_sizes, random_boxes(count, options.size).to(device), options.repeats))
        row, unit = rows[-1], rows[0]
        print(f"{count:>6}{row['ours_ms']:>9.2f} ms{row['naive_ms']:>9.2f} ms{row['naive_ms'] / row['ours_ms']:>8.1f}"
              f"{row['ours_mb']:>10.1f} MB{row['naive_mb']:>10.1f} MB"
              f"{row['ours_ms'] / unit['ours_ms']:>14.1f}")  # fmt: skip
        if options.json:
            header = {"torch": torch.__version__, "device": where, "size": options.size, "repeats": options.repeats}
            options.json.write_text(json.dumps(header | {"rows": rows}, indent=1), encoding="utf-8")


def measure(anchors: Tensor, level_sizes: list[int], boxes: Tensor, repeats: int) -> dict[str, float]:
    """Median milliseconds and peak megabytes of both, measured in turn."""
    steps = {
        "ours": lambda: atss(anchors, level_sizes, boxes),
        "naive": lambda: naive_atss(anchors, level_sizes, boxes),
    }
    row: dict[str, float] = {"boxes": len(boxes)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in steps.items():
        row[f"{name}_mb"], _ = peak_memory(step, anchors.device)
    for _ in range(repeats):
        for name, step in steps.items():
            step()  # the other has emptied the caches
            times[name].append(timed(step, anchors.device, 1))
    return row | {f"{name}_ms": statistics.median(found) for name, found in times.items()}


def random_boxes(count: int, size: tuple[int, int]) -> Tensor:
    """Boxes anywhere in an image, with sides of any length from 8 pixels to the whole image.  -> (count, 4)"""
    generator = torch.Generator().manual_seed(count)
    wh = torch.tensor([size[1], size[0]], dtype=torch.float32)
    side = 8 * (wh / 8) ** torch.rand(count, 2, generator=generator)  # uniform logarithms
    corner = torch.rand(count, 2, generator=generator) * (wh - side)
    return torch.cat([corner, corner + side], dim=1)


@torch.no_grad()
def naive_atss(anchors: Tensor, level_sizes: list[int], gt_boxes: Tensor, topk: int = 9) -> Tensor:
    """:func:`vfnet_edu.assigners.atss` over all pairs.  (P, 4), level sizes, (G, 4) -> (P,) int64"""
    if len(gt_boxes) == 0:
        return anchors.new_full((len(anchors),), BACKGROUND, dtype=torch.int64)
    overlap = iou(anchors[:, None], gt_boxes)  # (P, G)
    offset = centers(anchors)[:, None] - centers(gt_boxes)  # (P, G, 2)
    distance = offset.square().sum(-1).sqrt()  # (P, G)
    candidates, start = [], 0
    for d in distance.split(level_sizes):
        candidates.append(d.topk(min(topk, len(d)), dim=0, largest=False).indices + start)
        start += len(d)
    candidates = torch.cat(candidates)  # (T, G)
    candidate_iou = overlap.gather(0, candidates)  # (T, G)
    positive = candidate_iou >= candidate_iou.mean(0) + candidate_iou.std(0)
    positive &= xyxy_to_ltrb(centers(anchors)[candidates], gt_boxes).amin(-1) > 0.01  # (T, G)
    claim = torch.full_like(overlap, -1.0)
    claim.scatter_(0, candidates, torch.where(positive, candidate_iou, -1.0))
    best, match = claim.max(dim=1)  # (P,), (P,)
    return torch.where(best >= 0, match, BACKGROUND)
