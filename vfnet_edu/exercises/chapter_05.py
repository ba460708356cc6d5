"""Exercises of chapter 5: distances and back, and who learns an object."""

import math

import torch
from torch import Tensor

from vfnet_edu.boxes import area, ltrb_to_xyxy, xyxy_to_ltrb
from vfnet_edu.exercises.engine import Exercise


# ---- encode: a box, seen from points, in strides --------------------------------------------------------------------
def _encode(points: Tensor, box: Tensor, stride: int) -> Tensor:
    return xyxy_to_ltrb(points, box.expand(len(points), 4)) / stride


def _corner_and_size(points: Tensor, box: Tensor, stride: int) -> Tensor:
    """Left and top are right, then come width and height."""
    return torch.cat([points - box[:2], (box[2:] - box[:2]).expand(len(points), 2)], 1) / stride


_POINTS = torch.tensor([[16.0, 24.0], [40.0, 24.0], [24.0, 32.0]])

encode = Exercise(
    name="encode",
    reference=_encode,
    cases=[
        (_POINTS, torch.tensor([10.0, 14.0, 50.0, 38.0]), 8),
        (torch.tensor([[64.0, 32.0], [96.0, 64.0]]), torch.tensor([33.0, 20.0, 100.0, 90.0]), 32),
        (torch.tensor([[0.0, 16.0], [16.0, 48.0]]), torch.tensor([3.0, 5.0, 29.0, 60.0]), 16),
    ],
    mistakes=[
        (
            lambda points, box, stride: _encode(points, box, 1),
            "These are pixels, and they are right. Divide by the stride.",
        ),
        (
            lambda points, box, stride: _encode(points, box, 1) * stride,
            "You multiply by the stride. From pixels to strides you divide.",
        ),
        (
            lambda points, box, stride: -_encode(points, box, stride),
            "Every sign is flipped. A point inside the box has four positive distances: x - x1, but x2 - x.",
        ),
        (
            lambda points, box, stride: _encode(points, box, stride) * torch.tensor([1.0, 1, -1, -1]),
            "Right and bottom have the wrong sign. They are x2 - x and y2 - y: from the point outwards.",
        ),
        (
            lambda points, box, stride: _encode(points, box, stride) * torch.tensor([-1.0, -1, 1, 1]),
            "Left and top have the wrong sign. They are x - x1 and y - y1: from the side back to the point.",
        ),
        (
            lambda points, box, stride: _encode(points, box, stride)[:, [0, 2, 1, 3]],
            "Your order is left, right, top, bottom. It must be left, top, right, bottom.",
        ),
        (
            lambda points, box, stride: _encode(points, box, stride)[:, [1, 0, 3, 2]],
            "Top and left are exchanged, and so are bottom and right: left comes first.",
        ),
        (
            lambda points, box, stride: _encode(points.flip(1), box, stride),
            "You read the points as (y, x). They are (x, y), like the corners of a box.",
        ),
        (
            lambda points, box, stride: _encode(points, box, stride).clamp(min=0),
            "You cut negative distances off. They say that the point is outside, and who decides needs to know that.",
        ),
        (
            lambda points, box, stride: _encode(points, box, stride).abs(),
            "You drop the signs. A negative distance says that the point is outside that side: keep it.",
        ),
        (
            _corner_and_size,
            "The last two are width and height of the box. They should be the distances to its right and lower side.",
        ),
        (
            lambda points, box, stride: _encode(points, box / stride, 1),
            "You divide the box alone. Points and boxes are both in pixels: divide their difference.",
        ),
        (
            lambda points, box, stride: _encode(points / stride, box, 1),
            "You divide the points alone. Points and boxes are both in pixels: divide their difference.",
        ),
        (
            lambda points, box, stride: _encode(points, box, stride).T,
            "You return one row for each side. Return one row for each point: (N, 4).",
        ),
    ],
    right="The same four numbers mean a small object on a fine level and a large one on a coarse level.",
    hint="The columns are x - x1, y - y1, x2 - x and y2 - y, each divided by the stride.",
    describe=lambda case: f"points {case[0].tolist()}, box {case[1].tolist()}, stride {case[2]}",
)


