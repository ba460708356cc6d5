"""Chapter 2: its explorer computes what the library computes, and what its text derives holds for any boxes."""

import pytest
import torch
from javascript import in_node
from torch import Tensor

from vfnet_edu.boxes import giou, iou

NAMES = ("L1", "IoU", "GIoU", "DIoU")
BY_HAND = [  # where formulas part. Not two that just touch: at that kink versions of PyTorch differ
    ([0, 0, 4, 4], [6, 5, 9, 9]),  # apart in both directions
    ([0, 0, 4, 9], [6, 1, 9, 5]),  # in one
    ([2, 2, 4, 5], [0, 0, 10, 8]),  # inside
    ([0, 0, 10, 8], [2, 2, 4, 5]),  # around
    ([1, 2, 7, 9], [1, 4, 9, 9]),  # two sides level
    ([0, 0, 5, 5], [0, 0, 5, 5]),  # equal
    ([3, 3, 3, 3], [0, 0, 10, 8]),  # a point
    ([3, 3, 3, 3], [3, 3, 3, 3]),  # two points
]


def random_boxes(n: int, seed: int) -> Tensor:
    """(n, 4) boxes of 0 to 60 pixels a side in a square of 160, float64"""
    noise = torch.Generator().manual_seed(seed)
    low, side = torch.rand(2, n, 2, generator=noise, dtype=torch.float64)
    return torch.cat([100 * low, 100 * low + 60 * side], dim=1)


def pairs() -> list[tuple[list[float], list[float]]]:
    some = zip(random_boxes(200, 0).tolist(), random_boxes(200, 1).tolist(), strict=True)
    return [([float(v) for v in a], [float(v) for v in b]) for a, b in BY_HAND] + list(some)


def losses():
    pytest.importorskip("anywidget", reason="the explorers need anywidget")
    from vfnet_edu.widgets.box_pair import LOSSES

    assert tuple(LOSSES) == NAMES
    return LOSSES


def by_autograd(loss, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Values (N,) and pushes (N, 4) of a loss"""
    a = a.clone().requires_grad_()
    value = loss(a, b)
    return value.detach(), -torch.autograd.grad(value.sum(), a)[0]


def test_losses_and_pushes_are_the_package_s():
    a, b = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs(), strict=True))
    got = in_node("box_pair", "data.map(([a, b]) => [measures(a, b), pushes(a, b)])", pairs())
    for name, loss in losses().items():
        value, push = by_autograd(loss, a, b)
        mine = torch.tensor([m[name]["value"] for m, _ in got], dtype=torch.float64)
        torch.testing.assert_close(mine if name == "L1" else 1 - mine, value, rtol=1e-12, atol=1e-12)
        pushed = torch.tensor([p[name] for _, p in got], dtype=torch.float64)
        torch.testing.assert_close(pushed, push, rtol=1e-12, atol=1e-12)


def test_a_walk_is_steps_of_one_length_against_the_gradient():
    a, b = random_boxes(40, 2), random_boxes(40, 3)
    for name, loss in losses().items():
        call = f"data.map(([a, b]) => walk(a, b, '{name}', 10, 0.7))"
        got = in_node("box_pair", call, list(zip(a.tolist(), b.tolist(), strict=True)))
        box = a
        for _ in range(10):
            _, push = by_autograd(loss, box, b)
            box = box + 0.7 * push / push.norm(dim=1, keepdim=True).clamp(min=1e-12)
        torch.testing.assert_close(torch.tensor(got, dtype=torch.float64), box, rtol=1e-9, atol=1e-9)
    assert in_node("box_pair", "walk([0, 0, 4, 4], [6, 5, 9, 9], 'IoU', 10)") == [0, 0, 4, 4]


# ------------------------------------------------------------------ what the text derives
def test_where_boxes_overlap_iou_pushes_as_l1_does_and_elsewhere_not_at_all():
    a, b = random_boxes(4000, 4), random_boxes(4000, 5)
    _, push = by_autograd(lambda a, b: 1 - iou(a, b), a, b)
    overlap = iou(a, b) > 0
    assert 200 < overlap.sum() < 3800
    assert torch.equal(push[overlap].sign(), (b - a)[overlap].sign())
    assert not push[~overlap].any()


def test_giou_pulls_a_side_inside_the_frame_outward_and_may_push_one_on_it_further():
    a, b = random_boxes(4000, 6), random_boxes(4000, 7)
    _, push = by_autograd(lambda a, b: 1 - giou(a, b), a, b)
    outward = push * torch.tensor([-1.0, -1, 1, 1])
    inside = torch.cat([a[:, :2] > b[:, :2], a[:, 2:] < b[:, 2:]], 1)
    assert (outward[inside] > 0).all()
    astray = (outward > 0) & ~inside
    assert astray[iou(a, b) == 0].any() and giou(a, b).min() > -1

    frame = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    area = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    filled = (area[0] + area[1]) / frame.prod(1)  # of boxes that do not touch
    share = ((a[:, 2:] - a[:, :2]) / frame).flip(1).repeat(1, 2)  # how much of the frame's side is the box's
    rule = (share > filled[:, None]) & ~inside
    apart = iou(a, b) == 0
    assert torch.equal(rule[apart], astray[apart])


def test_boxes_around_one_point_overlap():
    """All four distances of a positive's point are above 0, to the predicted box and to the true one."""
    noise = torch.Generator().manual_seed(8)
    one, two = 0.01 + 50 * torch.rand(2, 1000, 4, generator=noise, dtype=torch.float64)
    a, b = (torch.cat([80 - ltrb[:, :2], 80 + ltrb[:, 2:]], 1) for ltrb in (one, two))
    assert iou(a, b).min() > 0


# ------------------------------------------------------------------ the explorer
def test_words():
    say = "words(...data)"
    apart = in_node("box_pair", say, [[24, 76, 94, 146], [176, 66, 266, 156]])
    assert apart.startswith("IoU 0.00, GIoU −0.") and apart.endswith(
        "L1 344 pixels. 1 − IoU is silent. 1 − GIoU pushes the left side the wrong way."
    )
    shifted = in_node("box_pair", say, [[0, 0, 40, 40], [5, 5, 45, 45], 20, "GIoU"])
    assert shifted.startswith("After 20 steps with GIoU: IoU 0.62, GIoU 0.")
    assert "L1 and 1 − IoU push every side towards its true place. 1 − GIoU pushes no side the wrong way." in shifted
    assert "1 − IoU is silent." in in_node("box_pair", say, [[0, 0, 4, 4], [4, 1, 8, 3]])  # they touch
    assert in_node("box_pair", say, [[1, 1, 9, 9]] * 2).endswith("The two boxes are the same.")
    point = in_node("box_pair", say, [[3, 3, 3, 3], [0, 0, 10, 8]])
    assert point.endswith("1 − IoU is silent. 1 − GIoU is silent, too.")


def test_explorer():
    pytest.importorskip("anywidget", reason="the explorers need anywidget")
    from vfnet_edu.widgets import BoxPairExplorer

    explorer = BoxPairExplorer()
    assert explorer.measures["IoU"] == 0 and explorer.measures["L1"] == 344 and -1 < explorer.measures["GIoU"] < 0
    assert explorer.pushes["L1"].tolist() == [1, -1, 1, 1] and not explorer.pushes["IoU"].any()
    left, _, right, _ = explorer.pushes["GIoU"].tolist()
    assert left < 0 < right  # the surprise it opens on: the far side goes the wrong way
    explorer.box = explorer.truth
    assert explorer.measures["IoU"] == 1 and not any(push.any() for push in explorer.pushes.values())
