"""Average precision of one ranked list in the fewest lines, as chapter 3 derives it.

:mod:`vfnet_edu.evaluation.scores` asks pycocotools or faster-coco-eval for the twelve numbers of a whole data set;
these lines are for reading, and for lists that are reordered by hand.
"""

from collections.abc import Sequence

import numpy as np

RECALLS = np.linspace(0, 1, 101)  # where COCO reads the curve
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # the IoUs that COCO averages over


def match(ious: np.ndarray, threshold: float) -> np.ndarray:
    """Which detections of one image are right (chapter 3): each, best first, takes the best object that is still free.

    Args:
        ious: (D, G) of the detections of one class, highest score first, with the objects of this class.
        threshold: the least IoU of a right box.

    Returns:
        (D,) bool.  Of two objects that overlap a box equally the later one is taken, as pycocotools does.
    """
    right, free = np.zeros(len(ious), bool), np.ones(ious.shape[1], bool)
    for d in np.flatnonzero((ious >= threshold).any(1)):  # the other boxes find nothing
        row = np.where(free, ious[d], -1.0)  # (G,)
        if row.max() >= threshold:
            free[np.flatnonzero(row == row.max())[-1]] = False
            right[d] = True
    return right


def average_precision(hits: Sequence[bool] | np.ndarray, objects: int) -> float:
    """The area under precision over recall, read at 101 recalls (chapter 3).

    Args:
        hits: of all detections of a class, highest score first: whether it is right.
        objects: how many there are to be found, at least 1.

    Returns:
        AP in [0, 1].  Source: pycocotools, cocoeval.py, accumulate.
    """
    found = np.cumsum(np.asarray(hits, float))  # (D,)
    precision, recall = found / np.arange(1, len(found) + 1), found / objects
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]  # (D,)  the saw teeth filled
    places = np.searchsorted(recall, RECALLS)  # (101,)  the first rank that reaches this recall
    return float(np.append(best_from_here, 0.0)[places].mean())  # 0 where it is never reached
