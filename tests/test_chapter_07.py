"""Chapter 7: the explorer's arithmetic against the library, its state and words, and what the exercises ask."""

import itertools
import math

import pytest
import torch
from javascript import in_node

from vfnet_edu.exercises import chapter_07
from vfnet_edu.losses import focal_loss

pytest.importorskip("anywidget", reason="the explorers need anywidget")
from vfnet_edu.widgets import ImbalanceExplorer  # noqa: E402

PHOTOGRAPH = {"positives": 38, "background": 1_791_962}


def by_autograd(state: dict) -> tuple[float, float]:
    """The sums of all pushes down and up, from the package's focal loss in float64."""
    z = torch.full((2,), state["bias"], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0.0, 1.0], dtype=torch.float64)
    (grad,) = torch.autograd.grad(focal_loss(z, target, state["alpha"], state["gamma"]).sum(), z)
    return state["background"] * grad[0].item(), -state["positives"] * grad[1].item()


def states() -> list[dict]:
    """Everything the sliders reach, ends included."""
    values = ((0.0, 0.5, 1.0, 2.0, 4.0), (0.05, 0.25, 0.5, 0.95), (-12.0, -4.6, -1.0, 0.0, 2.0))
    rows = itertools.product(*values, (PHOTOGRAPH, {"positives": 24, "background": 2664}))
    return [{"gamma": g, "alpha": a, "bias": b, **counts} for g, a, b, counts in rows]


def test_pushes_of_the_page_are_those_of_the_library():
    for state, told in zip(states(), in_node("imbalance", "data.map(pushes)", states()), strict=True):
        down, up = by_autograd(state)
        wanted = {"down": down, "up": up, "share": down / (down + up)}
        assert told == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def test_at_the_balance_both_sums_are_equal():
    for state, bias in zip(states(), in_node("imbalance", "data.map(balance)", states()), strict=True):
        down, up = by_autograd({**state, "bias": bias})
        assert down == pytest.approx(up, rel=1e-9)  # torch's BCE loses digits where p is small: z - logsigmoid(z)
        if state["gamma"] == 0:
            p = chapter_07.balance.reference(state["positives"], state["background"], state["alpha"])
            assert 1 / (1 + math.exp(-bias)) == pytest.approx(p, rel=1e-12)


def test_words():
    state = {"gamma": 2, "alpha": 0.25, "bias": -math.log(99), **PHOTOGRAPH}
    said = in_node("imbalance", "words(data)", state)
    assert said == (
        "Every score at 0.010: background makes 99.8 % of the push with cross-entropy, 29 % with γ = 2.00 and α = 0.25:"
        " 1,791,962 scores push down with 4.02 in all, 38 push up with 10.1. In balance: at 0.000021 with "
        "cross-entropy, at 0.014 with γ = 2.00 and α = 0.25."
    )
    assert in_node("imbalance", "[0.5, 0.011, 0.99, 0.99752, 0.0001, 0.999975].map(percent)") == [
        "50 %", "1.1 %", "99.0 %", "99.8 %", "0.010 %", "99.997 %",
    ]  # fmt: skip


def test_state_of_the_explorer():
    w = ImbalanceExplorer(gamma=0)
    assert (w.gamma, w.alpha, w.positives, w.background) == (0.0, 0.25, 38, 1_791_962)
    assert 1 / (1 + math.exp(-w.bias)) == pytest.approx(0.01)
    with pytest.raises(Exception, match="1.5"):
        w.alpha = 1.5


def test_the_exercises_agree_with_autograd():
    for prior in (0.01, 0.3, 0.6):
        assert torch.tensor(chapter_07.bias.reference(prior)).sigmoid().item() == pytest.approx(prior, rel=1e-6)
    for positives, background, alpha in chapter_07.balance.cases:
        p = chapter_07.balance.reference(positives, background, alpha)
        state = {"gamma": 0, "alpha": alpha, "bias": math.log(p / (1 - p))}
        down, up = by_autograd({**state, "positives": positives, "background": background})
        assert down == pytest.approx(up, rel=1e-12)
