"""What is wrong with a set of detections?  Every false one gets one reason, and each reason is fixed to see its worth.

Derived in chapter 16.  Source: TIDE (Bolya, Foley, Hays, Hoffman, ECCV 2020, arXiv 2008.08115), section 2, with the
thresholds and the order of tests of the published tool.  Three details follow COCO instead, so that AP50 is the number
of :mod:`vfnet_edu.evaluation.scores`: 100 detections count per image *and class*, of two objects with one IoU the later
is taken, and a class without objects has no AP.
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch

from vfnet_edu.boxes import iof, iou, xywh_to_xyxy
from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.evaluation.average_precision import average_precision
from vfnet_edu.evaluation.scores import Found, checked
from vfnet_edu.runtime.errors import Exit, UserError

KINDS = ("class", "place", "both", "duplicate", "background", "missed")
CLASS, PLACE, BOTH, DUPLICATE, BACKGROUND = range(5)  # of a false detection; "missed" is said of an object
RIGHT, IGNORED = -1, -2  # ignored: it lies on a crowd of its class, which counts neither way
FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1  # from here on an object is found; up to here nothing is touched
MOST = 100  # detections per image and class, as COCO counts them


@dataclass(frozen=True)
class ErrorSplit:
    """D detections, image by image and best first, each with what became of it; and the objects nobody came near."""

    index: CocoIndex
    found: Found
    kinds: np.ndarray  # (D,) a place in KINDS, or RIGHT or IGNORED
    objects: np.ndarray  # (D,) the object of the index that it found, or ought to have found; -1: none
    ious: np.ndarray  # (D,) with that object; where there is none, the most with any
    cures: np.ndarray  # (D,) bool: made right, it would find an object that is not found yet
    missed: np.ndarray  # (A,) bool: not found, and no class or place error would find it

    def __len__(self) -> int:
        return len(self.kinds)

    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        false = np.bincount(self.kinds[self.kinds >= 0], minlength=5).tolist()
        return dict(zip(KINDS, [*false, int(self.missed.sum())], strict=True))

    def ap50(self, fixed: Collection[str] = ()) -> float:
        """AP at IoU 0.5, mean over the classes with objects, were the errors of the kinds `fixed` not there.

        A class or place error becomes right if it is the best-scored one at an object that is not found otherwise, or
        else is removed; a detection of another kind is removed; a missed object is no longer asked for.  No fix lowers
        it, and with every kind fixed it is exactly 1.

        Returns:
            In [0, 1]; -1, undefined, where the data set has no object.

        Raises:
            UserError: a kind that is not in KINDS.
        """
        if unknown := set(fixed) - set(KINDS):
            raise UserError(f"no kind of error is called {min(unknown)!r}", remedy=f"they are {', '.join(KINDS)}")
        mended = np.isin(self.kinds, [KINDS.index(kind) for kind in fixed])  # (D,)
        cured = mended & self.cures
        labels = self.found.labels.copy()
        labels[cured] = self.index.labels[self.objects[cured]]
        hits, stays = (self.kinds == RIGHT) | cured, (self.kinds != IGNORED) & (~mended | cured)
        wanted = ~self.index.crowd & ~(self.missed & ("missed" in fixed))  # (A,)
        objects = np.bincount(self.index.labels[wanted], minlength=len(self.index.classes))  # (K,)
        if not objects.any():
            return -1.0 if self.index.crowd.all() else 1.0  # 1: nothing is left to be found
        best = np.lexsort((self.index.image_ids[self.found.rows], -self.found.scores))  # (D,) of ties, by image id
        best = best[stays[best]]
        per_class = [average_precision(hits[best[labels[best] == k]], objects[k]) for k in np.flatnonzero(objects)]
        return float(np.mean(per_class))

    @functools.cached_property
    def gains(self) -> dict[str, float]:
        """AP50 that fixing each kind alone would add, never below 0; 0 where AP50 is undefined."""
        now = self.ap50()
        return {kind: self.ap50([kind]) - now for kind in KINDS}

    def worst(self, kind: str, count: int | None = None) -> np.ndarray:
        """Which errors of a kind to look at first: the surest detections, or the largest missed objects.

        Returns:
            (n,) rows of this split; of "missed", rows of the index.
        """
        if kind == "missed":
            which, worth = np.flatnonzero(self.missed), self.index.areas
        else:
            which, worth = np.flatnonzero(self.kinds == KINDS.index(kind)), self.found.scores
        return which[np.argsort(-worth[which], kind="stable")][:count]


def split_errors(index: CocoIndex, results: list[dict]) -> ErrorSplit:
    """Which detections are wrong, and in what way.  Each gets exactly one kind, by the first test that holds:

    right: it takes the object of its class that it overlaps most of those still free, by 0.5 or more (best first);
    ignored: half of it or more lies on a crowd of its class;
    place: its best IoU with an object of its class is in [0.1, 0.5);
    class: its best IoU with an object of another class is 0.5 or more;
    duplicate: its IoU with an object of its class, which a better detection took, is 0.5 or more;
    background: no object overlaps it by more than 0.1;
    both: the rest, with too little overlap and the wrong class.

    Args:
        index: the data set.
        results: COCO results, as :func:`vfnet_edu.evaluation.judge.judge` yields them.

    Raises:
        UserError: as in :func:`vfnet_edu.evaluation.scores.coco_scores`; and where no image id is the data set's.
    """
    found = checked(results, index)
    if found.strangers:
        raise UserError(
            f"the results are of other images: {found.strangers[0]} is not in {index.json_path}",
            remedy="score detections with the annotations of the same images",
            code=Exit.DATA,
        )
    found = _best_of_each(found)
    ends = np.searchsorted(found.rows, np.arange(len(index) + 1))  # detections of image i: ends[i]:ends[i + 1]
    kinds, objects = np.full((2, len(found.rows)), BACKGROUND)
    objects[:] = -1
    ious = np.zeros(len(found.rows))
    for row in range(len(index)):
        mine = slice(ends[row], ends[row + 1])
        if mine.start < mine.stop:
            kinds[mine], objects[mine], ious[mine] = _split_image(index, row, found.xywh[mine], found.labels[mine])
    taken = np.isin(np.arange(len(index.labels)), objects[kinds == RIGHT])  # (A,)
    could = np.flatnonzero(np.isin(kinds, (CLASS, PLACE)) & (objects >= 0))
    could = could[~taken[objects[could]]]
    _, first = np.unique(objects[could], return_index=True)  # the best one at each object, for they are sorted
    cures = np.isin(np.arange(len(kinds)), could[first])
    missed = ~index.crowd & ~taken & ~np.isin(np.arange(len(taken)), objects[cures])
    return ErrorSplit(index, found, kinds, objects, ious, cures, missed)


def _best_of_each(found: Found) -> Found:
    """At most MOST of each image and class, image by image, best first."""
    order = np.lexsort((-found.scores, found.labels, found.rows))
    group = np.stack([found.rows, found.labels])[:, order]  # (2, D)
    new = np.concatenate([[True], (group[:, 1:] != group[:, :-1]).any(0)])[: len(order)]
    place = np.arange(len(order)) - np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    order = np.sort(order[place < MOST])
    order = order[np.lexsort((-found.scores[order], found.rows[order]))]
    return Found(found.rows[order], found.labels[order], found.xywh[order], found.scores[order])


def _split_image(
    index: CocoIndex, row: int, xywh: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kinds, objects and IoUs of the d detections of one image, best first.  (d, 4), (d,) -> (d,), (d,), (d,)"""
    theirs = np.arange(index.starts[row], index.starts[row + 1])
    crowd = index.crowd[theirs]
    boxes = torch.from_numpy(xywh_to_xyxy(xywh))[:, None]  # (d, 1, 4)
    truth = torch.from_numpy(xywh_to_xyxy(index.xywh[theirs]))  # (a, 4)
    same = labels[:, None] == index.labels[theirs]  # (d, a)
    kinds, which, ious = name_errors(iou(boxes, truth[~crowd]).numpy(), same[:, ~crowd])
    if crowd.any():
        on_crowd = ((iof(boxes, truth[crowd]).numpy() >= FOREGROUND_IOU) & same[:, crowd]).any(1)
        kinds = np.where((kinds != RIGHT) & on_crowd, IGNORED, kinds)
    objects = np.append(theirs[~crowd], -1)[which]  # -1, none, is the last place
    return kinds, np.where(kinds == IGNORED, -1, objects), ious


