"""The engine of the exercises: every kind of answer gets a verdict, and nothing a reader's code does escapes."""

import math
import signal
import sys

import numpy as np
import pytest
import torch

from vfnet_edu import exercises
from vfnet_edu.exercises import engine
from vfnet_edu.exercises.engine import Exercise, NotYet, alike, kind

area = Exercise(
    name="area",
    reference=lambda w, h: w * h,
    cases=[(2.0, 3.0), (1.0, 0.5)],
    mistakes=[(lambda w, h: w + h, "That is the sum."), (lambda w, h: 2 * (w + h), "That is the outline.")],
    right="Width times height.",
    hint="Think of tiles.",
)


def test_right_answers_and_each_mistake():
    assert area.judge(lambda w, h: h * w) == ("Width times height.", True)
    assert area.judge(lambda w, h: h + w) == ("That is the sum.", False)
    assert area.judge(lambda w, h: 2 * w + 2 * h) == ("That is the outline.", False)


def test_an_answer_that_is_wrong_in_its_own_way_sees_the_first_difference():
    told, right = area.judge(lambda w, h: w * h if w > 1 else 7.0)
    assert not right and told == "Think of tiles. On 1, 0.5 you return 7; it should be 0.5."
    told, right = area.judge(lambda w, h: (w, h))
    assert not right and "you return 2 values; it should be a number" in told


def test_lists_and_tensors_say_the_same():
    pair = Exercise("pair", lambda x: (x, 2 * x), [(1.0,), (3.0,)], [], "yes", "no")
    assert pair.judge(lambda x: torch.tensor([x, 2 * x]))[1]
    assert pair.judge(lambda x: np.array([x, 2 * x]))[1]
    assert not pair.judge(lambda x: torch.tensor([x, x]))[1]
    double = Exercise("double", lambda x: 2 * x, [(torch.ones(3),)], [], "yes", "no")
    for truth in (np.bool_(True), torch.tensor(True)):
        assert alike([truth], [True], 0) and not alike([truth], [False], 0)
    assert double.judge(lambda x: [2.0, 2.0, 2.0])[1] and double.judge(lambda x: np.full(3, 2.0))[1]
    assert "2 values" in double.judge(lambda x: [[1.0], [2.0, 3.0]])[0]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda x: -2 * x, "the sign is flipped"),
        (lambda x: (2 * x).sum(), "the sum of the right values"),
        (lambda x: (2 * x).mean(), "the mean of the right values"),
        (lambda x: [(2 * x).tolist()], "packed once too often"),
        (lambda x: 2 * x.flip(-1), "reversed"),
        (lambda x: (2 * x).T, "rows and columns"),
        (lambda x: (2 * x).round(), "rounded"),
        (lambda x: 1 - 2 * x, "one minus"),
        (lambda x: 6 * x, "Every value is 3 times what it should be"),
        (lambda x: 2 * x + 1, "it should be"),
        (lambda x: 0 * x, "it should be"),
        (lambda x: "six", "you return text"),
    ],
)
def test_a_slip_that_any_exercise_knows(answer, told):
    cases = [(torch.tensor([[0.1, 0.7], [1.4, 0.0]]),), (torch.tensor([[3.3, 2.1], [0.2, 0.9]]),)]
    double = Exercise("double", lambda x: 2 * x, cases, [], "yes", "Twice.")
    verdict, right = double.judge(answer)
    assert not right and told in verdict and "Twice." in verdict


def test_one_for_true_is_no_slip_of_another_kind():
    inside = Exercise("inside", lambda x: [x > 0, x > 1], [(2.0,), (0.5,)], [], "yes", "Two masks.")
    assert inside.judge(lambda x: [int(x > 0), int(x > 1)])[0].startswith("Two masks. On 2 you return [1, 1]")


def test_stubs_and_errors_are_told_not_raised():
    def not_yet(w, h):
        raise NotImplementedError

    assert "write its body" in area.judge(lambda w, h: None)[0]
    assert "Replace the body" in area.judge(not_yet)[0]
    crash = "On 2, 3 it stops with ZeroDivisionError: division by zero. Think of tiles."
    assert area.judge(lambda w, h: 1 / 0)[0] == crash
    assert "TypeError" in area.judge(lambda w: w)[0]
    assert "without parentheses" in area.judge(6.0)[0]


@pytest.mark.skipif(not hasattr(signal, "SIGVTALRM"), reason="this system has no alarm that counts computing")
def test_an_endless_loop_ends(monkeypatch):
    def endless(w, h):
        while True:
            w = w + h

    monkeypatch.setattr(engine, "PATIENCE", 0.2)
    before = signal.getsignal(signal.SIGVTALRM)
    assert area.judge(endless) == ("On 2, 3 it goes on and on: is there a loop that never ends?", False)
    assert area.judge(lambda w, h: w * h)[1]
    assert signal.getsignal(signal.SIGVTALRM) is before and signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0


def test_leaving_is_no_way_out():
    assert "SystemExit" in area.judge(lambda w, h: sys.exit(3))[0]


def test_it_prints_and_strict_mode_raises(capsys, monkeypatch):
    monkeypatch.delenv("VFNET_EDU_STRICT", raising=False)
    area(lambda w, h: w + h)
    area(lambda w, h: w * h)
    assert capsys.readouterr().out == "Not yet. That is the sum.\nRight. Width times height.\n"
    monkeypatch.setenv("VFNET_EDU_STRICT", "1")
    area(lambda w, h: w * h)
    with pytest.raises(NotYet, match="area: That is the sum"):
        area(lambda w, h: w + h)


def test_answers_cannot_change_what_they_are_compared_with():
    double = Exercise("double", lambda x: 2 * x, [(torch.ones(3),)], [], "yes", "no")
    assert double.judge(lambda x: x.mul_(2))[1]
    assert double.judge(lambda x: x.mul_(2))[1]
    assert not double.judge(lambda x: x)[1]


def test_alike():
    assert alike(torch.tensor(2.0), 2, 1e-6) and alike(torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan]), 0)
    assert alike([1.0, (2, 3)], [1.0, (2, 3)], 0) and not alike([1.0], [1.0, 2.0], 0)
    assert not alike(True, 1, 0) and alike(True, True, 0)
    assert not alike(torch.ones(2), torch.ones(2, 1), 0) and kind(torch.ones(2, 1)) == "a tensor of shape (2, 1)"
    assert alike(torch.tensor(3), 3, 0) and alike("P3", "P3", 0) and not alike("P3", 3, 0)


# ------------------------------------------------------------------ every exercise of the book
EVERY = [
    pytest.param(one, id=f"{chapter}-{one.name}")
    for chapter in exercises.__all__
    for one in vars(getattr(exercises, chapter)).values()
    if isinstance(one, Exercise)
]


@pytest.mark.parametrize("exercise", EVERY)
def test_every_mistake_has_a_hint_of_its_own(exercise):
    assert exercise.judge(exercise.reference) == (exercise.right, True)
    told = [exercise.judge(mistake) for mistake, _ in exercise.mistakes]
    assert told == [(hint, False) for _, hint in exercise.mistakes]
    assert len({hint for hint, _ in told}) == len(told) >= 6


@pytest.mark.parametrize("exercise", EVERY)
def test_an_answer_that_is_none_is_told_so(exercise):
    for nothing in (None, "text", 3, lambda *_: 1 / 0):
        assert not exercise.judge(nothing)[1]
    told, right = exercise.judge(lambda *case: None)
    assert not right and "returns nothing" in told and "write its body" in told
    told, right = exercise.judge(lambda *case: -1.0)
    assert not right and exercise.hint in told
