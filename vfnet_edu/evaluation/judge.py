"""One pass over a data set: detections, validation losses, calibration.  `evaluation.scores` turns them into AP."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from vfnet_edu.boxes import xyxy_to_xywh
from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.evaluation.calibration import Calibration, Pairs, score_iou_pairs
from vfnet_edu.evaluation.scores import Outcome, Scores
from vfnet_edu.models.detector import Detector, evaluating
from vfnet_edu.postprocess import Candidates, Detections
from vfnet_edu.runtime.errors import Exit, UserError


def judge(
    model: Detector,
    loader: Iterable,
    index: CocoIndex,
    device: torch.device | str = "cpu",
    *,
    losses: bool = True,
    autocast: torch.dtype | None = None,
    tick: Callable[[int], object] | None = None,
) -> Outcome:
    """Detections, validation losses and calibration pairs of a data set from one forward pass per batch.

    In a distributed job every process takes its share of the loader, and all of them return the whole outcome; images
    that a sampler repeats to make the shares equal count once.

    Args:
        model: a Detector; left in the mode (training or not) it was in.
        loader: yields (images, targets), see data/loader.py.
        index: the data set the loader reads.
        losses: False saves the time of assigning targets.
        autocast: lower precision of the forward pass, e.g. torch.bfloat16; boxes and losses stay in float32.
        tick: called after each batch with the number of images done here; what it raises passes through.

    Raises:
        UserError: code DIVERGED where a score or a box is not finite, naming the image.
    """
    device, share = torch.device(device), _Share()
    with evaluating(model):
        for images, targets in loader:
            targets = [{**t, "boxes": t["boxes"].to(device), "labels": t["labels"].to(device)} for t in targets]
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                out = model.raw(images)
            candidates = model.candidates(out, images)
            scores = _ranking_scores(candidates)  # (B, P, K)
            _check_finite(scores, candidates.boxes, targets)
            detections = model.answer(out, images, [t["scale"] for t in targets])
            for i, (target, found) in enumerate(zip(targets, detections, strict=True)):
                share.add_image(target["index"], found, score_iou_pairs(scores[i], candidates.boxes[i], target))
            if losses:
                share.add_losses(model.teach(out, targets, images), len(images))
            if tick:
                tick(len(share.found))
    return _together(share).outcome(index)


def eval_record(epoch: float, step: int, scores: Scores, outcome: Outcome) -> dict:
    """The line that one evaluation adds to a run's metrics.jsonl (schema: viz/report.py)."""
    return {"kind": "eval", "epoch": epoch, "step": step, **scores.record(), **outcome.record()}


def _ranking_scores(candidates: Candidates) -> Tensor:
    """(B, P, K): what detections are sorted by; ATSS multiplies its score by the centerness"""
    return candidates.scores if candidates.factor is None else candidates.scores * candidates.factor[..., None]


def _check_finite(scores: Tensor, boxes: Tensor, targets: list[dict]) -> None:
    fine = scores.isfinite().all(2).all(1) & boxes.isfinite().all(2).all(1)  # (B,)
    if not fine.all():
        image = targets[int((~fine).nonzero()[0])]["image_id"]
        raise UserError(
            f"image {image!r}: the model's scores or boxes are not finite",
            remedy="it has diverged: go back to an earlier checkpoint and use a lower learning rate",
            code=Exit.DIVERGED,
        )


@dataclass
class _Share:
    """What one process has seen so far."""

    found: dict[int, np.ndarray] = field(default_factory=dict)  # image number -> (D, 6): x, y, w, h, score, label
    sums: dict[str, float] = field(default_factory=dict)  # losses, summed over images
    seen: int = 0
    calibration: Calibration = field(default_factory=Calibration)

    def add_image(self, number: int, found: Detections, pairs: Pairs) -> None:
        columns = found.scores.double()[:, None], found.labels.double()[:, None]
        rows = torch.cat([xyxy_to_xywh(found.boxes.double()), *columns], 1)  # (D, 6)
        self.seen += number not in self.found
        self.found[number] = rows.cpu().numpy()
        self.calibration.add(number, pairs)

    def add_losses(self, losses: dict[str, Tensor], images: int) -> None:
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value) * images

    def merge(self, other: "_Share") -> None:
        self.found |= other.found
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in other.sums.items()}
        self.seen += other.seen
        self.calibration.merge(other.calibration)

    def outcome(self, index: CocoIndex) -> Outcome:
        """In COCO's terms: original ids."""
        images, categories = index.image_ids.tolist(), index.category_ids.tolist()
        results = [
            {"image_id": images[n], "category_id": categories[int(label)], "bbox": box, "score": score}
            for n in sorted(self.found)
            for *box, score, label in self.found[n].tolist()
        ]
        losses = {name: total / max(self.seen, 1) for name, total in self.sums.items()}
        return Outcome(results, losses, self.calibration)


def _together(share: _Share) -> _Share:
    """The shares of all processes, on each of them; what comes out are normal tensors, not those of an inference."""
    shares = [share]
    if dist.is_initialized():
        shares *= dist.get_world_size()
        dist.all_gather_object(shares, share)
    whole = _Share()
    for part in shares:
        whole.merge(part)
    return whole
