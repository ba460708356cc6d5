"""How `bench peers` measures: contenders take turns, A B A B, so that whatever else the machine does falls on all."""

import gc
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch


def nothing() -> None:
    """Before and after a turn that needs no preparation."""


@dataclass(frozen=True)
class Turn:
    """What a contender does when it is its turn."""

    run: Callable[[], object]  # only this is timed
    before: Callable[[], object] = nothing
    after: Callable[[], object] = nothing


@dataclass(frozen=True)
class Row:
    """One task, and who competes in it."""

    title: str  # with fields of the sizes, as in "{0.batch} images"
    contenders: dict[str, Callable[[Any], Turn]]  # name -> function of the sizes; the others are compared to the first
    images: Callable[[Any], int] = lambda sizes: 0  # that one turn works through; 0: its time says more than its rate
    threads: bool = True  # whether the number of threads matters; else it is measured once
    memory: bool = True  # whether the memory of one process says something


class Skipped(Exception):
    """A contender cannot take part here; the message says why."""


def compete(row: Row, sizes: object, repeats: int, threads: int) -> list[dict]:
    """Times of all contenders of a row, in seconds; the first round warms up and does not count.

    Returns:
        per contender its name with its times, or with the reason for which it was skipped.
    """
    set_threads(threads)
    turns: dict[str, Turn] = {}
    found: list[dict[str, Any]] = []
    for name, make in row.contenders.items():
        found.append({"contender": name})
        try:
            turns[name] = make(sizes)
            found[-1]["seconds"] = []
        except Skipped as reason:
            found[-1]["skipped"] = str(reason)
    for number in range(repeats + 1):
        for result in found:
            if turn := turns.get(result["contender"]):
                seconds = timed(turn)
                result["seconds"] += [seconds] if number else []
    return found


def timed(turn: Turn) -> float:
    """Seconds by the clock on the wall."""
    turn.before()
    gc.collect()
    began = time.perf_counter()
    turn.run()
    seconds = time.perf_counter() - began
    turn.after()
    return seconds


def set_threads(threads: int) -> None:
    """Of all libraries that take a number; workers of a data loader have one each anyway."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def peak_megabytes(row: Row, contender: str, sizes: object, threads: int) -> float | None:
    """Memory of this process at the worst moment of a first turn, beyond what it held before.  None: unknown.

    Call it in a process of its own: memory that was given back once is often kept by the process, and would hide what
    comes later.
    """
    set_threads(threads)
    turn = row.contenders[contender](sizes)
    turn.before()
    gc.collect()
    with suppress(OSError):  # Linux forgets the peak so far
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = resident_megabytes()
    turn.run()
    after = resident_megabytes()
    return after[1] - before[0] if before and after else None


def resident_megabytes() -> tuple[float, float] | None:
    """Of this process, now and at most.  (Not from getrusage: on Linux a new process starts with its parent's peak.)"""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    kilobytes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return int(kilobytes["VmRSS"]) / 1e3, int(kilobytes["VmHWM"]) / 1e3


def apart(function: Callable, *arguments):
    """What `function` returns in a new process, in which nothing has happened before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_as_usual, multiprocessing.get_start_method(), function, *arguments).result()


def _as_usual(start_method: str, function: Callable, *arguments):
    """A spawned process would spawn its data-loading processes, too; elsewhere they start in the system's usual way."""
    multiprocessing.set_start_method(start_method, force=True)
    return function(*arguments)
