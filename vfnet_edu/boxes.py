"""Boxes as plain tensors.  Every box is (x1, y1, x2, y2) in image pixels, width = x2 - x1; every function is pure."""

import math

import torch
from torch import Tensor

EPS = 1e-6  # floor of a union or an enclosing area, as in the authors' code
LOG_RATIO_LIMIT = abs(math.log(16 / 1000))  # a decoded side is at most 62.5 times its anchor's


def centers(boxes: Tensor) -> Tensor:
    """Middle of each box.  (..., 4) -> (..., 2) as (x, y)"""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def area(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...) in square pixels"""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def clip(boxes: Tensor, size: tuple[float, float]) -> Tensor:
    """Cut boxes at the borders of an image of `size` = (height, width).  (..., 4) -> (..., 4)"""
    h, w = size
    x = boxes[..., 0::2].clamp(0, w)
    y = boxes[..., 1::2].clamp(0, h)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def xywh_to_xyxy(boxes):
    """Corner and size, as COCO writes boxes, to two corners.  (..., 4) -> (..., 4), a tensor or an array"""
    corners = boxes + 0
    corners[..., 2:] += boxes[..., :2]
    return corners


def xyxy_to_xywh(boxes):
    """The inverse.  (..., 4) -> (..., 4), a tensor or an array"""
    sizes = boxes + 0
    sizes[..., 2:] -= boxes[..., :2]
    return sizes


# ------------------------------------------------------------------ distances to the four sides (FCOS)
def ltrb_to_xyxy(points: Tensor, ltrb: Tensor) -> Tensor:
    """A point and its distances to the left, top, right and bottom side -> the box.  (..., 2), (..., 4) -> (..., 4)

    Derived in chapter 1.
    """
    return torch.cat([points - ltrb[..., :2], points + ltrb[..., 2:]], dim=-1)


def xyxy_to_ltrb(points: Tensor, boxes: Tensor) -> Tensor:
    """The inverse; a negative distance means the point lies outside that side.  (..., 2), (..., 4) -> (..., 4)

    Derived in chapter 5.
    """
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def centerness(points: Tensor, boxes: Tensor) -> Tensor:
    """How central a point lies in its box: 1 in the middle, 0 at a side.  (..., 2), (..., 4) -> (...)

    Source: FCOS (Tian et al. 2019), equation 3.  The points must lie inside.
    """
    l, t, r, b = xyxy_to_ltrb(points, boxes).unbind(-1)
    horizontal, vertical = torch.minimum(l, r) / torch.maximum(l, r), torch.minimum(t, b) / torch.maximum(t, b)
    return (horizontal * vertical).sqrt()


# ------------------------------------------------------------------ deltas to an anchor (R-CNN, RetinaNet)
def encode_deltas(anchors: Tensor, boxes: Tensor, stds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Shift and log-scale that turn each anchor into its box, in units of `stds`.  (N, 4), (N, 4) -> (N, 4)

    Source: Fast R-CNN (Girshick 2015), section 2.2; (dx, dy) in anchor sizes, (dw, dh) as logarithms.
    """
    anchor_wh, box_wh = anchors[..., 2:] - anchors[..., :2], boxes[..., 2:] - boxes[..., :2]
    shift = (centers(boxes) - centers(anchors)) / anchor_wh
    return torch.cat([shift, (box_wh / anchor_wh).log()], dim=-1) / anchors.new_tensor(stds)


def decode_deltas(anchors: Tensor, deltas: Tensor, stds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The inverse of :func:`encode_deltas`; log-scales are limited to ±log(1000/16).  (..., 4), (..., 4) -> (..., 4)"""
    deltas = deltas * deltas.new_tensor(stds)
    wh = anchors[..., 2:] - anchors[..., :2]
    middle = centers(anchors) + deltas[..., :2] * wh
    half = wh * deltas[..., 2:].clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp() / 2
    return torch.cat([middle - half, middle + half], dim=-1)


# ------------------------------------------------------------------ overlap
def _intersection_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    wh = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = wh[..., 0] * wh[..., 1]
    return intersection, (area(a) + area(b) - intersection).clamp(min=EPS)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of paired boxes, with broadcasting.  (..., 4), (..., 4) -> (...)

    Row by row: ``iou(a, b)`` of (N, 4) and (N, 4).  All pairs: ``iou(a[:, None], b)`` -> (N, M).  Derived in chapter 2.
    """
    intersection, union = _intersection_and_union(a, b)
    return intersection / union


def iof(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over the area of `a` ("foreground"), with broadcasting.  (..., 4), (..., 4) -> (...)"""
    intersection, _ = _intersection_and_union(a, b)
    return intersection / area(a).clamp(min=EPS)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU: IoU minus the empty share of the enclosing box, in [-1, 1].  (..., 4), (..., 4) -> (...)

    Source: Rezatofighi et al. 2019, algorithm 1.  It still has a gradient where two boxes do not touch.

    Derived in chapter 2.
    """
    intersection, union = _intersection_and_union(a, b)
    wh = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0)
    enclosing = (wh[..., 0] * wh[..., 1]).clamp(min=EPS)
    return intersection / union - (enclosing - union) / enclosing
