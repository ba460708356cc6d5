"""Exercises of chapter 3."""

import math
from collections.abc import Callable

import numpy as np

from vfnet_edu.evaluation import average_precision as ap
from vfnet_edu.exercises.engine import Exercise


# ---- matching by hand -----------------------------------------------------------------------------------------------
def _match(ious, threshold):
    columns = len(ious[0]) if ious else 0
    return ap.match(np.array(ious, float).reshape(len(ious), columns), threshold).tolist()


def _greedy(ious, threshold, choose, blocks=lambda best, threshold: best >= threshold):
    """Go down the list; `choose(row, taken)` names the object a box asks for, or None."""
    taken, right = set(), []
    for row in ious:
        g = choose(row, taken)
        right.append(g is not None and g not in taken and row[g] >= threshold)
        if g is not None and blocks(row[g], threshold):
            taken.add(g)
    return right


def _best_of_all(row, taken):
    return max(range(len(row)), key=row.__getitem__, default=None)


def _best_free(row, taken):
    return max((g for g in range(len(row)) if g not in taken), key=row.__getitem__, default=None)


def _first_that_fits(ious, threshold):
    def first(row, taken):
        return next((g for g, v in enumerate(row) if v >= threshold and g not in taken), None)

    return _greedy(ious, threshold, first)


def _object_chooses(ious, threshold):
    """Each object takes the box that overlaps it most."""
    right = [False] * len(ious)
    for column in zip(*ious, strict=True):
        best = max(range(len(column)), key=column.__getitem__)
        right[best] = right[best] or column[best] >= threshold
    return right


def _strictly(ious, threshold):
    return _match([[v - 1e-9 for v in row] for row in ious], threshold)


def _which_object(ious, threshold):
    taken, found = set(), []
    for row in ious:
        g = _best_free(row, taken)
        found.append(g if g is not None and row[g] >= threshold else None)
        taken |= {found[-1]} - {None}
    return found


match = Exercise(
    name="match",
    reference=_match,
    cases=[
        ([[0.9, 0.1], [0.8, 0.2], [0.3, 0.6]], 0.5),
        ([[0.6], [0.9]], 0.5),
        ([[0.9, 0.55], [0.8, 0.6], [0.1, 0.95]], 0.5),
        ([[0.5], [0.7]], 0.5),
        ([[0.74, 0.2], [0.8, 0.76], [0.1, 0.78]], 0.75),
        ([[0.6, 0.9], [0.7, 0.2]], 0.5),
        ([[], []], 0.5),
    ],
    mistakes=[
        (
            lambda ious, t: [any(v >= t for v in row) for row in ious],
            "A second box on the same object counts as right here. An object counts once: mark it as taken.",
        ),
        (
            _object_chooses,
            "Each object takes its best box here. It is the other way round: the boxes choose, in the order of the "
            "list, and a better box further down comes too late.",
        ),
        (
            lambda ious, t: _greedy(ious, t, _best_of_all),
            "A box whose best object is taken is wrong here at once: the rule of PASCAL VOC. COCO lets it take the "
            "best object that is still free.",
        ),
        (
            _first_that_fits,
            "A box takes the first free object that it fits here. It should take the one that it overlaps most.",
        ),
        (_strictly, "An IoU of exactly the threshold is enough: at least, not more than."),
        (
            lambda ious, t: _greedy(ious, t, _best_free, blocks=lambda best, threshold: True),
            "A box that does not reach the threshold takes an object all the same here. Only a right box takes one.",
        ),
        (lambda ious, t: _match(ious, 0.5), "The threshold is always 0.5 here. Use the one that is given."),
        (
            lambda ious, t: _match(ious[::-1], t)[::-1],
            "You go up the list, from the last box to the first. The box with the highest score chooses first.",
        ),
        (
            _which_object,
            "You return which object each box takes. Asked for is whether it takes one: True or False.",
        ),
        (
            lambda ious, t: [int(v) for v in _match(ious, t)],
            "The zeros and ones are right. Return True and False instead.",
        ),
        (
            lambda ious, t: [n for n, v in enumerate(_match(ious, t)) if v],
            "You return the places of the right boxes. Return True or False for every box of the list.",
        ),
        (
            lambda ious, t: [[v >= t for v in row] for row in ious],
            "You return an answer for every box and object. Return one for each box: does it find an object?",
        ),
        (lambda ious, t: sum(_match(ious, t)), "You return how many boxes are right. Return a list: one for each box."),
        (
            lambda ious, t: [max(row, default=0.0) for row in ious],
            "You return the best IoU of each box. Compare it with the threshold, and see whether the object is free.",
        ),
        (
            lambda ious, t: [not v for v in _match(ious, t)],
            "True and False are exchanged: True is a box that finds a free object.",
        ),
    ],
    right="The list decides: a box that stands higher chooses first, and a second box on the same object is wrong.",
    hint="Go down the list. Each box takes the free object that it overlaps most, if the IoU reaches the threshold.",
    describe=lambda case: f"ious = {case[0]}, threshold = {case[1]}",
)