# ---- decode: what the last layer says -> a box ----------------------------------------------------------------------
def _decode(point: Tensor, output: Tensor, stride: int, unit: float) -> Tensor:
    return ltrb_to_xyxy(point, output.exp() * unit * stride)


def _outputs(*four: float) -> Tensor:
    return torch.tensor(four)


decode = Exercise(
    name="decode",
    reference=_decode,
    cases=[
        (torch.tensor([64.0, 48.0]), _outputs(0.0, 0.5, -0.5, 1.0), 8, 2.0),
        (torch.tensor([96.0, 32.0]), _outputs(-1.0, 0.2, 0.7, 0.0), 32, 2.0),
        (torch.tensor([16.0, 80.0]), _outputs(-0.3, -0.6, 0.4, 0.1), 16, 8.0),
    ],
    mistakes=[
        (
            lambda point, output, stride, unit: ltrb_to_xyxy(point, output.exp()),
            "These distances are in units. One unit is `unit` strides, one stride is `stride` pixels.",
        ),
        (
            lambda point, output, stride, unit: _decode(point, output, 1, unit),
            "The stride is missing: the exponential counts units, and a unit grows with the stride.",
        ),
        (
            lambda point, output, stride, unit: _decode(point, output, stride, 1.0),
            "The unit is missing: an output of 0 means `unit` strides, not one.",
        ),
        (
            lambda point, output, stride, unit: ltrb_to_xyxy(point, output * unit * stride),
            "The exponential is missing. An output may be negative, a distance may not.",
        ),
        (
            lambda point, output, stride, unit: ltrb_to_xyxy(point, (output * unit * stride).exp()),
            "You take the exponential last. Take it first, then multiply: otherwise the distances explode.",
        ),
        (
            lambda point, output, stride, unit: ltrb_to_xyxy(point, output.relu() * unit * stride),
            "You cut negative outputs off. That is another way, FCOS's later one. Here the exponential is asked for.",
        ),
        (
            lambda point, output, stride, unit: ltrb_to_xyxy(point, output.exp() / (unit * stride)),
            "You divide by unit and stride. That is the way in; the way out multiplies.",
        ),
        (
            lambda point, output, stride, unit: output.exp() * unit * stride,
            "These are the four distances. One step is missing: from the point and its distances to the box.",
        ),
        (
            lambda point, output, stride, unit: ltrb_to_xyxy(point, -output.exp() * unit * stride),
            "Every sign is flipped: subtract left and top from the point, add right and bottom.",
        ),
        (
            lambda point, output, stride, unit: ltrb_to_xyxy(
                point, output.exp() * unit * stride * torch.tensor([-1.0, -1, 1, 1])
            ),
            "You add all four distances. Left and top go back from the point: subtract them.",
        ),
        (
            lambda point, output, stride, unit: _decode(point, output[[0, 2, 1, 3]], stride, unit),
            "You read the outputs as left, right, top, bottom. Their order is left, top, right, bottom.",
        ),
        (
            lambda point, output, stride, unit: _decode(point * stride, output, stride, unit),
            "The point is in pixels already: do not multiply it by the stride.",
        ),
    ],
    right="Positive distances whatever the network says, and a gradient that never vanishes on the way.",
    hint="Distances in pixels: exp(output) * unit * stride. Then x - l, y - t, x + r, y + b.",
    describe=lambda case: f"point {case[0].tolist()}, output {case[1].tolist()}, stride {case[2]}, unit {case[3]}",
)


# ---- the ambiguous point --------------------------------------------------------------------------------------------
def _pick(point: Tensor, boxes: Tensor, low: float, high: float, cost) -> int:
    """Of the boxes that the point may learn, the one with the least `cost` (ltrb (G, 4), boxes) -> (G,)"""
    ltrb = xyxy_to_ltrb(point, boxes)
    allowed = _inside(ltrb) & _fits(ltrb, low, high)
    return _least(cost(ltrb, boxes), allowed)


