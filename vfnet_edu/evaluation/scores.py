"""Average precision and recall as COCO defines them, with the reason in words where they are 0 or undefined.

pycocotools is the referee; faster-coco-eval gives the same numbers sooner.  Neither checks its input, so it is checked
here: a box that is not a number would count as a hit, an annotation with id 0 as a miss.
"""

import contextlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from vfnet_edu.boxes import iou, xywh_to_xyxy, xyxy_to_xywh
from vfnet_edu.data.coco import CocoIndex, read_coco
from vfnet_edu.evaluation.calibration import Calibration
from vfnet_edu.postprocess import Candidates, DetectConfig, select
from vfnet_edu.runtime.errors import Exit, UserError

MEANING = {
    "AP": "IoU .50:.95, mean over classes",
    "AP50": "IoU .50",
    "AP75": "IoU .75",
    "APs": "objects below 32 x 32 px",
    "APm": "objects in between",
    "APl": "objects above 96 x 96 px",
    "AR1": "recall, 1 detection per image and class",
    "AR10": "recall, 10",
    "AR100": "recall, 100",
    "ARs": "recall, objects below 32 x 32 px",
    "ARm": "recall, objects in between",
    "ARl": "recall, objects above 96 x 96 px",
}


# ------------------------------------------------------------------ what is scored, and the scores
class Outcome(NamedTuple):
    """What one pass of a detector over a data set yields (:func:`vfnet_edu.evaluation.judge.judge`)."""

    results: list[dict]  # COCO results, original ids, boxes x, y, w, h in pixels of the original image
    losses: dict[str, float]  # mean over images; empty where not asked for
    calibration: Calibration

    def record(self) -> dict:
        """``val_loss_<name>``, ``rank_correlation`` and ``rank_correlation_within``; None where undefined."""
        numbers = {
            **{f"val_loss_{name}": value for name, value in self.losses.items()},
            "rank_correlation": self.calibration.spearman(),
            "rank_correlation_within": self.calibration.within_object(),
        }
        return {name: value if np.isfinite(value) else None for name, value in numbers.items()}  # json has no NaN


@dataclass(frozen=True)
class Scores:
    """What COCO's protocol says about a set of detections.  Every number is in [0, 1], or -1: undefined, no object."""

    numbers: dict[str, float]  # the twelve, named as in MEANING
    classes: tuple[str, ...]
    per_class: np.ndarray  # (K, 2)  AP and AP50
    precision: np.ndarray  # (2, 101, K)  at IoU .50 and .75, at recall 0, .01, ... 1
    objects: np.ndarray  # (K,)  that count, i.e. no crowds
    detections: np.ndarray  # (K,)
    images: int
    why: str | None  # the reason where AP is 0 or undefined

    def pr_curve(self, iou: float = 0.5, label: int | None = None) -> np.ndarray:
        """Precision at the recalls 0, .01, ... 1 of one class, or the mean over classes with objects.  -> (101,)

        `iou` is 0.5 or 0.75.
        """
        curve = self.precision[{0.5: 0, 0.75: 1}[iou]]  # (101, K)
        if label is not None:
            return curve[:, label]
        known = curve[:, self.objects > 0]
        return known.mean(1) if known.size else np.full(len(curve), -1.0)

    def record(self) -> dict:
        """The scores as one flat json-able dict: the twelve numbers, ``why`` and ``per_class`` rows."""
        rows = zip(self.classes, self.per_class.tolist(), self.objects.tolist(), self.detections.tolist(), strict=True)
        per_class = [
            {"name": name, "AP": ap, "AP50": ap50, "objects": objects, "detections": found}
            for name, (ap, ap50), objects, found in rows
        ]
        return {**self.numbers, "why": self.why, "images": self.images, "per_class": per_class}

    def table(self) -> str:
        """The twelve numbers and a line per class, for a terminal.  An undefined number is shown as a dash."""
        lines = [f"{name:<6}{_shown(value)}   {MEANING.get(name, 'recall')}" for name, value in self.numbers.items()]
        width = max(map(len, ("class", *self.classes)))
        lines += ["", f"{'class':<{width}}     AP   AP50  objects  detections"]
        for row in self.record()["per_class"]:
            counts = f"{row['objects']:7d}  {row['detections']:10d}"
            lines.append(f"{row['name']:<{width}}  {_shown(row['AP'])}  {_shown(row['AP50'])}  {counts}")
        if self.why:
            lines += ["", f"AP is {'0' if self.numbers['AP'] == 0 else 'undefined'}: {self.why}"]
        return "\n".join(lines)


def _shown(value: float) -> str:
    return "    –" if value < 0 else f"{value:5.3f}"


