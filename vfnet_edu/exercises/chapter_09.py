"""Exercises of chapter 9: the varifocal loss, its minimum and its gradient."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vfnet_edu.exercises.engine import Exercise
from vfnet_edu.losses import focal_loss, quality_focal_loss, varifocal_loss

ALPHA, GAMMA = 0.75, 2.0  # the paper's


# ---- 1. Where is the loss of a positive least, and how much is left there? -------------------------------------------


def entropy(q: float) -> float:
    """H(q) = -q ln q - (1 - q) ln(1 - q)"""
    return -q * math.log(q) - (1 - q) * math.log(1 - q)


minimum = Exercise(
    name="minimum",
    reference=lambda q: (q, q * entropy(q)),
    cases=[(0.2,), (0.5,), (0.8,), (0.95,)],
    mistakes=[
        (
            lambda q: (1.0, 0.0),
            "That is the focal loss, whose target is 1. Here the target of a positive is its IoU q: at p = 1 the term "
            "-(1 - q) log(1 - p) is infinite.",
        ),
        (
            lambda q: (0.5, q * math.log(2)),
            "0.5 is where a coin is most uncertain, not where this loss is least. Set its derivative with respect to "
            "the logit, q (p - q), to zero.",
        ),
        (
            lambda q: (q, 0.0),
            "The place is right, but the loss is not 0 there. Put p = q into q BCE(p, q): both logarithms remain.",
        ),
        (
            lambda q: (q, entropy(q)),
            "That is the floor of the plain cross-entropy. A positive of the varifocal loss is also weighted by q.",
        ),
        (
            lambda q: (q, -q * entropy(q)),
            "The place is right; the value has lost its minus sign. Logarithms of numbers below 1 are negative.",
        ),
        (
            lambda q: (q * entropy(q), q),
            "Both numbers are right, in the wrong order: first the score p, then the loss there.",
        ),
        (
            lambda q: (q, q * entropy(q) / math.log(2)),
            "The place is right, and the loss is in bits. These losses use the natural logarithm: math.log.",
        ),
        (
            lambda q: (q, -q * q * math.log(q)),
            "You have kept the first half of BCE. Its second half, -(1 - q) log(1 - p), is not 0 at p = q.",
        ),
        (
            lambda q: (math.log(q / (1 - q)), q * entropy(q)),
            "The loss is right. The place is given as a logit: return the score p = sigmoid(z).",
        ),
        (
            lambda q: (1 - q, q * entropy(q)),
            "The loss is right, and the place is mirrored: the score rests at q, not at 1 - q.",
        ),
        (
            lambda q: q * entropy(q),
            "That is the loss, and it is right. Return two values: the score p, then the loss there.",
        ),
    ],
    right="The loss of a positive is least at p = q, and q H(q) is left there. Only q = 1 brings it to 0.",
    hint="Set q (p - q) = 0 for the place, then put that p into q BCE(p, q).",
)


# ---- 2. The gradient with respect to the logit -----------------------------------------------------------------------


def _gradient(z: Tensor, q: Tensor) -> Tensor:
    p = z.sigmoid()
    return torch.where(q > 0, q * (p - q), _background(p))


def _background(p: Tensor, alpha: float = ALPHA) -> Tensor:
    return alpha * p**GAMMA * (p - GAMMA * (1 - p) * torch.log1p(-p))


def _with_respect_to_p(z: Tensor, q: Tensor) -> Tensor:
    p = z.sigmoid()
    return _gradient(z, q) / (p * (1 - p))


def _detached(z: Tensor, q: Tensor) -> Tensor:
    p = z.sigmoid()
    return torch.where(q > 0, q * (p - q), ALPHA * p**GAMMA * p)


def _other_half(z: Tensor, q: Tensor) -> Tensor:
    p = z.sigmoid()
    return torch.where(q > 0, q * (p - q), -ALPHA * p**GAMMA * GAMMA * (1 - p) * torch.log1p(-p))


def _without_alpha(z: Tensor, q: Tensor) -> Tensor:
    p = z.sigmoid()
    return torch.where(q > 0, q * (p - q), _background(p, alpha=1.0))


def _weighted_by(weight) -> Callable:
    def answer(z: Tensor, q: Tensor) -> Tensor:
        p = z.sigmoid()
        return torch.where(q > 0, weight(p, q) * (p - q), _background(p))

    return answer


def _power_with_respect_to_p(z: Tensor, q: Tensor) -> Tensor:
    p = z.sigmoid()
    return torch.where(q > 0, q * (p - q), ALPHA * p ** (GAMMA - 1) * (p * p - GAMMA * torch.log1p(-p)))


def _minus_for_plus(z: Tensor, q: Tensor) -> Tensor:
    p = z.sigmoid()
    return torch.where(q > 0, q * (p - q), ALPHA * p**GAMMA * (p + GAMMA * (1 - p) * torch.log1p(-p)))


def _only_positive(z: Tensor, q: Tensor) -> Tensor:
    return q * (z.sigmoid() - q)


gradient = Exercise(
    name="gradient",
    reference=_gradient,
    cases=[
        (torch.tensor([-2.0, 0.0, 1.0, 3.0]), torch.tensor([0.8, 0.8, 0.3, 0.9])),
        (torch.tensor([-4.6, -1.0, 0.0, 2.0]), torch.tensor([0.0, 0.0, 0.0, 0.0])),
        (torch.tensor([-1.0, 0.5, 1.5]), torch.tensor([0.0, 0.6, 0.0])),
    ],
    mistakes=[
        (
            _with_respect_to_p,
            "That is the derivative with respect to p. The network makes the logit: multiply by dp/dz = p (1 - p).",
        ),
        (
            _detached,
            "For background you have treated p^gamma as a constant weight. It is not detached: apply the product rule.",
        ),
        (
            _other_half,
            "For background you have kept one half of the product rule, the derivative of p^gamma. But -log(1 - p) "
            "depends on z as well: its derivative is p.",
        ),
        (
            lambda z, q: _gradient(z.sigmoid(), q),
            "One sigmoid too many: p = sigmoid(z), and no sigmoid of that.",
        ),
        (
            lambda z, q: _gradient(z, q) * z.sigmoid() * (1 - z.sigmoid()),
            "You multiply by p (1 - p) once too often: q (p - q) is the derivative with respect to z already.",
        ),
        (_without_alpha, "Background has lost its weight alpha = 0.75."),
        (
            _weighted_by(lambda p, q: p),
            "A positive is weighted by its target q, not by its score p: by p it hardly learns while p is small.",
        ),
        (
            _weighted_by(lambda p, q: 1.0),
            "That is the plain cross-entropy of a positive: its weight q is missing.",
        ),
        (
            _power_with_respect_to_p,
            "For background you have differentiated p^gamma with respect to p, not z: its half of the product rule "
            "lacks the factor p (1 - p).",
        ),
        (
            _minus_for_plus,
            "For background one sign is wrong: log(1 - p) is negative, so -gamma (1 - p) log(1 - p) adds to p.",
        ),
        (
            lambda z, q: torch.where(q > 0, q * (z.sigmoid() - 1), _background(z.sigmoid())),
            "You ask positives for 1. Their target is q: the gradient has to vanish at p = q.",
        ),
        (
            lambda z, q: torch.where(q > 0, q * (q - z.sigmoid()), _background(z.sigmoid())),
            "Background is right; the sign of the positives is flipped. With p < q the gradient is negative.",
        ),
        (
            lambda z, q: -_gradient(z, q),
            "The sign is flipped. You give the push, which is minus the gradient: a positive with p < q has a "
            "negative gradient.",
        ),
        (
            _only_positive,
            "Where q = 0 the loss is alpha p^gamma (-log(1 - p)); the formula for positives gives 0 there.",
        ),
    ],
    right="A positive is pulled with q (p - q), in proportion to its error; background fades with the power 1 + gamma.",
    hint="Use torch.where(q > 0, ..., ...), and d(-log(1 - p))/dz = p, dp/dz = p (1 - p).",
)


# ---- 3. The loss itself ----------------------------------------------------------------------------------------------


def _bce(z: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(z, target, reduction="none")


def _loss(positive_weight, positive_target=lambda q: q) -> Callable:
    """The varifocal loss with something else for its positives."""

    def answer(z: Tensor, q: Tensor) -> Tensor:
        positive = positive_weight(z.sigmoid(), q) * _bce(z, positive_target(q))
        return torch.where(q > 0, positive, varifocal_loss(z, torch.zeros_like(q)))

    return answer


_logits = torch.tensor([[-4.6, -2.0, 0.0], [1.0, 2.5, -0.5], [0.3, -1.2, 4.0]])
_targets = torch.tensor([[0.0, 0.8, 0.0], [0.4, 0.0, 0.0], [0.0, 0.0, 0.9]])

loss = Exercise(
    name="loss",
    reference=varifocal_loss,
    cases=[(_logits, _targets), (-_logits, _targets), (_logits, torch.zeros_like(_targets))],
    mistakes=[
        (
            quality_focal_loss,
            "That is the quality focal loss: |p - q|^gamma weighs positives down, too. Here only background is focal.",
        ),
        (
            lambda z, q: ALPHA * quality_focal_loss(z, q),
            "That is alpha times the quality focal loss: |p - q|^gamma weighs positives down. Their weight is q.",
        ),
        (
            _loss(lambda p, q: (p - q).abs() ** GAMMA),
            "Your positives are weighted by |p - q|^gamma, as in the quality focal loss. Their weight is q.",
        ),
        (_loss(lambda p, q: ALPHA * q), "alpha belongs to background alone; you have given it to positives, too."),
        (
            _loss(lambda p, q: q, torch.ones_like),
            "You weigh positives by q, but still ask them for 1. Their target is q: every score is pulled to its IoU.",
        ),
        (
            lambda z, q: focal_loss(z, (q > 0).to(z)),
            "That is the focal loss with labels 0 and 1: the IoU in the target is not used at all.",
        ),
        (_loss(lambda p, q: 1.0), "Each positive must weigh q: a positive with a poor box has less to say."),
        (
            lambda z, q: torch.where(q > 0, q, ALPHA) * _bce(z, q),
            "Background has lost p^gamma, so thousands of easy scores count in full.",
        ),
        (
            lambda z, q: torch.where(q > 0, q, (1 - ALPHA) * z.sigmoid() ** GAMMA) * _bce(z, q),
            "Background is weighted by alpha, not by 1 - alpha: in this paper alpha belongs to the negatives.",
        ),
        (
            lambda z, q: torch.where(q > 0, q, z.sigmoid() ** GAMMA) * _bce(z, q),
            "Background has lost its weight alpha = 0.75.",
        ),
        (
            _loss(lambda p, q: q * (1 - p) ** GAMMA),
            "Your positives are weighted by (1 - p)^gamma as well, as in the focal loss. Their weight is q alone.",
        ),
        (
            lambda z, q: q * _bce(z, q),
            "You treat every score as a positive, so background, with q = 0, costs nothing and is never pushed down.",
        ),
        (
            lambda z, q: torch.where(q > 0, q, ALPHA * (1 - z.sigmoid()) ** GAMMA) * _bce(z, q),
            "Background is weighted by (1 - p)^gamma: that fades what is wrong. p^gamma fades what is right already.",
        ),
        (
            lambda z, q: torch.where(q > 0, q, ALPHA * z**GAMMA) * _bce(z, q),
            "You have put the logit into p^gamma. The score is p = logits.sigmoid().",
        ),
        (
            lambda z, q: varifocal_loss(z.sigmoid(), q),
            "One sigmoid too many: BCE *with logits* takes the logits, and applies the sigmoid itself.",
        ),
        (_bce, "That is the plain cross-entropy: no weight q for positives, no alpha p^gamma for background."),
        (
            lambda z, q: torch.where(q > 0, q, ALPHA * z.sigmoid()) * _bce(z, q),
            "Background is weighted by p. The power gamma = 2 is missing.",
        ),
        (
            lambda z, q: varifocal_loss(z, q).sum() / (q > 0).sum().clamp(min=1),
            "The head divides by the number of positives, but later. Return the losses element by element.",
        ),
        (
            lambda z, q: varifocal_loss(z, q).sum(),
            "Element by element it is right. Return it before any sum or mean: the head divides by the positives.",
        ),
        (
            lambda z, q: varifocal_loss(z, q).mean(),
            "Element by element it is right, but do not take the mean: it would divide by thousands of background "
            "scores. The head divides by the number of positives.",
        ),
    ],
    right="This is the varifocal loss, as in the paper's equation 2.",
    hint="Positives (q > 0): q BCE(p, q). Background: alpha p^gamma (-log(1 - p)), alpha = 0.75, gamma = 2.",
)
