"""Exercises of chapter 0: which box is kept, and what that costs."""

from collections.abc import Callable

from vfnet_edu.exercises.engine import Exercise

Numbers = list[float]


def _index(values: Numbers, choose: Callable = max) -> int:
    return values.index(choose(values))


# ------------------------------------------------------------------ which of the boxes of one object is kept
def _kept(scores: Numbers, ious: Numbers) -> int:
    return _index(scores)


def _last_of_equals(scores: Numbers, ious: Numbers) -> int:
    return len(scores) - 1 - _index(scores[::-1])


def _by_product(scores: Numbers, ious: Numbers) -> int:
    return _index([score * iou for score, iou in zip(scores, ious, strict=True)])


def _by_sum(scores: Numbers, ious: Numbers) -> int:
    return _index([score + iou for score, iou in zip(scores, ious, strict=True)])


def _first_good(scores: Numbers, ious: Numbers) -> int:
    return next((n for n, score in enumerate(scores) if score > 0.5), 0)


CASES = [
    ([0.14, 0.85, 0.84], [0.98, 0.82, 0.80]),
    ([0.55, 0.35, 0.81, 0.60], [0.93, 0.97, 0.60, 0.95]),
    ([0.30, 0.70, 0.70], [0.70, 0.66, 0.88]),
    ([0.90, 0.50], [0.30, 0.69]),
]

kept = Exercise(
    name="kept",
    reference=_kept,
    cases=CASES,
    mistakes=[
        (
            lambda scores, ious: _index(ious),
            "You choose the box that fits best. The detector cannot: an IoU needs the true box, and that is not in "
            "the picture. It has nothing but its scores.",
        ),
        (_by_product, "You multiply score and IoU. At work the detector knows no IoU: the score alone decides."),
        (_by_sum, "You add score and IoU. At work the detector knows no IoU: the score alone decides."),
        (lambda scores, ious: _index(scores, min), "That is the *lowest* score. Suppression begins with the highest."),
        (
            lambda scores, ious: max(scores),
            "That is the score of the kept box. Return which box it is: its place in the list, counted from 0.",
        ),
        (lambda scores, ious: _index(scores) + 1, "You count from 1. Python counts from 0."),
        (
            _last_of_equals,
            "Nearly. Of two boxes with equal scores the first one stays: the second finds its place taken.",
        ),
        (
            _first_good,
            "You take the first box with a decent score. Suppression looks at all of them and begins with the highest.",
        ),
        (
            lambda scores, ious: ious[_index(scores)],
            "That is the IoU of the kept box. Return which box it is: its place in the list, counted from 0.",
        ),
    ],
    right="The highest score wins, whatever the box looks like. That is why the score must know how well its box fits.",
    hint="Find the highest score, and return its place in the list: `scores.index(max(scores))`.",
    tolerance=0.0,  # a place is right or wrong
    describe=lambda case: f"scores {case[0]} and IoUs {case[1]}",
)


# ------------------------------------------------------------------ what the wrong order costs
def _lost(scores: Numbers, ious: Numbers) -> float:
    return max(ious) - ious[_index(scores)]


lost = Exercise(
    name="lost",
    reference=_lost,
    cases=[*CASES, ([0.9, 0.2], [0.95, 0.5])],
    mistakes=[
        (
            lambda scores, ious: -_lost(scores, ious),
            "The sign is turned around. A loss of fit is not negative: the best IoU minus the IoU of the kept box.",
        ),
        (
            lambda scores, ious: max(ious) - max(scores),
            "You subtract a score from an IoU. Compare like with like: two IoUs, that of the best box and that of the "
            "kept one.",
        ),
        (lambda scores, ious: max(ious), "That is the best IoU. Subtract what the kept box has of it."),
        (
            lambda scores, ious: ious[_index(scores)],
            "That is the IoU of the kept box. Subtract it from the best IoU that was on offer.",
        ),
        (
            lambda scores, ious: max(ious) - min(ious),
            "You compare the best box with the worst one. The detector keeps the one with the highest score.",
        ),
        (
            lambda scores, ious: max(scores) - scores[_index(ious)],
            "You compare two scores. What is lost is fit, so compare two IoUs.",
        ),
        (
            lambda scores, ious: max(ious) - sum(ious) / len(ious),
            "You compare with the average box. The detector keeps one box: the one with the highest score.",
        ),
        (
            lambda scores, ious: max(scores) - ious[_index(scores)],
            "You compare the score of the kept box with its own IoU. What is lost is fit, so compare two IoUs.",
        ),
        (
            lambda scores, ious: _lost(scores, ious) / max(ious),
            "That is a share of the best IoU. Asked for is the plain difference of the two IoUs.",
        ),
        (
            lambda scores, ious: 1 - ious[_index(scores)],
            "You compare with a perfect box. No order of the list could have given that: compare with the best box "
            "on offer.",
        ),
    ],
    right="Nothing but the order was at fault: the better box was there. With a perfect score the loss is always 0.",
    hint="The best IoU on offer, minus the IoU of the box with the highest score.",
    describe=lambda case: f"scores {case[0]} and IoUs {case[1]}",
)
