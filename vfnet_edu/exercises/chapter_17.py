"""Exercises of chapter 17."""

import numpy as np
import torch

from vfnet_edu.exercises.engine import Exercise


# ---- an interval from the draws -------------------------------------------------------------------------------------
def _interval(aps, level=0.95):
    return np.quantile(aps, [(1 - level) / 2, (1 + level) / 2]).tolist()


def _around(aps, half):
    return [float(np.mean(aps)) - half, float(np.mean(aps)) + half]


def _skewed(seed, count=60):
    """Draws that are no bell: a long tail above."""
    rng = np.random.default_rng(seed)
    return (50 + 0.4 * rng.exponential(2.0, count) + rng.normal(0, 0.2, count)).round(3).tolist()


interval = Exercise(
    name="interval",
    reference=_interval,
    cases=[([float(n) for n in range(201)],), (_skewed(1),), (_skewed(2, 90),)],
    mistakes=[
        (
            lambda aps: _around(aps, 1.96 * float(np.std(aps))),
            "Mean and 1.96 standard deviations would do for a bell. Take the quantiles: they need no bell.",
        ),
        (
            lambda aps: _around(aps, 1.96 * float(np.std(aps, ddof=1))),
            "1.96 standard deviations (with n - 1) belong to a bell curve. Quantiles do not ask for its shape.",
        ),
        (
            lambda aps: _around(aps, float(np.std(aps))),
            "One standard deviation to each side is about two thirds of a bell. You want 95 %, by quantiles.",
        ),
        (
            lambda aps: _around(aps, 2 * float(np.std(aps))),
            "Two standard deviations are a rule of thumb for a bell. Take the quantiles of the draws themselves.",
        ),
        (
            lambda aps: _around(aps, 1.96 * float(np.std(aps)) / len(aps) ** 0.5),
            "Divided by the root of the number of draws, this says how well you know the mean of the draws. More draws "
            "would shrink it to nothing, and yet you have no more images.",
        ),
        (
            lambda aps: _around(aps, 1.96 * float(np.std(aps, ddof=1)) / len(aps) ** 0.5),
            "This is the standard error (with n - 1) of the mean of the draws: it shrinks if you only compute longer. "
            "The spread of the draws is itself the answer.",
        ),
        (
            lambda aps: np.quantile(aps, [0.05, 0.95]).tolist(),
            "5 % are cut off at each end, which leaves 90 %. For 95 % cut off 2.5 % at each end.",
        ),
        (
            lambda aps: np.quantile(aps, [0.0, 0.95]).tolist(),
            "All of the 5 % are cut off above. Share them: 2.5 % below and 2.5 % above.",
        ),
        (
            lambda aps: np.quantile(aps, [0.05, 1.0]).tolist(),
            "All of the 5 % are cut off below. Share them: 2.5 % below and 2.5 % above.",
        ),
        (
            lambda aps: [float(min(aps)), float(max(aps))],
            "From the smallest to the largest draw: this grows the longer you draw. Cut off 2.5 % at each end.",
        ),
        (
            lambda aps: np.quantile(aps, [0.25, 0.75]).tolist(),
            "This is the middle half. You want the middle 95 %: the quantiles 0.025 and 0.975.",
        ),
        (
            lambda aps: np.quantile(aps, [0.005, 0.995]).tolist(),
            "This is the middle 99 %. For 95 % the quantiles are 0.025 and 0.975.",
        ),
        (
            lambda aps: _interval(aps)[::-1],
            "The two ends are right but the larger comes first. Return [low, high].",
        ),
        (
            lambda aps: (_interval(aps)[1] - _interval(aps)[0]) / 2,
            "This is half the width. Return both ends, [low, high]: the interval need not lie evenly around the AP.",
        ),
        (
            lambda aps: _interval(aps)[1] - _interval(aps)[0],
            "This is the width of the interval. Return its two ends, [low, high].",
        ),
        (
            lambda aps: [aps[int(0.025 * len(aps))], aps[int(0.975 * len(aps))]],
            "You take two draws by their place, but the draws are not sorted. Sort first, or use numpy.quantile.",
        ),
    ],
    right="The middle 95 % of the draws. It says how far the choice of the images moves AP, and nothing about seeds.",
    hint="Cut off 2.5 % of the draws at each end: numpy.quantile(aps, [0.025, 0.975]).",
    describe=lambda case: f"{len(case[0])} draws between {min(case[0]):.2f} and {max(case[0]):.2f}",
)


# ---- the running mean of SWA ----------------------------------------------------------------------------------------
def _join(average, weights, joined):
    return average + (weights - average) / (joined + 1)


def _tensors(*values):
    return [torch.tensor(value) for value in values]


