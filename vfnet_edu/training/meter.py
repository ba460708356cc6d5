"""What the loop wants to know while it runs: losses, speed, and whether somebody asked it to stop."""

import contextlib
import math
import signal
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vfnet_edu.runtime.devices import Ranks
from vfnet_edu.runtime.errors import UserError


class Meter:
    """Mean losses and speed since the last :meth:`take`."""

    def __init__(self):
        self.sums: dict[str, float] = {}
        self.parts = self.images = 0
        self.waited, self.began = 0.0, time.perf_counter()

    def next(self, batches: Iterator):
        """The next batch; the time it takes to come is counted."""
        began = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - began
        return batch

    def add(self, passes: Sequence[dict[str, float]], images: int) -> None:
        """One step: the losses of its forward passes, which saw `images` images together (in all processes)."""
        for losses in passes:
            for name, value in losses.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
        self.parts, self.images = self.parts + len(passes), self.images + images

    def short(self) -> str:
        """For the progress bar."""
        elapsed = time.perf_counter() - self.began
        losses = "  ".join(f"{name} {value / self.parts:.3f}" for name, value in self.sums.items())
        return f"{losses}  {self.images / elapsed:.1f} images/s  data {self.waited / elapsed:.0%}"

    def take(self) -> dict[str, float]:
        """For the log; then start over."""
        elapsed = time.perf_counter() - self.began
        record = {f"loss_{name}": value / self.parts for name, value in self.sums.items()}
        record["loss"] = math.fsum(record.values())
        record |= {"images_per_second": self.images / elapsed, "data_share": self.waited / elapsed}
        self.__init__()
        return record


def read_losses(
    passes: Sequence[dict[str, Tensor]], asked: bool, ranks: Ranks
) -> tuple[list[dict[str, float]], bool, bool]:
    """All that the host needs to know of a step, in one transfer.  All ranks must call this.

    Args:
        passes: the loss terms of each forward pass, scalars on the device.
        asked: whether this process has been asked to stop.
        ranks: of this process.

    Returns:
        the terms as numbers; whether any of them is not finite on any rank; whether any rank has been asked to stop.
    """
    names = list(passes[0])
    terms = torch.stack([losses[name] for losses in passes for name in names]).detach()  # (T * passes,)
    flags = torch.stack([(~terms.isfinite()).any().to(terms.dtype), terms.new_full((), asked)])  # (2,)
    *numbers, broken, stopping = torch.cat([terms, ranks.any(flags)]).tolist()
    rows = [numbers[i : i + len(names)] for i in range(0, len(numbers), len(names))]
    return [dict(zip(names, row, strict=True)) for row in rows], broken > 0, stopping > 0


class Stop:
    """SIGTERM, SIGUSR1 or the first Ctrl-C set a flag that the loop reads; a second Ctrl-C ends at once."""

    def __init__(self):
        self.signal = 0
        for name in ("SIGTERM", "SIGUSR1", "SIGINT"):
            if hasattr(signal, name):  # Windows has no SIGUSR1
                signal.signal(getattr(signal, name), self._ask)

    def _ask(self, number: int, _frame) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    @property
    def asked(self) -> bool:
        return self.signal != 0

    @contextlib.contextmanager
    def explains(self, code: int) -> Iterator[None]:
        """An error with this exit code is put down to the signal, if there was one: it reaches data workers, too."""
        try:
            yield
        except UserError as error:
            if error.code == code:
                self.poll()
            raise

    def poll(self, *_) -> None:
        """Raise if asked; for long stretches without a step.

        Raises:
            UserError: with exit code 130 (Ctrl-C) or 143.
        """
        if self.signal:
            code = 130 if self.signal == signal.SIGINT else 143
            raise UserError("interrupted; the state is saved", "add --resume to the same command", code=code)