def name_errors(ious: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tests of :func:`split_errors` in one image without crowds.  Derived in chapter 16.

    Args:
        ious: (D, G) of detections, highest score first, and objects.
        same: (D, G) bool: they have one class.

    Returns:
        Kinds (D,), objects (D,), -1 for none, and IoUs (D,) with them or else the largest with any.
    """
    own = _best(np.where(same, ious, 0))
    other = _best(np.where(same, 0, ious))
    any_ = _best(ious)
    right = claims(np.where(same, ious, 0), FOREGROUND_IOU)
    tests = {  # in this order: the first that holds
        RIGHT: (right >= 0, right),
        PLACE: ((own[0] >= BACKGROUND_IOU) & (own[0] < FOREGROUND_IOU), own[1]),
        CLASS: (other[0] >= FOREGROUND_IOU, other[1]),
        DUPLICATE: (own[0] >= FOREGROUND_IOU, own[1]),  # free, it would have been claimed
        BACKGROUND: (any_[0] <= BACKGROUND_IOU, np.full(len(ious), -1)),
        BOTH: (np.full(len(ious), True), any_[1]),
    }
    holds, objects = zip(*tests.values(), strict=True)
    which = np.select(holds, objects)
    padded = np.concatenate([ious, any_[0][:, None]], 1)  # (D, G + 1): the last place is that of "none"
    return np.select(holds, list(tests)), which, np.take_along_axis(padded, which[:, None], 1)[:, 0]


def _best(ious: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest of each row and its place; 0 and -1 where there is none.  (D, G) -> (D,), (D,)"""
    if not ious.shape[1]:
        return np.zeros(len(ious)), np.full(len(ious), -1)
    return ious.max(1), ious.argmax(1)


def claims(ious: np.ndarray, threshold: float) -> np.ndarray:
    """Which object each detection takes: that of the largest IoU among those still free, if it reaches `threshold`.

    :func:`vfnet_edu.evaluation.average_precision.match` says only whether it takes one.

    Args:
        ious: (D, G) of detections, highest score first, and objects of their class.

    Returns:
        (D,) int64, -1 for none.  Of two equal IoUs the later counts, as in pycocotools.
    """
    taken, free = np.full(len(ious), -1), np.ones(ious.shape[1], bool)
    for d in np.flatnonzero((ious >= threshold).any(1)):  # the others take nothing
        row = np.where(free, ious[d], -1.0)  # (G,)
        if row.max() >= threshold:
            taken[d] = np.flatnonzero(row == row.max())[-1]
            free[taken[d]] = False
    return taken
