"""A training step lets the device run ahead: what makes the host wait for it is known, place by place."""

import itertools
import json
import sys
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small import small
from torch.overrides import TorchFunctionMode

import vfnet_edu
from vfnet_edu import train
from vfnet_edu.models.detector import build
from vfnet_edu.runtime.devices import Ranks
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.training.learner import make_learner
from vfnet_edu.training.meter import Meter, read_losses
from vfnet_edu.training.plan import Plan

ROOT = Path(vfnet_edu.__file__).parent
READS = set(  # of a tensor: the host wants its values, or a shape that depends on them
    "item tolist numpy cpu nonzero masked_select unique bincount equal allclose"
    " __bool__ __int__ __float__ __index__ __contains__".split()
)

WAITS = {  # of one forward pass on a GPU
    ("models/heads/vfnet.py", "loss", "nonzero"): "the positives; the losses read as the paper writes them, which is"
    " worth more than this wait: 0.23 % of a step in the one published measurement",
}
WAITS_OF_A_STEP = {("training/meter.py", "read_losses", "tolist"): "losses, finite or not, asked to stop or not"}
NO_WAITS = {  # found on the CPU, where this test runs, but no wait on a GPU
    ("assigners.py", "assign_images", "nonzero"): "of a mask that is made on the host",
    ("assigners.py", "assign_images", "__int__"): "of a mask that is made on the host",
    ("assigners.py", "nearest", "mask"): "the search by blocks is for CPUs",
    ("ops/star/columns.py", "_order", "bincount"): "the star's engine for CPUs",
    ("ops/star/columns.py", "_order", "numpy"): "the star's engine for CPUs",
}


class Waits(TorchFunctionMode):
    """Counts the calls that would make the host wait if the tensors were on a GPU, by file, function and kind.

    Tensors that travel to a device count as "copy", unless they travel ``non_blocking``.
    """

    def __init__(self):
        super().__init__()
        self.found, self.lines = Counter(), set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if kind := kind_of(function.__name__, args, kwargs):
            frame = sys._getframe(1)
            ours = is_ours(frame)
            while frame and not is_ours(frame):
                frame = frame.f_back
            if frame and (ours or kind != "copy"):  # PyTorch's own code copies from device to device only
                place = Path(frame.f_code.co_filename).relative_to(ROOT).as_posix()
                self.found[place, frame.f_code.co_name, kind] += 1
                self.lines.add(f"{place}:{frame.f_lineno} {kind}")
        return function(*args, **kwargs)


def is_ours(frame):
    """A function of the package; a comprehension belongs to the function around it."""
    return Path(frame.f_code.co_filename).is_relative_to(ROOT) and frame.f_code.co_name[0] != "<"


def kind_of(name, args, kwargs):
    """How a call makes the host wait; None: it does not."""
    if name in READS:
        return name
    if name in ("__getitem__", "__setitem__"):
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return "mask" if any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in index) else None
    travels = name == "new_tensor" or name in ("tensor", "as_tensor") and kwargs.get("device") is not None
    if name == "to":
        travels = any(isinstance(a, torch.device | str | torch.Tensor) for a in (*args[1:], *kwargs.values()))
    return "copy" if travels and not kwargs.get("non_blocking") else None


def learning(device="cpu", passes=1, **optim):
    """A learner, its plan, and arguments of a step; two images of 288 pixels per pass, with two and three objects."""
    recipe = small("vfnet")
    recipe = replace(recipe, optim=replace(recipe.optim, **optim), data=replace(recipe.data, batch_size=2 * passes))
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 288, 288), dtype=torch.uint8, generator=generator) for _ in range(2 * passes)]
    boxes = torch.tensor([[20.0, 20, 90, 90], [100, 50, 250, 280], [5, 150, 60, 200]])
    targets = [
        {"boxes": boxes[: 2 + i % 2], "labels": torch.arange(2 + i % 2), "image_id": i} for i in range(2 * passes)
    ]
    learner = make_learner(build(recipe), Ranks(0, 1, torch.device(device)))
    learner.model.train()
    batches = itertools.cycle([(images[i : i + 2], targets[i : i + 2]) for i in range(0, 2 * passes, 2)])
    return learner, Plan(recipe, 2, passes, 1, 10), batches