join = Exercise(
    name="join",
    reference=_join,
    cases=[
        (*_tensors([1.0, -2.0, 0.5], [3.0, 4.0, -1.5]), 1),
        (*_tensors([[0.2, 0.8], [-0.4, 1.6]], [[1.4, -0.4], [0.8, 0.1]]), 3),
        (*_tensors([2.0, 5.0], [-1.0, 0.5]), 11),
        (*_tensors([9.0, 9.0], [-1.0, 0.5]), 0),
    ],
    mistakes=[
        (
            lambda average, weights, joined: (average + weights) / 2,
            "Half and half: the newest weights would count as much as all before together. Each of them has one voice.",
        ),
        (
            lambda average, weights, joined: average + (weights - average) / max(joined, 1),
            "You divide by how many have joined before. With the new one they are one more: joined + 1.",
        ),
        (
            lambda average, weights, joined: average + (weights - average) / (joined + 2),
            "One too many: the old mean stands for `joined` weights, so with the new one there are joined + 1.",
        ),
        (
            lambda average, weights, joined: 0.9 * average + 0.1 * weights,
            "This is an exponential average, as EMA takes it: old weights fade. SWA's mean is equal for all.",
        ),
        (
            lambda average, weights, joined: 0.99 * average + 0.01 * weights,
            "With 0.99 the old fades slowly, but it fades, and the first weights keep most of the say. SWA's is equal.",
        ),
        (
            lambda average, weights, joined: average * joined + weights,
            "This is the sum of all. Divide it by how many there are now: joined + 1.",
        ),
        (
            lambda average, weights, joined: (average + weights) / (joined + 1),
            "The old mean stands for `joined` weights, so it counts that often: average * joined + weights.",
        ),
        (
            lambda average, weights, joined: (average * joined + weights) / max(joined, 1),
            "The sum is right. It is divided by how many there were; with the new one there is one more.",
        ),
        (
            lambda average, weights, joined: weights + (average - weights) / (joined + 1),
            "The two are exchanged: the new weights get the large share. The old mean stands for `joined` of them.",
        ),
        (
            lambda average, weights, joined: average - (weights - average) / (joined + 1),
            "You move away from the new weights. The step goes towards them: plus.",
        ),
        (
            lambda average, weights, joined: (weights - average) / (joined + 1),
            "This is the step. Add it to the old mean.",
        ),
        (
            lambda average, weights, joined: average + weights / (joined + 1),
            "The old mean keeps its whole size, so the result grows. What is added is a part of the difference.",
        ),
        (lambda average, weights, joined: weights, "These are the newest weights alone: no mean at all."),
        (lambda average, weights, joined: average, "The new weights are not used: the mean stays as it was."),
    ],
    right="A step towards the new weights, a smaller one each time. Only one copy of the weights is kept, not all.",
    hint="The old mean stands for `joined` weights: (joined * average + weights) / (joined + 1).",
    describe=lambda case: f"average {case[0].tolist()}, weights {case[1].tolist()}, joined {case[2]}",
)


# ---- parameters of the head -----------------------------------------------------------------------------------------
def _head(channels, depth, norm=2, towers=2, box=1, stars=2, classes=80, gains=10, kernel=9, bias=0, out_bias=1):
    """(3 x 3 convolutions with GroupNorm) + stars + outputs + gains"""
    hidden = (towers * depth + box) * (kernel * channels**2 + norm * channels + bias * channels)
    outputs = (2 * 4 + classes) * (kernel * channels + out_bias)
    return hidden + stars * kernel * channels**2 + outputs + gains


head_parameters = Exercise(
    name="head_parameters",
    reference=_head,
    cases=[(256, 3), (384, 4), (64, 1), (512, 2)],
    mistakes=[
        (
            lambda c, depth: _head(c, depth, norm=0),
            "GroupNorm has parameters, too: a scale and a shift for each channel, after each hidden convolution.",
        ),
        (
            lambda c, depth: _head(c, depth, norm=1),
            "One number for each channel after a hidden convolution? It has no bias, and its norm has two.",
        ),
        (
            lambda c, depth: _head(c, depth, bias=1),
            "A convolution with a GroupNorm behind it has no bias: the norm's shift does that.",
        ),
        (
            lambda c, depth: _head(c, depth, towers=1),
            "There are two towers, one for the classes and one for the boxes, and they share nothing.",
        ),
        (
            lambda c, depth: _head(c, depth, box=0),
            "One hidden convolution is missing: the one of the first box, after the box tower.",
        ),
        (
            lambda c, depth: _head(c, depth, stars=0),
            "The two stars are missing. Each is a 3 x 3 convolution that reads at other places, so 9 C C weights.",
        ),
        (
            lambda c, depth: _head(c, depth, stars=1),
            "There are two stars, one for the scores and one for the refinement: the same places, other weights.",
        ),
        (
            lambda c, depth: _head(c, depth) + 2 * c,
            "A star has neither bias nor norm: 9 C C weights, and nothing else.",
        ),
        (
            lambda c, depth: _head(c, depth) + 4 * c,
            "No norm stands behind a star: 9 C C weights, and nothing else.",
        ),
        (
            lambda c, depth: _head(c, depth, classes=81),
            "81 classes? There is no background class; a background cell just has 80 low scores (chapter 7).",
        ),
        (
            lambda c, depth: _head(c, depth) - 4 * (9 * c + 1),
            "There are two box outputs: the four distances and the four answers of the refinement.",
        ),
        (
            lambda c, depth: _head(c, depth, out_bias=0),
            "The three outputs have no norm behind them, so each of their channels has a bias.",
        ),
        (
            lambda c, depth: _head(c, depth, gains=0),
            "The ten gains are missing: one for each of five levels, for the first box and for the refinement.",
        ),
        (
            lambda c, depth: _head(c, depth, gains=5),
            "Five gains more: the refinement has its own, one for each level.",
        ),
        (
            lambda c, depth: _head(c, depth, kernel=1),
            "You count kernels of 1 x 1. They are 3 x 3: nine weights for every pair of channels.",
        ),
        (
            lambda c, depth: 5 * _head(c, depth),
            "Five times too many: the five levels share one head. Only the gains belong to a level.",
        ),
    ],
    right="Almost all of it grows with C times C: from 256 to 384 channels a convolution weighs 2.25 times as much.",
    hint="Count: 2 * depth + 1 hidden convolutions (9 C C) with a norm (2 C), 2 stars (9 C C), outputs of 4, 4 and 80 "
    "channels (9 C + 1 each), 10 gains.",
    tolerance=1e-9,
    describe=lambda case: f"{case[0]} channels, {case[1]} convolutions in each tower",
)
