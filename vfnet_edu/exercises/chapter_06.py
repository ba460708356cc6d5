"""Exercises of chapter 6: the three decisions of ATSS for one object."""

import torch
from torch import Tensor

from vfnet_edu.boxes import xyxy_to_ltrb
from vfnet_edu.exercises.engine import Exercise


# ------------------------------------------------------------------ how many candidates
def _candidates(level_sizes: list[int], k: int) -> int:
    return sum(min(k, size) for size in level_sizes)


candidates = Exercise(
    name="candidates",
    reference=_candidates,
    cases=[([16_800, 4_200, 1_050, 273, 77], 9), ([256, 64, 16], 20), ([768, 192, 48, 12, 4], 9), ([4, 1], 9)],
    mistakes=[
        (
            lambda level_sizes, k: k * len(level_sizes),
            "A level with fewer than k points cannot give k candidates: it gives all it has.",
        ),
        (lambda level_sizes, k: k, "k counts the candidates of each level, not of all levels together."),
        (
            lambda level_sizes, k: min(k, sum(level_sizes)),
            "k counts the candidates of each level, and the limit is the size of that level, not of the whole pyramid.",
        ),
        (
            lambda level_sizes, k: min(k * len(level_sizes), sum(level_sizes)),
            "The limit holds on each level by itself: take the smaller of k and the size, level by level, then add up.",
        ),
        (lambda level_sizes, k: sum(level_sizes), "That is every point of the pyramid; k of each level are enough."),
        (
            lambda level_sizes, k: sum(max(k, size) for size in level_sizes),
            "You take the larger of k and the level's size; the smaller one is what the level can give.",
        ),
        (
            lambda level_sizes, k: sum(k if size >= k else 0 for size in level_sizes),
            "You leave out the levels with fewer than k points. They give what they have.",
        ),
        (
            lambda level_sizes, k: [min(k, size) for size in level_sizes],
            "These are the candidates level by level: add them up.",
        ),
        (
            lambda level_sizes, k: min(k, level_sizes[0]),
            "That is the first level alone. Is your `return` inside the loop?",
        ),
        (
            lambda level_sizes, k: sum(size >= k for size in level_sizes),
            "You count the levels that have k points. Count the candidates that each level gives.",
        ),
        (
            lambda level_sizes, k: len(level_sizes) * min(k, *level_sizes),
            "The smallest level limits all of yours. Each level has a limit of its own.",
        ),
    ],
    right="Small levels give all they have, the others k: the object looks at every level, whatever its own size.",
    hint="On each level the candidates are the k nearest points, or all points if there are fewer.",
)


# ------------------------------------------------------------------ the threshold
def _threshold(overlaps: Tensor) -> Tensor:
    return overlaps.mean() + overlaps.std()


