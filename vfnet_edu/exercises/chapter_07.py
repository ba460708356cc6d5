"""Exercises of chapter 7: the bias for a prior, and the score at which background and positives are in balance."""

import math

from vfnet_edu.exercises.engine import Exercise


# ---- 1. Which bias makes every score start at the prior? -------------------------------------------------------------
def _bias(prior: float) -> float:
    return -math.log((1 - prior) / prior)


bias = Exercise(
    name="bias",
    reference=_bias,
    cases=[(0.01,), (0.1,), (0.002,), (0.6,)],
    mistakes=[
        (
            lambda prior: -_bias(prior),
            "The size is right and the sign is flipped: with +4.6 every score would start at 0.99. Low scores need a "
            "negative bias.",
        ),
        (
            lambda prior: math.log(prior),
            "Put it into the sigmoid: sigmoid(log p) is p / (1 + p), close to p but not p. Solve 1 / (1 + exp(-b)) = p "
            "without leaving out the 1.",
        ),
        (
            lambda prior: -math.log(prior),
            "Two things: the sign is flipped, and 1 - p is missing. Solve exp(-b) = (1 - p) / p for b.",
        ),
        (
            lambda prior: prior,
            "The bias is a logit, not a score: the sigmoid still comes after it, and sigmoid(0.01) is 0.5025.",
        ),
        (
            lambda prior: 1 / (1 + math.exp(-prior)),
            "That is the sigmoid of the prior. You need the way back: the number whose sigmoid is the prior.",
        ),
        (
            lambda prior: (1 - prior) / prior,
            "That is exp(-b). Take its logarithm, then mind the sign.",
        ),
        (
            lambda prior: -(1 - prior) / prior,
            "That is exp(-b) with a minus sign. The logarithm is missing.",
        ),
        (
            lambda prior: prior / (1 - prior),
            "These are the odds, exp(b). The bias is their logarithm.",
        ),
        (
            lambda prior: _bias(prior) / math.log(10),
            "Right but for the logarithm: the sigmoid is made with e, so it wants math.log and not math.log10.",
        ),
        (
            lambda prior: _bias(prior) / math.log(2),
            "Right but for the logarithm: the sigmoid is made with e, so it wants math.log and not math.log2.",
        ),
        (
            lambda prior: math.log(1 - prior),
            "That is log(1 - p) alone. Both p and 1 - p are needed: solve exp(-b) = (1 - p) / p.",
        ),
        (
            lambda prior: -math.log(1 - prior),
            "That is what a background score *costs* at p, its loss. The bias is the logit that makes p.",
        ),
        (
            lambda prior: -math.log(1 - prior) / math.log(prior),
            "The logarithm of a quotient is not the quotient of two logarithms: it is their difference.",
        ),
        (
            lambda prior: prior * (1 - prior),
            "That is the slope of the sigmoid at p. You need the place on its axis where it is p.",
        ),
    ],
    right="sigmoid of it is the prior again. For 0.01 it is -4.6, and the detector starts by saying: here is nothing.",
    hint="Solve 1 / (1 + exp(-b)) = p for b.",
)


# ---- 2. Where are the two pushes in balance? -------------------------------------------------------------------------
def _balance(positives: float, background: float, alpha: float) -> float:
    up, down = alpha * positives, (1 - alpha) * background
    return up / (up + down)


balance = Exercise(
    name="balance",
    reference=_balance,
    cases=[(25, 975, 0.5), (25, 975, 0.75), (10, 30, 0.25), (3, 1, 0.6)],
    mistakes=[
        (
            lambda n, m, a: n / (n + m),
            "Right for alpha = 0.5. In general a positive pushes with alpha (1 - p), background with (1 - alpha) p.",
        ),
        (
            lambda n, m, a: _balance(n, m, 1 - a),
            "Your alpha weighs the background. That is what VFL means by alpha; here it weighs the positives.",
        ),
        (
            lambda n, m, a: a * n / ((1 - a) * m),
            "That is p / (1 - p), the odds. One step more: p = odds / (1 + odds).",
        ),
        (
            lambda n, m, a: n / m,
            "Two steps are missing: this is p / (1 - p) for alpha = 0.5. Put alpha in, then solve for p.",
        ),
        (
            lambda n, m, a: 1 - _balance(n, m, a),
            "That is 1 - p. Background pushes with p, and it is many: the balance is at a low score.",
        ),
        (
            lambda n, m, a: math.log(_balance(n, m, a) / (1 - _balance(n, m, a))),
            "That is the logit, the bias that gives the right score. Return the score itself.",
        ),
        (
            lambda n, m, a: math.log(_balance(n, m, a)),
            "That is the logarithm of the right score. Return the score itself.",
        ),
        (
            lambda n, m, a: a * n / (a * n + m),
            "Alpha weighs the positives, as it should. But background then weighs 1 - alpha, not 1.",
        ),
        (
            lambda n, m, a: n / (n + (1 - a) * m),
            "Background weighs 1 - alpha, as it should. But a positive then weighs alpha, not 1.",
        ),
        (
            lambda n, m, a: a * n / (n + m),
            "You weigh the frequency. Alpha changes the two pushes: put it into the equation before you solve for p.",
        ),
        (
            lambda n, m, a: n / (n + a * m),
            "Here alpha weighs the background, and the positives weigh 1. It is the other way round: alpha for a "
            "positive, 1 - alpha for background.",
        ),
        (
            lambda n, m, a: 0.5,
            "At 0.5 one positive and one background score push equally hard. But there are more of the one than of the "
            "other: count them in.",
        ),
        (
            lambda n, m, a: 0.0,
            "At 0 background is content, but every positive still pushes up with alpha. The balance lies higher.",
        ),
        (
            lambda n, m, a: a,
            "That is the weight alone. How many there are of each decides, too.",
        ),
        (
            lambda n, m, a: m / (n + m),
            "That is the frequency of background, and alpha is missing. A score says how likely an object is.",
        ),
    ],
    right="With alpha = 0.5 it is how often there is something to find: all that a score can say before it looks.",
    hint="Write down both sums, positives * alpha * (1 - p) and background * (1 - alpha) * p. Set them equal.",
    tolerance=1e-6,
    describe=lambda case: f"{case[0]} positives, {case[1]} background scores, alpha = {case[2]}",
)
