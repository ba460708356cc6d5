"""Exercises of chapter 2."""

import math

import torch

from vfnet_edu import boxes
from vfnet_edu.exercises.engine import Exercise

Box = list[float]  # x1, y1, x2, y2


def _said(case: tuple) -> str:
    a, b = ([f"{v:g}" for v in box] for box in case)
    return f"a = [{', '.join(a)}], b = [{', '.join(b)}]"


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shared(a: Box, b: Box) -> tuple[float, float]:
    """Width and height of what two boxes share; negative where they miss each other."""
    return min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])


def _frame(a: Box, b: Box) -> float:
    """Area of the smallest box around both."""
    return (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))


def _intersection(a: Box, b: Box) -> float:
    width, height = _shared(a, b)
    return max(width, 0.0) * max(height, 0.0)


def _union(a: Box, b: Box) -> float:
    return _area(a) + _area(b) - _intersection(a, b)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _from_corner_and_size(box: Box) -> Box:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def _a_pixel_larger(box: Box) -> Box:
    return [box[0], box[1], box[2] + 1, box[3] + 1]


# ---- IoU, also of boxes that are hardly boxes -----------------------------------------------------------------------
def _iou(a, b):
    return float(boxes.iou(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)))


def _no_clamp(a, b):
    width, height = _shared(a, b)
    return _share(width * height, _area(a) + _area(b) - width * height)


def _clamped_late(a, b):
    width, height = _shared(a, b)
    both = max(width * height, 0.0)
    return _share(both, _area(a) + _area(b) - both)


def _turned(box: Box) -> Box:
    return [min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])]


overlap = Exercise(
    name="overlap",
    reference=_iou,
    cases=[
        ([0.0, 0, 10, 10], [5.0, 0, 15, 10]),
        ([0.0, 0, 4, 4], [6.0, 5, 9, 9]),  # missed in both directions
        ([0.0, 0, 4, 4], [6.0, 1, 9, 3]),  # missed in one
        ([2.0, 2, 4, 5], [0.0, 0, 10, 8]),
        ([0.0, 0, 10, 8], [6.0, 6, 8, 12]),
        ([0.0, 0, 4, 4], [4.0, 0, 8, 4]),  # they touch
        ([8.0, 2, 4, 6], [0.0, 0, 10, 10]),  # inside out
        ([3.0, 3, 3, 3], [3.0, 3, 3, 3]),  # two points
    ],
    mistakes=[
        (
            _no_clamp,
            "Where two boxes miss each other, a length is negative, and minus times minus gives an area. No length may "
            "be below 0.",
        ),
        (
            _clamped_late,
            "You stop the product at 0. Boxes that miss each other in both directions have two negative lengths, and "
            "a positive product: stop each length at 0.",
        ),
        (
            lambda a, b: _share(_intersection(a, b), _union(a, b)) if _union(a, b) else math.nan,
            "Two points give 0/0, which is not a number, and one of them spoils the loss of a whole batch. Return 0 "
            "where the union is 0.",
        ),
        (
            lambda a, b: 1.0 if a == b else _iou(a, b),
            "Two equal points are equal, but they share no area: IoU is 0 there. Only areas count.",
        ),
        (
            lambda a, b: _iou(_turned(a), _turned(b)),
            "You turn an inside-out box around. Its right side lies left of its left side, so it covers nothing: 0.",
        ),
        (
            lambda a, b: _iou(_a_pixel_larger(a), _a_pixel_larger(b)),
            "You count pixels, x2 - x1 + 1, as old code does. Here a side is a position: the width is x2 - x1.",
        ),
        (
            lambda a, b: _share(_intersection(a, b), _area(a) + _area(b)),
            "What both share is counted twice below the line: take the intersection away once.",
        ),
        (
            lambda a, b: _share(_intersection(a, b), _area(b)),
            "You divide by the area of b alone. Then a box around everything would be perfect. Divide by the union.",
        ),
        (
            lambda a, b: _share(_intersection(a, b), abs(_area(a))),
            "You divide by the area of a alone. Then a tiny box inside b would be perfect. Divide by the union.",
        ),
        (
            lambda a, b: _share(_intersection(a, b), min(abs(_area(a)), abs(_area(b)))),
            "You divide by the smaller area. Then a box inside another would be perfect. Divide by the union.",
        ),
        (
            lambda a, b: _share(_intersection(a, b), _frame(a, b)),
            "You divide by the box around both. It holds places that belong to neither: divide by the union.",
        ),
        (
            lambda a, b: (_intersection(a, b) + 1) / (_union(a, b) + 1),
            "You add 1 above and below, as the first FCOS does. Boxes that do not touch then have an IoU above 0.",
        ),
        (
            lambda a, b: _iou(_from_corner_and_size(a), _from_corner_and_size(b)),
            "You read the last two numbers as width and height. They are the right and the lower side.",
        ),
        (_intersection, "That is the area they share. How much is it of the area that they cover together?"),
        (_union, "That is the area that they cover together. How much of it do they share?"),
        (lambda a, b: 1 - _iou(a, b), "That is the loss, 1 - IoU. Return the IoU itself."),
    ],
    right="It holds for boxes that miss each other, touch, have no area or are inside out: IoU is 0 for all of them.",
    hint="Width and height of what they share, each at least 0; their product over the union; 0 where that is 0.",
    describe=_said,
)