threshold = Exercise(
    name="threshold",
    reference=_threshold,
    cases=[
        (torch.tensor([[0.62, 0.78, 1.00], [0.25, 0.25, 0.25], [0.06, 0.06, 0.06]]),),
        (torch.tensor([[0.05, 0.09, 0.12, 0.07], [0.02, 0.02, 0.03, 0.02]]),),
        (torch.tensor([[0.33, 0.31], [0.34, 0.20], [0.11, 0.11], [0.03, 0.02]]),),
    ],
    mistakes=[
        (
            lambda o: o.mean() + o.std(correction=0),
            "Your standard deviation divides by n. The one in ATSS divides by n - 1, as torch's std does by default.",
        ),
        (lambda o: o.mean(), "That is the mean alone, and too many candidates pass it; add the standard deviation."),
        (lambda o: o.std(), "That is the standard deviation alone; add the mean."),
        (lambda o: o.median(), "That is the median. The threshold is the mean plus the standard deviation."),
        (lambda o: o.median() + o.std(), "You start from the median; ATSS starts from the mean."),
        (lambda o: o.mean() - o.std(), "The standard deviation is added: the bar lies above the mean, not below."),
        (
            lambda o: o.mean() + o.var(),
            "You add the variance; its square root, the standard deviation, is what counts.",
        ),
        (
            lambda o: o.mean(1) + o.std(1),
            "You have one threshold per level. An object has a single one, from the candidates of all levels together.",
        ),
        (
            lambda o: o.mean(0) + o.std(0),
            "You average over the levels only (dim 0). Average over all candidates: no dim at all.",
        ),
        (
            lambda o: (o.mean(1) + o.std(1)).max(),
            "You compute a threshold on each level and keep the best level's. Pool the candidates of all levels first.",
        ),
        (
            lambda o: o.mean() + o.std(1).mean(),
            "You average the deviations within the levels. The spread between the levels is what ATSS wants to see: "
            "pool all candidates first.",
        ),
        (
            lambda o: o.amax(1).mean(),
            "You average the best IoU of each level. All candidates set the bar, the bad ones too.",
        ),
        (lambda o: o.max(), "That is the best IoU: only one candidate would pass. The bar is mean plus deviation."),
        (lambda o: torch.tensor(0.5), "That is the old rule. Here every object has its own threshold."),
        (
            lambda o: o.mean(1).mean() + o.mean(1).std(),
            "That is the deviation of the levels' means. Pool all candidates: each IoU counts by itself.",
        ),
        (lambda o: o.mean() + 2 * o.std(), "One standard deviation is added, not two."),
        (lambda o: (o.mean(), o.std()), "Both parts are right: add them up."),
        (
            lambda o: o >= o.mean() + o.std(),
            "You say who passes. The question is the threshold itself, one number.",
        ),
        (
            lambda o: o[0].mean() + o[0].std(),
            "You use one level only. The candidates of all levels belong to the pool.",
        ),
    ],
    right="Mean plus unbiased standard deviation, over the candidates of all levels together.",
    hint="Pool the IoUs of all levels; the threshold is their mean plus their standard deviation (with n - 1).",
)


# ------------------------------------------------------------------ who learns the object
def _decide(overlaps: Tensor, points: Tensor, box: Tensor) -> Tensor:
    return _passes(overlaps) & _inside(points, box)


def _inside(points: Tensor, box: Tensor) -> Tensor:
    return xyxy_to_ltrb(points, box).amin(-1) > 0.01


def _passes(overlaps: Tensor) -> Tensor:
    return overlaps >= overlaps.mean() + overlaps.std()


