"""From every prediction of an image to the few worth reporting: top-k, threshold, non-maximum suppression."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from vfnet_edu.boxes import clip


class Candidates(NamedTuple):
    """What a head offers, before any selection; P predictions per image, all levels, level by level."""

    scores: Tensor  # (B, P, K)  in [0, 1]
    boxes: Tensor  # (B, P, 4)  xyxy, pixels of the network's input
    level_sizes: list[int]  # predictions per level; sums to P
    factor: Tensor | None = None  # (B, P)  multiplied into the score after the threshold (ATSS: centerness)


class Detections(NamedTuple):
    """What a detector reports for one image, best first."""

    boxes: Tensor  # (D, 4)  xyxy, pixels
    scores: Tensor  # (D,)  descending, in [0, 1]
    labels: Tensor  # (D,)  0 .. K-1

    def to(self, *args, **kwargs) -> "Detections":
        return Detections(*(x.to(*args, **kwargs) for x in self))


@dataclass(frozen=True)
class DetectConfig:
    """How predictions become detections (test settings of the authors' configs)."""

    min_score: float = 0.05  # keep scores strictly above
    top_per_level: int = 1000  # candidates of a level that survive; 0: all
    topk: Literal["locations", "pairs"] = "locations"
    """locations: the best 1000 places, all their classes, as the published numbers were made (mmdet < 2.18);
    pairs: the best 1000 (place, class) pairs, and boxes without area are dropped (mmdet >= 2.18)"""
    nms: Literal["hard", "linear", "gaussian"] = "hard"
    nms_iou: float = 0.6
    soft_min_score: float = 1e-3  # soft-NMS: scores that decay below are dropped
    soft_sigma: float = 0.5  # gaussian soft-NMS: width of the decay
    max_detections: int = 100  # per image


def select(
    candidates: Candidates,
    image: int,
    size: tuple[int, int],
    config: DetectConfig,
    scale: tuple[float, float] = (1.0, 1.0),
) -> Detections:
    """The detections of one image of a batch.

    Args:
        candidates: the head's answer for the whole batch.
        image: which image of the batch.
        size: (height, width) of that image without padding; boxes are clipped to it.
        config: thresholds.
        scale: (x, y) factors by which the image was enlarged; boxes are divided by them *before* suppression,
            because the overlap of two boxes depends a little on an aspect ratio that rounding has changed.

    Returns:
        at most ``config.max_detections`` detections in pixels of the original image.
    """
    boxes, scores, labels = pool(candidates, image, size, config, scale)
    return suppress(boxes, scores, labels, config)


def pool(
    candidates: Candidates,
    image: int,
    size: tuple[int, int],
    config: DetectConfig,
    scale: tuple[float, float] = (1.0, 1.0),
) -> tuple[Tensor, Tensor, Tensor]:
    """Everything of one image that goes into suppression: boxes (N, 4), scores (N,), labels (N,).

    Test-time augmentation concatenates the pools of several views and suppresses once.
    """
    scores, boxes = candidates.scores[image].float(), candidates.boxes[image].float()  # (P, K), (P, 4)
    factor = torch.ones_like(scores[:, 0]) if candidates.factor is None else candidates.factor[image].float()
    take = best_locations if config.topk == "locations" else best_pairs
    row, label = take(scores, factor, candidates.level_sizes, config)  # (N,), (N,)
    box = clip(boxes[row], size)
    if config.topk == "pairs":
        solid = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
        row, label, box = row[solid], label[solid], box[solid]
    box = box / box.new_tensor([*scale, *scale])
    return box, scores[row, label] * factor[row], label


def best_locations(scores: Tensor, factor: Tensor, level_sizes: list[int], config: DetectConfig):
    """Rank places by their best class times the factor; then keep every class above the threshold.  -> (N,), (N,)

    The threshold looks at the score alone, before the factor (the order the authors used).
    """
    keep, start = [], 0
    for level in (scores.amax(1) * factor).split(level_sizes):
        k = len(level) if config.top_per_level <= 0 else min(config.top_per_level, len(level))
        keep.append(level.topk(k).indices + start if k < len(level) else torch.arange(k, device=level.device) + start)
        start += len(level)
    keep = torch.cat(keep)
    row, label = torch.nonzero(scores[keep] > config.min_score, as_tuple=True)
    return keep[row], label


def best_pairs(scores: Tensor, factor: Tensor, level_sizes: list[int], config: DetectConfig):
    """Threshold first, then rank (place, class) pairs by score.  -> (N,), (N,)"""
    rows, labels, start = [], [], 0
    for level in scores.split(level_sizes):
        row, label = torch.nonzero(level > config.min_score, as_tuple=True)
        if 0 < config.top_per_level < len(row):
            best = level[row, label].topk(config.top_per_level).indices
            row, label = row[best], label[best]
        rows.append(row + start)
        labels.append(label)
        start += len(level)
    return torch.cat(rows), torch.cat(labels)


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, config: DetectConfig) -> Detections:
    """Class-wise suppression.  (N, 4), (N,), (N,) -> at most ``max_detections``, best first

    Derived in chapter 15, with the trick of ``batched_nms``: one call for all classes.
    """
    if config.nms == "hard":
        keep = batched_nms(boxes, scores, labels, config.nms_iou)[: config.max_detections]
        return Detections(boxes[keep], scores[keep], labels[keep])
    scores, keep = soft_nms(boxes, scores, labels, config.nms_iou, config.nms, config.soft_sigma, config.soft_min_score)
    keep = keep[: config.max_detections]
    return Detections(boxes[keep], scores[: config.max_detections], labels[keep])


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    iou_threshold: float = 0.65,
    method: Literal["linear", "gaussian"] = "linear",
    sigma: float = 0.5,
    min_score: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Soft-NMS: an overlapped box loses score, not its life.  (N, 4), (N,), (N,) -> scores (M,), indices (M,)

    Derived in chapter 15.
    Source: Bodla et al. 2017.  linear: score * (1 - IoU) where IoU > threshold; gaussian: score * exp(-IoU^2 / sigma).
    Boxes of different classes do not see each other.  Both results are in the order in which boxes were taken.
    """
    scores = scores.clone()
    alive = scores > min_score
    taken, order = [], []
    while alive.any():
        best = int(torch.where(alive, scores, -1.0).argmax())
        taken.append(scores[best].clone())
        order.append(best)
        alive[best] = False
        rest = torch.nonzero(alive & (labels == labels[best]))[:, 0]
        overlap = box_iou(boxes[best : best + 1], boxes[rest])[0].nan_to_num(0.0)  # 0/0 of two empty boxes: apart
        if method == "linear":
            decay = torch.where(overlap > iou_threshold, 1 - overlap, 1.0)
        else:
            decay = torch.exp(-overlap.square() / sigma)
        scores[rest] *= decay
        alive[rest] = scores[rest] > min_score
    order = torch.tensor(order, dtype=torch.int64, device=boxes.device)
    return torch.stack(taken) if taken else scores[:0], order