def _least(cost: Tensor, allowed: Tensor) -> int:
    return int(cost.where(allowed, torch.inf).argmin()) if allowed.any() else -1


def _inside(ltrb: Tensor) -> Tensor:
    return ltrb.amin(-1) > 0


def _fits(ltrb: Tensor, low: float, high: float) -> Tensor:
    far = ltrb.amax(-1)
    return (low < far) & (far < high)


def _smallest(ltrb: Tensor, boxes: Tensor) -> Tensor:
    return area(boxes)


def _owner(point: Tensor, boxes: Tensor, low: float, high: float) -> int:
    return _pick(point, boxes, low, high, _smallest)


def _by_rule(test):
    """The smallest box among those that pass `test` (ltrb, low, high, boxes) -> (G,) instead of the right rule."""

    def owner(point, boxes, low, high):
        return _least(area(boxes), test(xyxy_to_ltrb(point, boxes), low, high, boxes))

    return owner


def _chosen_first(point, boxes, low, high):
    """The smallest box around the point, and only then the question whether its size fits."""
    ltrb = xyxy_to_ltrb(point, boxes)
    smallest = _least(area(boxes), _inside(ltrb))
    return smallest if smallest >= 0 and _fits(ltrb[smallest], low, high) else -1


def _nearest_centre(point: Tensor):
    return lambda ltrb, boxes: ((boxes[:, :2] + boxes[:, 2:]) / 2 - point).norm(dim=-1)


def _all_of_them(point, boxes, low, high):
    ltrb = xyxy_to_ltrb(point, boxes)
    return (_inside(ltrb) & _fits(ltrb, low, high)).nonzero()[:, 0].tolist()


_P = torch.tensor([40.0, 40.0])
_LARGE, _SMALL, _FLAT = [12.0, 14, 66, 64], [30.0, 33, 52, 47], [20.0, 36, 69, 44]
_AWAY, _HUGE, _TINY = [60.0, 60, 90, 80], [2.0, 4, 90, 96], [37.0, 36, 45, 44]
_OFF = [24.0, 32, 42, 60]

