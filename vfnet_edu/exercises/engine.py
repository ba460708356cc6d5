"""Exercises that answer: right, or a hint that depends on which mistake was made.

An exercise knows a correct function, and the mistakes that readers make as functions of their own.  An answer that
behaves like one of those on every case earns the hint that belongs to it.
"""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


class NotYet(AssertionError):
    """A wrong answer, raised only in strict mode (``VFNET_EDU_STRICT=1``), which the tests use."""


class TooLong(Exception):
    """An answer has computed for longer than PATIENCE."""


PATIENCE = 5.0  # seconds of computing


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TooLong in what computes for longer, where that can be done: not on Windows, not outside the main thread.

    The processor's time counts, so that a busy machine makes nobody's answer wrong.
    """
    if not hasattr(signal, "SIGVTALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        raise TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@dataclass(frozen=True)
class Exercise:
    """A question about one function; call it with an answer.

    >>> from vfnet_edu import exercises
    >>> exercises.chapter_01.cells(my_cells)
    """

    name: str
    reference: Callable  # the right answer
    cases: Sequence[tuple]  # arguments on which answers are compared
    mistakes: Sequence[tuple[Callable, str]]  # what a reader may have written instead, and the hint it earns
    right: str  # said to a right answer: what has been understood
    hint: str  # said to a wrong answer that is none of the mistakes
    tolerance: float = 1e-4  # absolute and relative
    describe: Callable[[tuple], str] = field(default=lambda case: ", ".join(_short(x) for x in case))

    def __call__(self, answer: Callable) -> None:
        """Print the verdict on `answer`; it is called on every case and may do anything, nothing escapes but a hint.

        Raises:
            NotYet: the answer is wrong, and the environment says ``VFNET_EDU_STRICT=1``.
        """
        verdict, is_right = self.judge(answer)
        print(f"{'Right.' if is_right else 'Not yet.'} {verdict}")
        if not is_right and os.environ.get("VFNET_EDU_STRICT") == "1":
            raise NotYet(f"{self.name}: {verdict}")

    def judge(self, answer: Callable) -> tuple[str, bool]:
        """(what to tell the reader, whether the answer is right)"""
        if not callable(answer):
            return f"Give the function itself, not {_short(answer)}: write the name without parentheses.", False
        given, wanted = [], [self.reference(*_copies(case)) for case in self.cases]
        for case in self.cases:
            try:
                with at_most(PATIENCE):
                    given.append(answer(*_copies(case)))
            except (Exception, SystemExit) as error:  # whatever a reader's code raises is reported, not raised
                if isinstance(error, NotImplementedError):
                    return "Replace the body of the function, then run the cell again.", False
                if isinstance(error, TooLong):
                    return f"On {self.describe(case)} it goes on and on: is there a loop that never ends?", False
                what = ": ".join(filter(None, (type(error).__name__, str(error).strip().rstrip("."))))
                return f"On {self.describe(case)} it stops with {what}. {self.hint}", False
        if all(value is None for value in given):
            return "The function returns nothing yet: write its body, and `return` the result.", False
        if self._same(given, wanted):
            return self.right, True
        for mistake, hint in self.mistakes:
            if self._same(given, [mistake(*_copies(case)) for case in self.cases]):
                return hint, False
        slip = _slip(given, wanted, self.tolerance)
        return (f"{slip} {self.hint}" if slip else self._first_difference(given, wanted)), False

    def _same(self, a: Sequence, b: Sequence) -> bool:
        return all(alike(x, y, self.tolerance) for x, y in zip(a, b, strict=True))

    def _first_difference(self, given: Sequence, wanted: Sequence) -> str:
        for case, mine, truth in zip(self.cases, given, wanted, strict=True):
            if kind(_as_kind_of(truth, mine)) != kind(truth):
                return f"{self.hint} On {self.describe(case)} you return {kind(mine)}; it should be {kind(truth)}."
            if not alike(mine, truth, self.tolerance):
                if not case:  # a single question: the right value would be the whole answer
                    return f"{self.hint} You return {_short(mine)}."
                return f"{self.hint} On {self.describe(case)} you return {_short(mine)}; it should be {_short(truth)}."
        raise AssertionError("no difference to tell")


def alike(a, b, tolerance: float) -> bool:
    """Whether two answers are equal up to `tolerance`: numbers, tensors, strings, or containers of them."""
    a = _as_kind_of(b, a)
    if kind(a) != kind(b):
        return False
    if isinstance(b, Tensor):
        return torch.allclose(torch.as_tensor(a).double(), b.double(), tolerance, tolerance, equal_nan=True)
    if isinstance(b, tuple | list):
        return len(a) == len(b) and all(alike(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(b, bool | str) or b is None:
        return a == b
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance) or (a != a and b != b)


def kind(value) -> str:
    """What an answer is, in words a reader can act on; answers of different kinds are never alike."""
    if isinstance(value, Tensor):
        scalar = value.dim() == 0 and value.dtype != torch.bool
        return "a number" if scalar else f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, bool):
        return "True or False"
    if isinstance(value, int | float) or (hasattr(value, "ndim") and value.ndim == 0):  # a number of numpy, too
        return "a number"
    if isinstance(value, tuple | list):
        return f"{len(value)} value{'' if len(value) == 1 else 's'}"
    return {"NoneType": "nothing", "str": "text"}.get(type(value).__name__, f"a {type(value).__name__}")


def _as_kind_of(wanted, given) -> Any:
    """A tensor or array where a list is asked for, and a list where a tensor is; bools of numpy and torch."""
    if isinstance(wanted, bool) and str(getattr(given, "dtype", "")) in ("bool", "torch.bool") and given.ndim == 0:
        return bool(given)
    if isinstance(wanted, tuple | list) and hasattr(given, "tolist") and getattr(given, "ndim", 0):
        return given.tolist()
    if isinstance(wanted, Tensor) and not isinstance(given, Tensor) and isinstance(given, tuple | list | np.ndarray):
        try:
            return torch.as_tensor(given)
        except (ValueError, TypeError, RuntimeError):  # a ragged list, text
            return given
    return given


# ------------------------------------------------------------------ slips that can be made in any exercise
SLIPS: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (lambda x: -x, "The sizes are right and the sign is flipped."),
    (lambda x: x.sum(), "You return the sum of the right values, one number: they are wanted one by one."),
    (lambda x: x.mean(), "You return the mean of the right values, one number: they are wanted one by one."),
    (lambda x: x.unsqueeze(0), "The values are right, but they are packed once too often: drop the outer axis."),
    (lambda x: x.flip(-1) if x.dim() else x, "The values are right, but their order is reversed."),
    (lambda x: x.mT if x.dim() > 1 else x, "The values are right, but rows and columns are exchanged."),
    (lambda x: x.round(), "You have rounded: the values are not whole numbers."),
    (lambda x: 1 - x, "You return one minus the right values."),
]


def _slip(given: Sequence, wanted: Sequence, tolerance: float) -> str:
    """What an answer that is wrong in no way of its own has done to the right values; "" if nothing simple."""
    both = ((_numbers(a), _numbers(b)) for a, b in zip(given, wanted, strict=True))
    pairs = [(a, b) for a, b in both if a is not None and b is not None]
    if len(pairs) < len(given):  # text, or nothing, among them
        return ""
    if all(alike(a, b, tolerance) for a, b in pairs):  # nothing was done to the values: 1 for True
        return ""
    for change, hint in SLIPS:
        if all(alike(a, change(b), tolerance) for a, b in pairs):
            return hint
    return _factor(pairs)


def _factor(pairs: list[tuple[Tensor, Tensor]]) -> str:
    """One factor that all values are too large by."""
    if any(a.shape != b.shape for a, b in pairs):
        return ""
    a, b = (torch.cat([x.flatten() for x in part]) for part in zip(*pairs, strict=True))
    some = b != 0
    factors = a[some] / b[some]
    if some.sum() < 2 or not torch.allclose(factors, factors[:1], rtol=1e-4) or a[~some].any() or factors[0] == 0:
        return ""
    return f"Every value is {_short(float(factors[0]))} times what it should be."


def _numbers(value) -> Tensor | None:
    """A number, a tensor or a list of numbers as a tensor of float64."""
    try:
        return None if isinstance(value, bool | str) else torch.as_tensor(value).double()
    except (ValueError, TypeError, RuntimeError):
        return None


def _copies(case: tuple) -> tuple:
    """Answers may write into what they are given."""
    return tuple(x.clone() if isinstance(x, Tensor) else x for x in case)


def _short(value) -> str:
    if isinstance(value, Tensor):
        value = value.tolist() if value.numel() <= 12 else f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list) and len(value) <= 12:
        inner = ", ".join(_short(x) for x in value)
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."