# ---- which way each side goes ---------------------------------------------------------------------------------------
def _uphill(measure, a, b) -> Box:
    """Gradient of a measure of two boxes with respect to the sides of a."""
    box = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(measure(box, torch.tensor(b, dtype=torch.float64)), box)[0].tolist()


def _signs(values) -> list[int]:
    return [(v > 0) - (v < 0) for v in values]


def _pushes(a, b):
    return _signs(_uphill(boxes.iou, a, b))


def _towards(a, b):
    return _signs(y - x for x, y in zip(a, b, strict=True))


def _with_the_centre(a, b):
    x, y = _signs(b[i] + b[i + 2] - a[i] - a[i + 2] for i in (0, 1))
    return [x, y, x, y] if _intersection(a, b) else [0, 0, 0, 0]


def _wherever(shared, a, b):
    """Towards the true place wherever `shared(width, height)` of what they share says that they overlap."""
    return _towards(a, b) if shared(*_shared(a, b)) else [0, 0, 0, 0]


pushes = Exercise(
    name="pushes",
    reference=_pushes,
    cases=[
        ([0.0, 0, 10, 10], [4.0, 3, 16, 12]),
        ([4.0, 4, 6, 7], [0.0, 0, 10, 12]),
        ([0.0, 0, 20, 20], [5.0, 6, 15, 12]),
        ([0.0, 0, 4, 4], [6.0, 5, 9, 9]),
        ([0.0, 0, 4, 9], [6.0, 1, 9, 5]),
        ([1.0, 0, 5, 3], [0.0, 6, 4, 9]),
        ([2.0, 0, 8, 10], [0.0, 3, 12, 7]),
    ],
    mistakes=[
        (
            _towards,
            "Right where the boxes overlap. Where they do not touch you still push, as L1 does: 1 - IoU is 1 there, "
            "and stays 1 whatever side moves a little.",
        ),
        (
            lambda a, b: [-v for v in _pushes(a, b)],
            "That is the gradient of the loss. A step goes against it: every side moves the other way.",
        ),
        (
            lambda a, b: [-v for v in _towards(a, b)],
            "Two things: a step goes against the gradient, and boxes that do not touch get no push at all.",
        ),
        (
            lambda a, b: _signs(_uphill(boxes.giou, a, b)),
            "That is what GIoU does. IoU pushes nothing where the boxes do not touch.",
        ),
        (
            lambda a, b: [-1, -1, 1, 1] if _intersection(a, b) else [0, 0, 0, 0],
            "The box always grows here. A side that already lies beyond the true one must come back.",
        ),
        (
            _with_the_centre,
            "You move the whole box towards the centre of the other. Every side moves by itself: look at one side of "
            "a and at the same side of b.",
        ),
        (
            lambda a, b: [y - x if _intersection(a, b) else 0.0 for x, y in zip(a, b, strict=True)],
            "That is how far each side has to go. Asked for is the direction: -1, 0 or 1.",
        ),
        (
            lambda a, b: [v * s for v, s in zip(_pushes(a, b), (-1, -1, 1, 1), strict=True)],
            "Your 1 means outward. Here it means to the right or down, also for the left and the upper side.",
        ),
        (
            lambda a, b: [_pushes(a, b)[k] for k in (0, 2, 1, 3)],
            "The values are right, their order is x1, x2, y1, y2. A box is x1, y1, x2, y2.",
        ),
        (
            lambda a, b: _wherever(lambda width, height: width > 0 or height > 0, a, b),
            "Boxes that share columns but no rows, or rows but no columns, do not overlap: both must be shared.",
        ),
        (
            lambda a, b: _wherever(lambda width, height: width * height > 0, a, b),
            "Minus times minus: boxes that miss each other in both directions count as overlapping here.",
        ),
        (
            lambda a, b: _wherever(lambda width, height: width > 0, a, b),
            "You ask only whether they share columns. They must share rows as well.",
        ),
        (
            lambda a, b: _wherever(lambda width, height: height > 0, a, b),
            "You ask only whether they share rows. They must share columns as well.",
        ),
        (lambda a, b: [0, 0, 0, 0], "You push nothing anywhere. Where the boxes overlap, every side has a way to go."),
    ],
    right="Where two boxes overlap, IoU pushes every side to its true place, as L1 does. Elsewhere it is silent.",
    hint="Do the boxes share an area? If so, each side goes towards the same side of b: 1 is right or down.",
    describe=_said,
)