def coco_scores(
    truth: CocoIndex | str | Path,
    results: list[dict] | str | Path,
    max_detections: int = 100,
    engine: Literal["faster", "pycocotools"] = "faster",
) -> Scores:
    """Average precision and recall of `results`, as pycocotools computes them on the annotation file.

    Args:
        truth: the data set, or its COCO json.
        results: COCO results, a list or a json file of
            ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}`` with the ids of the annotation file.
        max_detections: per image and class, best first.
        engine: the library that computes them; "faster" is faster-coco-eval.

    Raises:
        UserError: code DATA where a result is malformed or names an unknown image or category,
            DIVERGED where a box or a score is not finite.
    """
    if not isinstance(truth, CocoIndex):
        truth = read_coco(truth, Path(truth).parent)
    found = checked(_read(results) if isinstance(results, str | Path) else results, truth)
    limits = sorted({1, 10, max_detections})
    precision, recall = _referee(truth, found, limits, engine)  # (10, 101, K, 4, M), (10, K, 4, M)

    top = limits.index(max_detections)
    numbers = {
        "AP": _mean(precision[..., 0, top]),
        "AP50": _mean(precision[0, ..., 0, top]),
        "AP75": _mean(precision[5, ..., 0, top]),
        **{f"AP{size}": _mean(precision[..., i, top]) for i, size in enumerate("sml", 1)},
        **{f"AR{limit}": _mean(recall[..., 0, limits.index(limit)]) for limit in (1, 10, max_detections)},
        **{f"AR{size}": _mean(recall[..., i, top]) for i, size in enumerate("sml", 1)},
    }
    classes = range(len(truth.classes))
    per_class = [[_mean(precision[:, :, k, 0, top]), _mean(precision[0, :, k, 0, top])] for k in classes]
    return Scores(
        numbers=numbers,
        classes=tuple(truth.classes),
        per_class=np.array(per_class).reshape(-1, 2),
        precision=precision[[0, 5], :, :, 0, top],
        objects=np.bincount(truth.labels[~truth.crowd], minlength=len(classes)),
        detections=np.bincount(found.labels, minlength=len(classes)),
        images=len(truth.image_ids),
        why=_why(truth, found) if numbers["AP"] <= 0 else None,
    )


def candidate_scores(
    candidates: Candidates, index: CocoIndex, size: tuple[int, int], config: DetectConfig, rows: Sequence[int] = ()
) -> Scores:
    """What COCO's protocol says about any candidates, after selection and suppression.

    Args:
        candidates: image n of them is image n of `index`, at the size it is stored in.
        index: the data set.
        size: (height, width) of every image, pixels.
        config: thresholds.
        rows: judge these images only; by default all.
    """
    rows = list(rows) or list(range(len(index)))
    results = []
    for n in rows:
        found = select(candidates, n, size, config)
        columns = xyxy_to_xywh(found.boxes).tolist(), found.scores.tolist(), found.labels.tolist()
        for box, score, label in zip(*columns, strict=True):
            where = {"image_id": int(index.image_ids[n]), "category_id": int(index.category_ids[label])}
            results.append({**where, "bbox": box, "score": score})
    return coco_scores(index.select(rows), results)


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def _referee(truth: CocoIndex, found: "Found", limits: list[int], engine: str) -> tuple[np.ndarray, np.ndarray]:
    """Precision (T, R, K, A, M) and recall (T, K, A, M) from pycocotools or faster-coco-eval.

    Images and categories go by their place in sorted order, annotations get fresh ids from 1: the referee takes an id 0
    for "unmatched" and keeps only the last of two annotations with one id.
    """
    COCO, COCOeval = _library(engine)

    def coco(images, labels, boxes, areas, **more):
        columns = {"image_id": images, "category_id": labels, "area": areas, **more}
        rows = zip(boxes.tolist(), *(column.tolist() for column in columns.values()), strict=True)
        made = COCO()
        made.dataset = {
            "images": [{"id": i} for i in range(len(truth.image_ids))],
            "categories": [{"id": k} for k in range(len(truth.classes))],
            "annotations": [
                {"id": n, "bbox": box, **dict(zip(columns, row, strict=True))} for n, (box, *row) in enumerate(rows, 1)
            ],
        }
        made.createIndex()
        return made

    with contextlib.redirect_stdout(io.StringIO()):  # both libraries print
        places = np.argsort(np.argsort(truth.image_ids))  # (N,) image -> place of its id
        gt = coco(places[truth.rows], truth.labels, truth.xywh, truth.areas, iscrowd=truth.crowd.astype(int))
        areas = found.xywh[:, 2] * found.xywh[:, 3]
        dt = coco(places[found.rows], found.labels, found.xywh, areas, score=found.scores)
        judge = COCOeval(gt, dt, "bbox")
        judge.params.maxDets = limits
        judge.evaluate()
        judge.accumulate()
    return np.asarray(judge.eval["precision"]), np.asarray(judge.eval["recall"])


def _library(engine: str) -> tuple[Any, Any]:
    """COCO and COCOeval.  Any: the two libraries share what we use of them, but not their types."""
    if engine == "faster":
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


# ------------------------------------------------------------------ results, checked
class Found(NamedTuple):
    """Detections as columns, named as in :class:`CocoIndex`."""

    rows: np.ndarray  # (D,) image
    labels: np.ndarray  # (D,)
    xywh: np.ndarray  # (D, 4) float64
    scores: np.ndarray  # (D,)
    strangers: tuple[int, ...] = ()  # image ids that the data set does not have, where it has none of them


