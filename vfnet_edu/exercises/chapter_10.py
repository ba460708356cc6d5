"""Exercises of chapter 10: a loss that rises while the detector improves, and a gradient that must be cut."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vfnet_edu.boxes import iou
from vfnet_edu.exercises.engine import Exercise
from vfnet_edu.losses import MIN_IOU, giou_loss, varifocal_loss


# ---- 1. The part of a loss that can be learned away ------------------------------------------------------------------
def _bce(p: Tensor, q: Tensor) -> Tensor:
    return -q * p.log() - (1 - q) * (1 - p).log()


def _split(p: Tensor, q: Tensor):
    floor = q * _bce(q, q)
    return floor.mean(), (q * _bce(p, q) - floor).mean()


def _total(p: Tensor, q: Tensor) -> Tensor:
    return (q * _bce(p, q)).mean()


split = Exercise(
    name="split",
    reference=_split,
    cases=[
        (torch.tensor([0.01, 0.01, 0.01]), torch.tensor([0.3, 0.5, 0.6])),
        (torch.tensor([0.7, 0.5, 0.9, 0.2]), torch.tensor([0.8, 0.9, 0.95, 0.4])),
        (torch.tensor([0.6, 0.6]), torch.tensor([0.9, 0.2])),
    ],
    mistakes=[
        (
            lambda p, q: (0.0, _total(p, q)),
            "You say that the loss could fall to 0. Put p = q into q BCE(p, q): what is left there is the floor.",
        ),
        (
            lambda p, q: (_bce(q, q).mean(), (_bce(p, q) - _bce(q, q)).mean()),
            "That is the plain cross-entropy. A positive of the varifocal loss weighs q, in the floor as well.",
        ),
        (
            lambda p, q: (_split(p, q)[0], _total(p, q)),
            "The floor is right. The second number is the whole loss: take the floor away from it.",
        ),
        (
            lambda p, q: _split(p, q)[::-1],
            "Both numbers are right, in the wrong order: first the floor, then the excess.",
        ),
        (
            lambda p, q: tuple(part * len(q) for part in _split(p, q)),
            "Those are sums. Divide by the number of positives, as the head does.",
        ),
        (
            lambda p, q: (_bce(p, p).mul(q).mean(), (q * (_bce(p, q) - _bce(p, p))).mean()),
            "You have put p into the entropy. The floor does not know the score: it is q H(q).",
        ),
        (
            lambda p, q: (_split(p, q)[0], (p - q).abs().mean()),
            "The floor is right. The excess is not |p - q|: it is what the loss costs above its floor.",
        ),
        (
            lambda p, q: tuple(part / math.log(2) for part in _split(p, q)),
            "Right, but in bits. These losses use the natural logarithm: .log(), not .log2().",
        ),
        (
            lambda p, q: (q.mean() * _bce(q.mean(), q.mean()), _total(p, q) - q.mean() * _bce(q.mean(), q.mean())),
            "That is the floor of the mean IoU. Take the floor of every positive first, then the mean.",
        ),
        (
            lambda p, q: tuple(part * len(q) / q.sum() for part in _split(p, q)),
            "You divide by the sum of the weights. The head divides by the number of positives.",
        ),
        (
            lambda p, q: (q * _bce(q, q), q * (_bce(p, q) - _bce(q, q))),
            "Right, positive by positive. Two numbers are wanted: take the mean of each.",
        ),
        (
            lambda p, q: _split(p.sigmoid(), q),
            "You put the sigmoid on the scores once more. p is a score already, between 0 and 1, and no logit.",
        ),
        (
            lambda p, q: (_total(q.sigmoid(), q), _total(p.sigmoid(), q) - _total(q.sigmoid(), q)),
            "A function `..._with_logits` takes logits, and p and q are none: it would put a sigmoid on them.",
        ),
        (
            lambda p, q: (-(q * q * q.log()).mean(), _total(p, q) + (q * q * q.log()).mean()),
            "That is one half of the entropy. The other half is -(1 - q) log(1 - q).",
        ),
        (
            lambda p, q: (_split(p, q)[0], (_bce(p, q) - _bce(q, q)).mean()),
            "The floor is right. The excess has the weight q as well.",
        ),
        (
            lambda p, q: (_total(p, q), _split(p, q)[1]),
            "The excess is right. The first number is the whole loss: the floor is what p = q would still cost.",
        ),
    ],
    right="The floor depends on the boxes alone, the excess on the scores. Only the excess can be learned away.",
    hint="The floor of a positive is q BCE(q, q); the excess is q BCE(p, q) minus that. Then the means.",
    tolerance=1e-5,
)


# ---- 2. The gradient that must be cut --------------------------------------------------------------------------------
def _step(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable:
    """Gradients of one step on the logits and on the boxes."""

    def answer(logits: Tensor, boxes: Tensor, true_boxes: Tensor):
        logits, boxes = logits.requires_grad_(), boxes.requires_grad_()
        loss(logits, boxes, true_boxes).backward()
        return logits.grad, boxes.grad

    return answer


def _q(boxes: Tensor, true_boxes: Tensor) -> Tensor:
    return iou(boxes, true_boxes).clamp(min=MIN_IOU)


def _score(logits: Tensor, q: Tensor) -> Tensor:
    return varifocal_loss(logits, q).sum() / len(q)


def _box(boxes: Tensor, true_boxes: Tensor) -> Tensor:
    return giou_loss(boxes, true_boxes).sum() / len(boxes)


def _weighed(logits: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    loss = weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return loss.sum() / len(target)


_reference = _step(lambda z, b, true: _score(z, _q(b, true).detach()) + _box(b, true))
_logits = torch.tensor([-2.0, 0.5, 1.5])
_boxes = torch.tensor([[10.0, 12, 40, 44], [5, 5, 25, 20], [50, 8, 70, 30]])
_true = torch.tensor([[12.0, 10, 42, 40], [4, 6, 30, 22], [48, 10, 71, 33]])
_missed = torch.tensor([[12.0, 10, 42, 40], [100, 100, 120, 130], [48, 10, 71, 33]])  # the second is nowhere near

missing_detach = Exercise(
    name="missing_detach",
    reference=_reference,
    cases=[(_logits, _boxes, _true), (_logits, _boxes, _missed), (-_logits, _true, _boxes)],
    mistakes=[
        (
            _step(lambda z, b, true: _score(z, _q(b, true)) + _box(b, true)),
            "The boxes still hear the loss of the score: it can fall by moving the target. Cut where q is made.",
        ),
        (
            _step(lambda z, b, true: _score(z, _q(b, true).detach()) + 0 * _box(b, true)),
            "Now nothing teaches the boxes. The loss of the box must still reach them: cut only what becomes q.",
        ),
        (
            _step(lambda z, b, true: _score(z, _q(b, true).detach()) + _box(b.detach(), true)),
            "You have cut the boxes off from their own loss, too: they have no gradient. Cut only what becomes q.",
        ),
        (
            _step(lambda z, b, true: _score(z, _q(b, true)) + _box(b.detach(), true)),
            "The cut is at the wrong loss: now the boxes hear the score alone. The loss of the box must reach them.",
        ),
        (
            _step(lambda z, b, true: _score(z.detach(), _q(b, true)) + _box(b, true)),
            "You have cut the logits. They are what this loss has to teach; cut its target.",
        ),
        (
            _step(lambda z, b, true: _score(z.detach(), _q(b, true).detach()) + _box(b, true)),
            "The logits have no gradient: you have cut the whole loss of the score. Cut only what becomes q.",
        ),
        (
            _step(lambda z, b, true: _score(z, _q(b, true).detach()) + len(b) * _box(b, true)),
            "The cut is right. The loss of the boxes must be divided by the number of positives, too.",
        ),
        (
            _step(lambda z, b, true: _score(z, (_q(b, true) > 0).float()) + _box(b, true)),
            "No gradient reaches the boxes, because you have thrown the IoU away: the target is 1. Keep q, cut it.",
        ),
        (
            _step(lambda z, b, true: _score(z, iou(b, true).detach()) + _box(b, true)),
            "The cut is right, but the clamp is gone: a positive whose box has missed its object is pushed down.",
        ),
        (
            _step(lambda z, b, true: _weighed(z, _q(b, true).detach(), _q(b, true)) + _box(b, true)),
            "You have cut the weight q. It is the target as well, and there the gradient still flows.",
        ),
        (
            _step(lambda z, b, true: _weighed(z, _q(b, true), _q(b, true).detach()) + _box(b, true)),
            "You have cut the target q. It is the weight as well: a box could weigh less by getting worse.",
        ),
        (
            lambda z, b, true: tuple(len(z) * part for part in _reference(z, b, true)),
            "The cut is right. Divide both losses by the number of positives, as in the code above.",
        ),
        (
            lambda z, b, true: _reference(z, b, true)[::-1],
            "Both gradients are right, in the wrong order: first the logits, then the boxes.",
        ),
    ],
    right="q is a fact about the boxes, not a wish: the scores learn from it, and the boxes hear their own loss alone.",
    hint="Only one quantity leads from the boxes into the loss of the score. Cut there, and nowhere else.",
    tolerance=1e-6,
    describe=lambda case: f"logits {case[0].tolist()}",
)
