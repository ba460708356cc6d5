"""Average precision of one ranked list in the fewest lines, as chapter 3 derives it.

:mod:`vfnet_edu.evaluation.scores` asks pycocotools or faster-coco-eval for the twelve numbers of a whole data set;
these lines are for reading, and for lists that are reordered by hand.
"""

from collections.abc import Sequence

import numpy as np

RECALLS = np.linspace(0, 1, 101)  # where COCO reads the curve
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # the IoUs that COCO averages over


def match(ious: np.ndarray, threshold: float) -> np.ndarray:
    """Which detections of one image and class are right (chapter 3).

    Each, best first, takes the object it overlaps most of those still free.

    Args:
        ious: (D, G) of detections, highest score first, and objects.
        threshold: the least IoU of a right box.

    Returns:
        (D,) bool.  Of two equal IoUs the later counts, as in pycocotools.
    """
    right, free = np.zeros(len(ious), bool), np.ones(ious.shape[1], bool)
    for d in np.flatnonzero((ious >= threshold).any(1)):  # the others find nothing
        row = np.where(free, ious[d], -1.0)  # (G,)
        if row.max() >= threshold:
            free[np.flatnonzero(row == row.max())[-1]] = False
            right[d] = True
    return right


def average_precision(hits: Sequence[bool] | np.ndarray, objects: int) -> float:
    """The area under precision over recall, read at 101 recalls (chapter 3).

    Args:
        hits: (D,) whether each detection is right, highest score first.
        objects: how many there are to be found, at least 1.

    Returns:
        AP in [0, 1].  Source: pycocotools, cocoeval.py, accumulate.
    """
    found = np.cumsum(np.asarray(hits, float))  # (D,)
    precision, recall = found / np.arange(1, len(found) + 1), found / objects
    filled = np.maximum.accumulate(precision[::-1])[::-1]  # (D,)  no teeth
    places = np.searchsorted(recall, RECALLS)  # (101,)  first to reach it
    return float(np.append(filled, 0.0)[places].mean())  # 0: never reached