# ---- GIoU -----------------------------------------------------------------------------------------------------------
def _giou(a, b):
    return float(boxes.giou(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)))


def _less_empty(intersection, union, frame):
    return intersection / union - (frame - union) / frame


def _diou(a, b):
    apart = sum((a[i] + a[i + 2] - b[i] - b[i + 2]) ** 2 / 4 for i in (0, 1))
    across = sum((max(a[i + 2], b[i + 2]) - min(a[i], b[i])) ** 2 for i in (0, 1))
    return _iou(a, b) - apart / across


def _inner_frame(a, b):
    width, height = _shared(a, b)
    frame = width * height
    return _iou(a, b) - _share(frame - _union(a, b), frame)


giou = Exercise(
    name="giou",
    reference=_giou,
    cases=[
        ([0.0, 0, 10, 10], [5.0, 0, 15, 10]),
        ([0.0, 0, 4, 4], [6.0, 5, 9, 9]),
        ([0.0, 0, 4, 4], [4.0, 0, 8, 4]),
        ([2.0, 2, 4, 5], [0.0, 0, 10, 8]),
        ([0.0, 0, 6, 6], [4.0, 4, 10, 8]),
        ([0.0, 0, 2, 8], [20.0, 0, 22, 8]),
        ([0.0, 0, 4, 4], [6.0, 1, 9, 3]),
    ],
    mistakes=[
        (_iou, "That is IoU. Draw the smallest box around both, and take away the share of it that neither fills."),
        (
            lambda a, b: _iou(a, b) - (_frame(a, b) - _union(a, b)) / _union(a, b),
            "The empty part is a share of the box around both: divide it by that box, not by the union.",
        ),
        (
            lambda a, b: _iou(a, b) - (_frame(a, b) - _intersection(a, b)) / _frame(a, b),
            "Empty is what neither box fills: the frame less the union, not less the intersection.",
        ),
        (
            lambda a, b: _iou(a, b) + (_frame(a, b) - _union(a, b)) / _frame(a, b),
            "You add the empty share. Emptier is worse: take it away.",
        ),
        (
            _inner_frame,
            "Your frame is what the boxes share. The box around both goes from the smaller x1 to the larger x2.",
        ),
        (lambda a, b: 1 - _giou(a, b), "That is the loss, 1 - GIoU. Return GIoU itself."),
        (
            lambda a, b: max(_giou(a, b), 0.0),
            "You stop at 0. Below 0 is where GIoU tells near boxes from far ones: let it be negative.",
        ),
        (
            lambda a, b: _less_empty(_intersection(a, b), _union(a, b), _area(a) + _area(b)),
            "The frame is one box around both, with the places that belong to neither, not the sum of two areas.",
        ),
        (
            lambda a, b: _less_empty(
                math.prod(_shared(a, b)), _area(a) + _area(b) - math.prod(_shared(a, b)), _frame(a, b)
            ),
            "Where the boxes miss each other a shared length is negative: stop each at 0 before you multiply.",
        ),
        (
            lambda a, b: _less_empty(_intersection(a, b), _area(a) + _area(b), _frame(a, b)),
            "What both share is counted twice in your union: take the intersection away once.",
        ),
        (
            _diou,
            "That is DIoU: you take away the distance of the centres. GIoU takes away the empty share of the frame.",
        ),
        (
            lambda a, b: (_frame(a, b) - _union(a, b)) / _frame(a, b),
            "That is the empty share alone. GIoU is IoU less this share.",
        ),
        (
            lambda a, b: -(_frame(a, b) - _union(a, b)) / _frame(a, b),
            "That is the empty share alone, with its sign. The IoU is missing.",
        ),
        (
            lambda a, b: _giou(a, b) + 1,
            "You add the filled share of the frame, which is 1 larger than minus the empty share: two equal boxes must "
            "have a GIoU of 1, not 2.",
        ),
        (
            lambda a, b: _intersection(a, b) / _frame(a, b),
            "You divide the intersection by the box around both. It is two shares: IoU, less the empty one.",
        ),
        (
            lambda a, b: _giou(_a_pixel_larger(a), _a_pixel_larger(b)),
            "You count pixels, x2 - x1 + 1, as old code does. Here a side is a position: the width is x2 - x1.",
        ),
        (
            lambda a, b: _giou(_from_corner_and_size(a), _from_corner_and_size(b)),
            "You read the last two numbers as width and height. They are the right and the lower side.",
        ),
    ],
    right="Two boxes far apart are near -1, two equal ones are 1. On the way between them there is always a slope.",
    hint="IoU, less (frame - union) / frame, where the frame is the smallest box around both.",
    describe=_said,
)
