"""The losses, element by element: no reduction hidden in a class, so every normaliser is visible in the head.

Notation: z a logit, p = sigmoid(z), q the target.  All classification losses take independent sigmoids (K logits, no
background channel) and stay finite for every finite logit, because they work on log-sigmoids and never on log(p).
"""

import functools
import operator
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from vfnet_edu.boxes import giou

MIN_IOU = 1e-6  # a positive's target stays above 0, so it stays on the positive branch of the varifocal loss


def focal_loss(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss: down-weight what is already easy.  logits (N, K), target (N, K) in {0, 1} -> (N, K)

    Source: Lin et al. 2017, equation 5: -alpha_t (1 - p_t)^gamma log(p_t).

    Explained in chapter 7, where a gamma between 0 and 1 makes a gradient NaN.
    """
    p = logits.sigmoid()
    p_wrong = p * (1 - target) + (1 - p) * target  # the probability not given to the truth
    alpha_t = alpha * target + (1 - alpha) * (1 - target)
    return alpha_t * p_wrong**gamma * F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def quality_focal_loss(logits: Tensor, target: Tensor, beta: float = 2.0) -> Tensor:
    """Quality focal loss: the label is an IoU, errors are weighted by their size.  logits, target (N, K) -> (N, K)

    Source: Li et al. 2020 (GFL), equation 3: ``|q - p|^beta BCE(p, q)``.  Symmetric: a positive and a negative that are
    equally wrong are weighted equally; the varifocal loss deliberately does not do that.
    """
    error = (logits.sigmoid() - target).abs()
    return error**beta * F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def varifocal_loss(
    logits: Tensor, target: Tensor, alpha: float = 0.75, gamma: float = 2.0, iou_weighted: bool = True
) -> Tensor:
    """Varifocal loss: learn the IoU-aware classification score (IACS).  logits, target (N, K) -> (N, K)

    Source: VarifocalNet (arXiv 2008.13367), equation 2:
        q > 0:  q BCE(p, q)                      the better its box, the more a positive weighs
        q = 0:  alpha p^gamma (-log(1 - p))      only negatives are focal

    `target` is q: the IoU of the predicted box at the true class of a positive, 0 everywhere else.  Its minimum at
    a positive is q H(q), not 0, so the loss may rise while the boxes improve.  p^gamma is not detached.

    Derived in chapter 9.
    """
    positive = target > 0
    negative_weight = alpha * logits.sigmoid() ** gamma
    weight = torch.where(positive, target if iou_weighted else torch.ones_like(target), negative_weight)
    return weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def giou_loss(boxes: Tensor, target: Tensor) -> Tensor:
    """1 - GIoU, in [0, 2].  (N, 4), (N, 4) -> (N,)   (Rezatofighi et al. 2019; derived in chapter 2)"""
    return 1 - giou(boxes, target)


def smooth_l1_loss(prediction: Tensor, target: Tensor, beta: float) -> Tensor:
    """``|d|``, rounded to a parabola where ``|d| < beta``.  Any shape, element by element.  (Fast R-CNN, equation 3)"""
    return F.smooth_l1_loss(prediction, target, reduction="none", beta=beta)


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """The scalar that a step minimises: the terms of a head's ``loss``, added in their order."""
    return functools.reduce(operator.add, losses.values())