_BOX = torch.tensor([10.0, 20.0, 50.0, 40.0])
positives = Exercise(
    name="positives",
    reference=_decide,
    cases=[
        (  # one level stands out; a centre on the border, one beyond it
            torch.tensor([0.70, 0.60, 0.65, 0.62, 0.10, 0.10, 0.10, 0.12, 0.10, 0.10, 0.10, 0.10]),
            torch.tensor([[24.0, 32], [24, 40], [32, 24], [32, 48], [16, 32], [32, 32], [16, 16], [32, 16],
                          [32, 32], [0, 32], [64, 32], [0, 0]]),
            _BOX,
        ),
        (torch.full((4,), 0.25), torch.tensor([[16.0, 24], [24, 24], [8, 24], [24, 32]]), _BOX),  # all alike: no spread
        (
            torch.tensor([0.9, 0.1, 0.1, 0.3, 0.1, 0.1]),
            torch.tensor([[40.0, 30], [30, 30], [40, 38], [20, 30], [48, 24], [60, 30]]),
            _BOX,
        ),
        (  # a candidate between the two deviations, with n and with n - 1
            torch.tensor([0.4, 0.28, 0.0, 0.0, 0.0, 0.0]),
            torch.tensor([[16.0, 24], [16, 32], [24, 24], [24, 32], [32, 24], [32, 32]]),
            _BOX,
        ),
        (  # the bar of all candidates, which two reach; of those inside alone, which none does
            torch.tensor([0.5, 0.5, 0.4, 0.0, 0.0, 0.0]),
            torch.tensor([[16.0, 24], [16, 32], [24, 24], [0, 24], [56, 24], [16, 48]]),
            _BOX,
        ),
        (  # five reach the bar; one of them is inside, and each of the others lies beyond another side
            torch.tensor([0.8, 0.8, 0.8, 0.8, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            torch.tensor([[24.0, 32], [64, 32], [0, 32], [32, 8], [32, 56], *[[32, 32]] * 10]),
            _BOX,
        ),
        (torch.tensor([0.5, 0.5, 0.5, 0.5, 0.0]), torch.tensor([[24.0, 32]] * 5), _BOX),  # the bar is above them all
    ],
    mistakes=[
        (
            lambda o, p, b: (o > o.mean() + o.std()) & _inside(p, b),
            "An IoU that equals the threshold passes: >=, not >. Where all candidates are alike the deviation is 0, "
            "and with > the object would lose every one of them.",
        ),
        (
            lambda o, p, b: _passes(o),
            "Points outside the box pass. Either the second test is missing, or it asks for *any* positive distance, "
            "which every point has: inside means that the smallest of the four is positive.",
        ),
        (lambda o, p, b: _inside(p, b), "Being inside is not enough: the IoU must reach mean + std as well."),
        (lambda o, p, b: _passes(o) | _inside(p, b), "Both tests must hold: & instead of |."),
        (
            lambda o, p, b: _passes(o) & (xyxy_to_ltrb(p, b).amin(-1) >= 0),
            "A point on the border of the box counts as outside: more than 0.01 pixels from every side.",
        ),
        (
            lambda o, p, b: _passes(o) & (xyxy_to_ltrb(p, b)[:, 0::2].amin(-1) > 0.01),
            "You look at the left and the right side only; the point must be inside top and bottom, too.",
        ),
        (
            lambda o, p, b: (o >= 0.5) & _inside(p, b),
            "That is the old threshold of 0.5; this object's own is the mean + std of its candidates' IoUs.",
        ),
        (
            lambda o, p, b: (o >= o.mean()) & _inside(p, b),
            "Your bar is the mean; add the standard deviation.",
        ),
        (
            lambda o, p, b: (o >= o.mean() + o.std(correction=0)) & _inside(p, b),
            "Your standard deviation divides by n; ATSS divides by n - 1, which lifts the bar a little.",
        ),
        (
            lambda o, p, b: (o >= o[_inside(p, b)].mean() + o[_inside(p, b)].std()) & _inside(p, b),
            "You take mean and std of the candidates inside only. The bar is set by all candidates; who lies inside is "
            "asked afterwards.",
        ),
        (
            lambda o, p, b: _passes(o) & _inside(p.flip(-1), b),
            "You have x and y of the points exchanged: a point is (x, y), a box x1, y1, x2, y2.",
        ),
        (
            lambda o, p, b: torch.nonzero(_decide(o, p, b))[:, 0],
            "These are the right points, by number. Return a boolean for each candidate instead.",
        ),
        (lambda o, p, b: ~_decide(o, p, b), "That is everybody who does *not* learn the object."),
        (
            lambda o, p, b: _passes(o) & (xyxy_to_ltrb(p, b)[:, 1::2].amin(-1) > 0.01),
            "You look at top and bottom only; the point must lie between the left and the right side, too.",
        ),
        (
            lambda o, p, b: _passes(o) & (xyxy_to_ltrb(p, b)[:, :2].amin(-1) > 0.01),
            "You look at the left and the upper side only. A point may lie beyond the right or the lower one.",
        ),
        (
            lambda o, p, b: _passes(o) & _inside(p, torch.cat([b[:2], b[:2] + b[2:]])),
            "You read the box as a corner, a width and a height. It is x1, y1, x2, y2: two corners.",
        ),
        (
            lambda o, p, b: (o >= o.mean() - o.std()) & _inside(p, b),
            "The standard deviation is added: the bar lies above the mean.",
        ),
        (
            lambda o, p, b: (o >= o.std()) & _inside(p, b),
            "Your bar is the standard deviation alone; add the mean.",
        ),
        (
            lambda o, p, b: _passes(o) & (xyxy_to_ltrb(p, b).abs().amin(-1) > 0.01),
            "Without a sign the distances cannot tell inside from outside: leave out `abs`.",
        ),
        (
            lambda o, p, b: p[_decide(o, p, b)],
            "These are the right points. Return a boolean for each candidate instead.",
        ),
    ],
    right="Good enough by the object's own standard, and inside it: those points learn the object, all others do not.",
    hint="A candidate is positive if its IoU is at least mean + std (n - 1) and its point lies inside the box.",
)  # fmt: skip