owner = Exercise(
    name="owner",
    reference=_owner,
    cases=[
        (_P, torch.tensor([_LARGE, _SMALL]), 0.0, 32.0),
        (_P, torch.tensor([_AWAY, _LARGE, _SMALL, _FLAT]), 0.0, 32.0),
        (_P, torch.tensor([_AWAY, _HUGE]), 0.0, 32.0),
        (_P, torch.tensor([_TINY, _HUGE, _FLAT]), 16.0, 64.0),
        (_P, torch.tensor([_HUGE, _SMALL, _LARGE]), 24.0, math.inf),
        (_P, torch.tensor([_AWAY, _AWAY]), 0.0, 64.0),
        (_P, torch.tensor([_OFF, _LARGE, _FLAT]), 0.0, 32.0),
        (_P, torch.tensor([[40.0, 36, 60, 44], _LARGE]), 0.0, 32.0),
        (_P, torch.tensor([[30.0, 30, 72, 50], _LARGE]), 0.0, 32.0),  # its farthest side is 32
        (_P, torch.tensor([_LARGE, _HUGE]), 28.0, 64.0),  # and here 28
    ],
    mistakes=[
        (
            lambda point, boxes, low, high: _pick(point, boxes, low, high, lambda _, b: -area(b)),
            "You give the point to the largest box. A small object has few points and needs this one; a large one has "
            "others.",
        ),
        (
            lambda point, boxes, low, high: next(iter(_all_of_them(point, boxes, low, high)), -1),
            "You take the first box that fits. Then the order of the annotations decides; take the smallest.",
        ),
        (
            lambda point, boxes, low, high: next(iter(_all_of_them(point, boxes, low, high)[::-1]), -1),
            "You take the last box that fits: does a later one overwrite an earlier one? Compare their areas.",
        ),
        (
            lambda point, boxes, low, high: _pick(point, boxes, low, high, _nearest_centre(point)),
            "You take the box whose centre is nearest. FCOS compares areas.",
        ),
        (
            lambda point, boxes, low, high: _pick(point, boxes, low, high, lambda ltrb, _: ltrb.amax(-1)),
            "You compare the farthest sides. That is for the level; the smallest *area* decides between boxes.",
        ),
        (
            _by_rule(lambda ltrb, low, high, boxes: _inside(ltrb)),
            "The level's range is not looked at: the farthest side must lie between low and high.",
        ),
        (
            _by_rule(lambda ltrb, low, high, boxes: _fits(ltrb, low, high)),
            "You do not ask whether the point lies inside. All four distances must be positive.",
        ),
        (
            _chosen_first,
            "You choose the smallest box first, then look at the range. A box of another level must not take the "
            "point away: test first, then choose.",
        ),
        (
            _by_rule(lambda ltrb, low, high, boxes: _inside(ltrb) & (ltrb.amax(-1) < high)),
            "Only the upper limit is tested. Whoever is too small for this level belongs to a finer one.",
        ),
        (
            _by_rule(lambda ltrb, low, high, boxes: _inside(ltrb) & (ltrb.amax(-1) > low)),
            "Only the lower limit is tested. Whoever is too large for this level belongs to a coarser one.",
        ),
        (
            _by_rule(lambda ltrb, low, high, boxes: _inside(ltrb) & _fits(ltrb.amin(-1, keepdim=True), low, high)),
            "You test the nearest side. It is the *farthest* that must lie between low and high.",
        ),
        (
            _by_rule(lambda ltrb, low, high, boxes: _inside(ltrb) & _fits(area(boxes).sqrt()[:, None], low, high)),
            "You compare the size of the box with the limits. FCOS compares the farthest side, seen from the point.",
        ),
        (
            _by_rule(lambda ltrb, low, high, boxes: (ltrb.amin(-1) >= 0) & _fits(ltrb, low, high)),
            "A point on the edge of a box counts as inside here. A distance of 0 is not positive.",
        ),
        (
            _by_rule(lambda ltrb, low, high, boxes: _inside(ltrb) & (low <= ltrb.amax(-1)) & (ltrb.amax(-1) <= high)),
            "A farthest side exactly on a limit counts as within here, as in the paper. Strictly between is asked for: "
            "use <, not <=.",
        ),
        (
            _by_rule(lambda ltrb, low, high, boxes: _inside(ltrb) & (low <= ltrb.amax(-1)) & (ltrb.amax(-1) < high)),
            "A farthest side exactly at the lower limit counts as within here. Strictly between is asked for.",
        ),
        (
            _by_rule(lambda ltrb, low, high, boxes: _inside(ltrb) & (low < ltrb.amax(-1)) & (ltrb.amax(-1) <= high)),
            "A farthest side exactly at the upper limit counts as within here. Strictly between is asked for.",
        ),
        (
            _all_of_them,
            "These are all boxes that the point may learn. It can learn only one: the smallest.",
        ),
        (
            lambda *case: None if _owner(*case) < 0 else _owner(*case),
            "Where no box fits, return -1: the background.",
        ),
        (
            lambda *case: max(_owner(*case), 0),
            "Where no box fits you return 0, and that is a box. Return -1.",
        ),
        (
            lambda point, boxes, low, high: (
                boxes[_owner(point, boxes, low, high)].tolist() if _owner(point, boxes, low, high) >= 0 else -1
            ),
            "You return the box itself. Return its index.",
        ),
    ],
    right="Test first, then choose. The smallest wins, because the larger one has other points to be learned at.",
    hint="Keep the boxes with four positive distances, the largest of them between low and high. Then the least area.",
    describe=lambda case: f"point {case[0].tolist()}, boxes {case[1].tolist()}, {case[2]:g} to {case[3]:g} px",
)