# ---- halve AP without moving a box ----------------------------------------------------------------------------------
SCORES = [0.95, 0.91, 0.84, 0.77, 0.62, 0.55, 0.43, 0.38, 0.21, 0.12]
HITS = [True, True, False, True, False, False, False, False, True, False]

NUMBERS, LENGTH, TIES, ORDER = "no list of numbers", "another number of scores", "only ties", "the same order"
PLACES, ROSE, SAME, REVERSED, FELL, HALF = (
    "places instead of scores", "a higher AP", "the same AP", "the reversed list", "an AP above a half", "half of AP",
)  # fmt: skip


def effect_of(answer: Callable) -> Callable:
    """What new scores do to AP, in a word: (scores, hits) -> one of the constants above, None for no answer."""

    def effect(scores: list[float], hits: list[bool]) -> str | None:
        given = answer(list(scores), list(hits))
        if given is None:
            return None
        try:
            new = [float(score) for score in given]
        except (TypeError, ValueError):
            return NUMBERS
        if len(new) != len(scores):
            return LENGTH
        return NUMBERS if any(map(math.isnan, new)) else _effect(new, hits)

    return effect


def _effect(new: list[float], hits: list[bool]) -> str:
    order = np.argsort(-np.array(new), kind="stable").tolist()  # as the referee sorts: ties stay as they are
    first = list(range(len(new)))
    if len(set(new)) == 1:
        return TIES
    if order == first:
        return ORDER
    before, after = (ap.average_precision([hits[n] for n in places], sum(hits)) for places in (first, order))
    if after <= before / 2:
        return HALF
    if sorted(new) in (first, [n + 1 for n in first]):
        return PLACES
    if order == first[::-1]:
        return REVERSED
    if abs(after - before) < 1e-12:
        return SAME
    return ROSE if after > before else FELL


halved = Exercise(
    name="halve_ap",
    reference=effect_of(lambda scores, hits: [s - hit for s, hit in zip(scores, hits, strict=True)]),
    cases=[(SCORES, HITS)],
    mistakes=[
        (lambda *_: NUMBERS, "Return a list of numbers: a new score for each box."),
        (lambda *_: LENGTH, "No box may be added or left out: return as many scores as there are boxes."),
        (
            lambda *_: TIES,
            "All scores are equal now. The referee leaves ties as it found them, so the order and AP stay.",
        ),
        (
            lambda *_: ORDER,
            "The scores are others, their order is the same, and so is AP. Only the order of the list counts.",
        ),
        (
            lambda *_: PLACES,
            "These look like places in the list. Return scores, in the order in which the boxes are given: the box "
            "with the highest one comes first.",
        ),
        (lambda *_: ROSE, "AP rises: right boxes have moved up. It is the wrong ones that should."),
        (
            lambda *_: SAME,
            "The order is another, AP is not: only boxes of a kind have changed places, or those at the end.",
        ),
        (
            lambda *_: REVERSED,
            "This turns the list around. AP falls from 0.80 to 0.43, nearly to a half: of the wrong boxes some still "
            "stand below a right one.",
        ),
        (
            lambda *_: FELL,
            "AP falls, but not to a half. Every wrong box that stands below a right one still helps it.",
        ),
    ],
    right="All six wrong boxes stand above the four right ones: AP falls from 0.80 to 0.40. No box has moved, and "
    "halving the scores would have changed nothing.",
    hint="Which boxes should come first to make the list as bad as it can be? `hits` tells you which ones are right.",
    describe=lambda case: "this list",
)


def halve_ap(answer: Callable) -> None:
    """Print the verdict on `answer`: (scores, hits) -> new scores, with which AP is at most half of what it was."""
    halved(effect_of(answer) if callable(answer) else answer)