def _read(path: str | Path) -> list[dict]:
    try:
        results = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", code=Exit.DATA) from None
    except ValueError as error:  # broken json, or not text
        raise UserError(f"{path}: not a json file: {error}", code=Exit.DATA) from None
    if not isinstance(results, list):
        raise UserError(f"{path}: a COCO result file is a list", remedy="is this the annotation file?", code=Exit.DATA)
    return results


def checked(results: list[dict], truth: CocoIndex) -> Found:
    """COCO results as columns of the data set's own numbers.  Raises UserError as :func:`coco_scores` says."""
    row_of = {image: n for n, image in enumerate(truth.image_ids.tolist())}
    label_of = {category: k for k, category in enumerate(truth.category_ids.tolist())}
    rows, labels = np.zeros((2, len(results)), int)
    xywh, scores = np.zeros((len(results), 4)), np.zeros(len(results))
    strangers = []
    for n, result in enumerate(results):
        try:
            image, category = result["image_id"], result["category_id"]
            x, y, w, h = result["bbox"]
            xywh[n], scores[n] = (x, y, w, h), result["score"]
            row, label = row_of.get(image), label_of.get(category)
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"results[{n}] is not a detection: {str(result)[:120]}",
                remedy='it needs "image_id", "category_id", "bbox": [x, y, w, h] and "score"',
                code=Exit.DATA,
            ) from None
        if label is None:
            raise UserError(
                f"results[{n}].category_id {category!r} is not in the annotation file",
                remedy=f"its categories are {_few(label_of)}; write those ids, not class numbers from 0",
                code=Exit.DATA,
            )
        if row is None:
            strangers.append((n, image))
        rows[n], labels[n] = row or 0, label
    bad = ~(np.isfinite(xywh).all(1) & np.isfinite(scores))
    if bad.any():
        n = int(bad.argmax())
        raise UserError(
            f"results[{n}], image {results[n]['image_id']!r}: box {xywh[n].tolist()}, score {scores[n]} is not finite",
            remedy="the model has diverged: go back to an earlier checkpoint and use a lower learning rate",
            code=Exit.DIVERGED,
        )
    if (xywh[:, 2:] < 0).any():
        n = int((xywh[:, 2:] < 0).any(1).argmax())
        raise UserError(
            f"results[{n}].bbox {xywh[n].tolist()} has a negative side", remedy="write [x, y, w, h]", code=Exit.DATA
        )
    if strangers and len(strangers) < len(results):
        n, image = strangers[0]
        raise UserError(
            f"results[{n}].image_id {image!r} is not in the annotation file, nor are {len(strangers) - 1} more",
            remedy="score detections with the annotations of the same images",
            code=Exit.DATA,
        )
    if strangers:  # all of them: a score of 0 with its reason
        return Found(rows[:0], labels[:0], xywh[:0], scores[:0], tuple(image for _, image in strangers))
    return Found(rows, labels, xywh, scores)


def _few(values: Iterable) -> str:
    values = list(values)
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")


def _why(truth: CocoIndex, found: Found) -> str:
    """Why AP is 0 or undefined, in words."""
    if truth.crowd.all():
        return "the data set has no object that counts, so AP is undefined"
    if found.strangers:
        theirs, ours = _few(dict.fromkeys(found.strangers)), _few(sorted(truth.image_ids.tolist()))
        return f"the image ids do not match: {theirs} in the results, {ours} in the annotations"
    if not len(found.scores):
        return "there is no detection: no score passed the threshold, which early in training is normal"
    same, any_class, corners = 0.0, 0.0, 0.0  # best overlaps: with the class, without it, if boxes were x1, y1, x2, y2
    order = np.argsort(found.rows, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(found.rows[order])) + 1):  # image by image
        row = found.rows[mine[0]]
        theirs = slice(truth.starts[row], truth.starts[row + 1])
        if truth.labels[theirs].size:
            boxes, objects = torch.from_numpy(found.xywh[mine]), torch.from_numpy(xywh_to_xyxy(truth.xywh[theirs]))
            overlap = iou(xywh_to_xyxy(boxes)[:, None], objects)  # (D, G)
            agree = torch.from_numpy(found.labels[mine][:, None] == truth.labels[theirs])  # (D, G)
            any_class = max(any_class, float(overlap.max()))
            same = max(same, float((overlap * agree).max()))
            corners = max(corners, float(iou(boxes[:, None], objects).max()))
    if same < 0.5 <= any_class:
        return f"boxes fit (IoU up to {any_class:.2f}) but never with the right class: are the category ids shifted?"
    if any_class < 0.5 <= corners:
        return f"boxes fit (IoU {corners:.2f}) if read as x1, y1, x2, y2: the result format is x, y, width, height"
    if same < 0.5:
        return f"no detection overlaps an object of its class by IoU 0.5; the best reaches {same:.2f}"
    return "the detections that fit an object are crowded out by higher-scoring ones of their image and class"
