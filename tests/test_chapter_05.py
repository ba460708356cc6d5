"""Chapter 5: the explorer tells every point what torchvision's FCOS tells it, and says why."""

from types import SimpleNamespace

import pytest
import torch
from javascript import in_node
from torch import Tensor
from torchvision.models.detection.fcos import FCOS

from vfnet_edu.boxes import xyxy_to_ltrb
from vfnet_edu.data.shapes import CLASSES, VAL_START, draw_scene
from vfnet_edu.priors import grid_points

HEIGHT, WIDTH, RADIUS = 96, 128, 1.5
STRIDES = (8, 16, 32)


def points_of(stride: int) -> Tensor:
    return grid_points((-(-HEIGHT // stride), -(-WIDTH // stride)), stride).double()


def boxes(count: int, seed: int) -> Tensor:
    """(count, 4) float64: corners anywhere, so no two areas and no distance and a limit are equal."""
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    corners = corners * torch.tensor([WIDTH, HEIGHT])
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


def by_torchvision(truth: Tensor, unit: float) -> Tensor:
    """What FCOS of torchvision gives to every point of all levels: (P,).

    There a level learns from 4 to 8 anchors, so the side of an anchor decides where its limits are.
    """
    half = torch.cat([torch.full((len(points_of(s)), 1), s * unit / 16) for s in STRIDES]).double()
    points = torch.cat([points_of(s) for s in STRIDES])
    anchors = torch.cat([points - half, points + half], 1)
    keep = SimpleNamespace(compute_loss=lambda targets, outputs, anchors, matched: matched[0])
    asked = SimpleNamespace(center_sampling_radius=RADIUS * 8 / unit, head=keep)
    sizes = [len(points_of(s)) for s in STRIDES]
    return FCOS.compute_loss(asked, [{"boxes": truth}], None, [anchors], sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", [4, 8])
def test_owners_are_torchvisions(unit):
    owners = set()
    for seed in range(20):
        truth = boxes(6, seed)
        told = in_node(
            "point_targets",
            f"""(() => {{
              const ranges = limits([8, 16, 32], {unit}), rule = {{ radius: {RADIUS}, central: true, bySize: true }};
              return [8, 16, 32].flatMap((stride, i) =>
                pointsOf(stride, [{HEIGHT}, {WIDTH}]).map((p) => tell(p, stride, ranges[i], data, rule).owner));
            }})()""",
            truth.tolist(),
        )
        assert told == by_torchvision(truth, unit).tolist()
        owners |= set(told)
    assert owners == {-1, 0, 1, 2, 3, 4, 5}


def test_points_distances_and_the_rules_one_by_one():
    truth = boxes(40, seed=99)
    told = in_node(
        "point_targets",
        f"""pointsOf(8, [{HEIGHT}, {WIDTH}]).map((p) => [p, ...[[false, false], [true, false], [false, true]].map(
          ([central, bySize]) => tell(p, 8, [16, 64], data, {{ radius: {RADIUS}, central, bySize }}))])""",
        truth.tolist(),
    )
    points = points_of(8)
    assert [point for point, *_ in told] == points.tolist()
    ltrb = xyxy_to_ltrb(points[:, None], truth)  # (P, G, 4)
    got = torch.tensor([[view["ltrb"] for view in plain["views"]] for _, plain, *_ in told], dtype=torch.float64)
    torch.testing.assert_close(got, ltrb, rtol=1e-12, atol=1e-12)
    inside = ltrb.amin(-1) > 0
    middle = (truth[:, :2] + truth[:, 2:]) / 2
    near = (points[:, None] - middle).abs().amax(-1) < RADIUS * 8
    fits = (ltrb.amax(-1) > 16) & (ltrb.amax(-1) < 64)
    for n, wanted in enumerate((inside, inside & near, inside & fits), 1):
        assert torch.equal(torch.tensor([row[n]["claims"] for row in told]), wanted)
        assert wanted.any() and not wanted.all()


def test_the_nearest_point_stays_on_the_map():
    ask = "data.map((at) => nearestPoint(at, 16, [96, 128]))"
    assert in_node("point_targets", ask, [[7, 9], [-30, 500], [200, 40]]) == [[0, 16], [0, 80], [112, 48]]


def test_words():
    """Who gets the point, and for each other object around it one reason."""
    truth = [[12, 14, 66, 64], [30, 33, 52, 47], [2, 4, 90, 96], [26, 30, 57, 52]]
    names = ["ring 1", "star 2", "heart 3", "cross 4"]
    said = in_node(
        "point_targets",
        """data.cases.map(([point, central, bySize]) => {
          const rule = { radius: 1.5, central, bySize };
          return words(point, 8, [0, 32], tell(point, 8, [0, 32], data.truth, rule), data.names, rule);
        })""",
        {"truth": truth, "names": names, "cases": [[[40, 40], True, True], [[16, 80], True, True], [[120, 8], 1, 1]]},
    )
    assert said[0] == (
        "P3, point (40, 40): inside 4 objects. It learns star 2: l, t, r, b = 10, 7, 12, 7 px, "
        "which is 1.25, 0.88, 1.5, 0.88 strides. ring 1 wants this point, too; the smaller object gets it. "
        "heart 3: its farthest side is 56 px away, and P3 learns 0 to 32 px. "
        "cross 4 wants this point, too; the smaller object gets it."
    )
    assert said[1] == (
        "P3, point (16, 80): inside 1 object. It learns that it is background. "
        "heart 3: the point is not within 1.5 strides of its middle."
    )
    assert said[2] == "P3, point (120, 8): inside 0 objects. It learns that it is background."


def test_explorer():
    pytest.importorskip("anywidget", reason="the explorers need anywidget")
    from vfnet_edu.widgets import PointTargetsExplorer

    image, target = draw_scene(0, VAL_START)
    explorer = PointTargetsExplorer.of(image, target, CLASSES)
    assert explorer.size == [128, 128] and explorer.strides == [8, 16, 32]
    assert explorer.objects == target["boxes"].tolist() and len(explorer.names) == len(explorer.objects)
    assert explorer.image.startswith("data:image/png;base64,") and explorer.x % 8 == explorer.y % 8 == 0
    points = grid_points((16, 16), 8)
    around = (xyxy_to_ltrb(points[:, None], target["boxes"]).amin(-1) > 0).sum(1)
    here = int(explorer.y / 8) * 16 + int(explorer.x / 8)
    assert around[here] == around.max() and (around[:here] < around.max()).all()
    explorer.by_size = False
    assert {"level", "x", "y", "central", "by_size"} <= set(explorer.get_state())
