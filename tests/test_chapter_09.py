"""Chapter 9: the explorers' arithmetic against the library, their state, and the verdicts of the exercises."""

import json

import pytest
import torch
from javascript import in_node

from vfnet_edu import losses
from vfnet_edu.exercises import chapter_09

pytest.importorskip("anywidget")
from vfnet_edu.widgets import LossExplorer, RankingExplorer  # noqa: E402
from vfnet_edu.widgets.ranking import ranking_scene  # noqa: E402


# ------------------------------------------------------------------ LossExplorer
def points() -> list[tuple[float, float, float, float]]:
    """(p, q, alpha, gamma): positives, background, both ends."""
    g = torch.Generator().manual_seed(9)
    rows = torch.rand(300, 4, generator=g, dtype=torch.float64)
    rows[:, 0] = 0.005 + 0.99 * rows[:, 0]
    rows[::3, 1], rows[::10, 1] = 0.0, 1.0
    rows[:, 3] = 4 * rows[:, 3]
    rows[::4, 3] = 2.0
    return rows.tolist()


def by_hand(name: str, z, q, alpha: float, gamma: float):
    if name == "focal":  # one alpha for all: the weight of the background
        return losses.focal_loss(z, (q > 0).to(z), 1 - alpha, gamma)
    if name == "quality":
        return losses.quality_focal_loss(z, q, gamma)
    return losses.varifocal_loss(z, q, alpha, gamma)


@pytest.mark.parametrize("name", ["focal", "quality", "varifocal"])
def test_losses_and_gradients_of_the_page_are_those_of_the_library(name):
    rows = points()
    told = in_node("loss", f"data.map((r) => [{name}(...r), {name}Gradient(...r)])", rows)
    for (p, q, alpha, gamma), (value, gradient) in zip(rows, told, strict=True):
        p, q = torch.tensor([p, q], dtype=torch.float64)
        z = (p.log() - torch.log1p(-p)).requires_grad_()
        loss = by_hand(name, z, q, alpha, gamma)
        loss.backward()
        assert value == pytest.approx(loss.item(), rel=1e-12, abs=1e-12)
        assert gradient == pytest.approx(z.grad.item(), rel=1e-12, abs=1e-12)


def test_the_line_in_words_follows_the_state():
    states = [(0.3, 0.8), (0.9, 0.8), (0.8, 0.8), (0.3, 0.0)]
    low, high, rest, ground = in_node("loss", "data.map(([p, q]) => words(p, q, 0.75, 2))", states)
    assert "FL pushes the logit up 0.17, QFL up 0.34, VFL up 0.40" in low and "all three raise" in low
    assert "VFL down 0.08" in high and "FL still raises" in high
    assert "VFL nowhere" in rest and "floor is q·H(q) = 0.40" in rest
    assert "Background" in ground and "same loss" in ground


def test_state_of_the_loss_explorer():
    w = LossExplorer(q=0.5)
    assert (w.p, w.q, w.alpha, w.gamma) == (0.3, 0.5, 0.75, 2.0)
    w.q = 0
    with pytest.raises(Exception, match="1.2"):
        w.q = 1.2


# ------------------------------------------------------------------ RankingExplorer
def scene() -> dict:
    image = torch.full((3, 40, 60), 128, dtype=torch.uint8)
    target = {"boxes": torch.tensor([[10.0, 10, 30, 30], [40, 10, 50, 20]]), "labels": torch.tensor([1, 0])}
    boxes = torch.tensor([[10.0, 10, 30, 26], [10, 10, 30, 29], [12, 10, 30, 30], [40, 10, 50, 20], [0, 0, 5, 5]])
    scores = torch.tensor([[0.1, 0.9], [0.2, 0.7], [0.0, 0.8], [0.9, 0.95], [0.1, 0.1]])
    return ranking_scene("scene 1", image, target, 0, boxes, {"focal": scores, "varifocal": boxes[:, :2] / 100}, "ab")


def test_a_scene_holds_the_rivals_of_one_object_best_first():
    made = scene()
    assert made["what"] == "b" and made["size"] == [60, 40]
    assert made["ious"] == [0.95, 0.9, 0.8]  # neither the box of the other object nor the one far away
    assert made["boxes"][0] == [10.0, 10.0, 30.0, 29.0]
    assert made["scores"]["focal"] == [0.7, 0.8, 0.9]  # of the object's own class
    assert made["image"].startswith("data:image/jpeg;base64,") and len(json.dumps(made)) < 10_000


def test_state_of_the_ranking_explorer():
    w = RankingExplorer([scene()], rank=2)
    assert (w.scene, w.ranker, w.rank) == (0, "focal", 2)


def test_rankings_of_the_page():
    made = scene()
    by_focal, by_iou = in_node("ranking", "['focal', 'iou'].map((r) => ranking(data, r))", made)
    assert by_focal == {"indices": [2, 1, 0], "best": 3, "first": 0.8}
    assert by_iou == {"indices": [0, 1, 2], "best": 1, "first": 0.95}
    said = in_node("ranking", "[words(data, 'focal', 2), words(data, 'iou', 1)]", made)
    assert said[0] == (
        "Ranked by the focal score, number 1 has IoU 0.80; the best box, IoU 0.95, is number 3. NMS keeps number 1. "
        "You see number 2: IoU 0.90."
    )
    assert "Ranked by the true IoU, number 1 is the best box" in said[1]
    assert in_node("ranking", "order(data)", [0.5, 0.9, 0.5]) == [1, 0, 2]  # ties keep their order
    assert in_node("ranking", "view(data)", made) == [0, 0, 40]  # around the object, inside the image


# ------------------------------------------------------------------ exercises
def test_the_exercises_agree_with_autograd_and_with_a_search():
    z = torch.linspace(-5, 5, 41, dtype=torch.float64)
    for q in (0.0, 0.3, 0.9):
        at = z.clone().requires_grad_()
        target = torch.full_like(z, q)
        losses.varifocal_loss(at, target).sum().backward()
        assert torch.allclose(chapter_09.gradient.reference(z, target), at.grad, atol=1e-12)
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    for q in (0.2, 0.8):
        values = losses.varifocal_loss(p.logit(), torch.full_like(p, q))
        where, floor = chapter_09.minimum.reference(q)
        assert p[values.argmin()].item() == pytest.approx(where, abs=1e-9)
        assert values.min().item() == pytest.approx(floor, abs=1e-9)
