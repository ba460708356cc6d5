"""Devices, precisions and ranks: where this process computes and how, and which it is of how many."""

import contextlib
import ctypes
import datetime
import os
import sys
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from vfnet_edu.runtime.errors import UserError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISION = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # what autocast computes in; None: not at all
INSTRUCTIONS = {"bf16": ("avx512_bf16", "amx_bf16"), "fp16": ("avx512_fp16", "amx_fp16")}  # of a CPU; one is enough
TIMEOUT = datetime.timedelta(minutes=10)  # a lost rank is noticed after this; half an hour is PyTorch's default


@dataclass(frozen=True)
class Ranks:
    """This process among all of them."""

    rank: int
    world: int
    device: torch.device

    @property
    def main(self) -> bool:
        """The one that prints and writes."""
        return self.rank == 0

    def any(self, flags: Tensor) -> Tensor:
        """For each flag (F,) of 0 or 1, whether it is 1 on any rank; does not wait for the device.  -> (F,)

        All ranks must call this.
        """
        if self.world > 1:
            flags = flags.clone()
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return flags

    def wait(self) -> None:
        """Return once every rank has called this."""
        if self.world > 1:
            dist.barrier()


def setup(device: str = "auto") -> Ranks:
    """One process, unless torchrun says otherwise; NCCL between GPUs, gloo between CPUs.

    Raises:
        UserError: a device that this machine does not have.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {device}: PyTorch sees no GPU", remedy="`vfnet-edu doctor` says why")
    place = torch.device(device)
    if place.type == "cpu":
        keep_freed_memory()
    if "RANK" not in os.environ:
        return Ranks(0, 1, place)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=TIMEOUT)
    return Ranks(dist.get_rank(), dist.get_world_size(), place)


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    """The key of :data:`PRECISION` to compute in: `wanted`, where "auto" is bf16 if the device computes it, else fp32.

    Raises:
        UserError: an unknown precision, or one that the device would only imitate, more slowly than fp32.
    """
    if wanted == "auto":
        return "bf16" if computes("bf16", device) else "fp32"
    if wanted not in PRECISION:
        raise UserError(f"no precision {wanted!r}", remedy=f"choose one of auto, {', '.join(PRECISION)}")
    if PRECISION[wanted] and not computes(wanted, device):
        where = "this processor" if device.type == "cpu" else f"device {device}"
        needs = f", it needs {' or '.join(INSTRUCTIONS[wanted])}" if device.type == "cpu" else ""
        raise UserError(f"precision {wanted}: {where} cannot compute in it{needs}", remedy="take auto, or fp32")
    return wanted


def computes(precision: str, device: torch.device) -> bool:
    """Whether a device has instructions for bf16 or fp16; without them PyTorch imitates these, slower than fp32."""
    if device.type == "cpu":
        return any(torch.cpu.get_capabilities().get(name, False) for name in INSTRUCTIONS[precision])
    if device.type == "cuda" and precision == "bf16":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cuda"


def keep_freed_memory() -> None:
    """Let this process keep the memory that its tensors give back, for the next ones.

    By default the C library returns blocks of some megabytes to the system at once, and each new one costs a page fault
    for every 4 kB: a tenth of a small training step on a CPU.  Linux with glibc only; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, in bytes: its largest value
            mallopt(-1, 2**29)  # M_TRIM_THRESHOLD
            mallopt(-2, 2**26)  # M_TOP_PAD: what is taken from the system at a time


def close() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