def step(learner, plan, batches, folder=Path(), asked=False):
    stop, run = SimpleNamespace(asked=asked), SimpleNamespace(path=folder)
    return train.step(learner, plan, 0.01, batches, Meter(), run, stop)


@pytest.mark.parametrize("passes", [1, 2])
def test_one_wait_per_pass_and_one_per_step(passes):
    learner, plan, batches = learning(passes=passes, clip_norm=35.0)
    with Waits() as waits:
        step(learner, plan, batches)
    assert waits.found.keys() == (WAITS | WAITS_OF_A_STEP | NO_WAITS).keys(), "\n".join(sorted(waits.lines))
    assert all(waits.found[place] == passes for place in WAITS)
    assert all(waits.found[place] == 1 for place in WAITS_OF_A_STEP)


def test_waits_are_seen():
    """The counter is of little worth if it overlooks what it counts."""
    x = torch.arange(3.0)
    with Waits() as waits:
        read_losses([{"a": x[0]}], False, Ranks(0, 1, torch.device("cpu")))
    assert waits.found == {("training/meter.py", "read_losses", "tolist"): 1}
    for name, *args in (
        ("item", x), ("__bool__", x), ("nonzero", x), ("__getitem__", x, x > 1), ("__setitem__", x, (0, x > 1), 0.0),
        ("new_tensor", x, [1.0]), ("to", x, "cpu"), ("to", x, x), ("to", x, torch.device("cpu"), torch.float64),
    ):  # fmt: skip
        assert kind_of(name, args, {}), name
    assert kind_of("tensor", [1], {"device": "cpu"}) and not kind_of("tensor", [1], {})
    assert not kind_of("to", (x, torch.float64), {}) and not kind_of("__getitem__", (x, x.long()), {})
    assert not kind_of("to", (x, "cpu"), {"non_blocking": True}) and not kind_of("add", (x, x), {})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_waits_on_a_gpu():
    learner, plan, batches = learning("cuda", clip_norm=35.0)
    step(learner, plan, batches)  # compiles kernels, fills caches
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step(learner, plan, batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = [f"{w.filename}:{w.lineno}" for w in caught if "synchronizing" in str(w.message)]
    assert len(places) <= len(WAITS) + len(WAITS_OF_A_STEP), places


@pytest.mark.parametrize("bad", [0, 1])
def test_the_pass_that_diverged_is_named_and_the_weights_are_sound(tmp_path, bad):
    learner, plan, batches = learning(passes=2)
    before = {name: p.clone() for name, p in learner.model.state_dict().items()}
    network = learner.taught

    def breaks(images, targets):
        losses = network(images, targets)
        return losses | {"box": losses["box"] * torch.nan} if targets[0]["image_id"] == 2 * bad else losses

    learner.taught = breaks
    with pytest.raises(UserError, match="not finite") as caught:
        step(learner, plan, batches, tmp_path)
    assert caught.value.code == Exit.DIVERGED and "box nan" in str(caught.value)
    kept = json.loads((tmp_path / "diverged.json").read_text())
    assert kept["image_ids"] == [2 * bad, 2 * bad + 1] and "nan" in kept["losses"] and kept["lr"] == 0.01
    assert all(torch.equal(p, before[name]) for name, p in learner.model.state_dict().items())


def test_a_step_says_whether_to_stop():
    learner, plan, batches = learning()
    assert step(learner, plan, batches, asked=True) is True
    assert step(learner, plan, batches) is False


def test_one_fused_update():
    """No loop over parameters in Python, and no read-back of the learning rate or of the norm."""
    for optimizer in ("sgd", "adamw"):
        learner, _, _ = learning(optimizer=optimizer)
        assert all(group["fused"] for group in learner.optimizer.param_groups)
