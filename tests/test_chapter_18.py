"""What chapter 18 rests on: the planner computes as training does, and its command lines are ones that train takes."""

import json
import os
import random
import shlex
import subprocess
import sys

import numpy as np
import pytest
from javascript import in_node

from vfnet_edu import train
from vfnet_edu.data.loader import Order
from vfnet_edu.data.shapes import write_shape_scenes
from vfnet_edu.exercises import chapter_18
from vfnet_edu.recipe import DataConfig, OptimConfig, SWAConfig
from vfnet_edu.runtime.errors import UserError
from vfnet_edu.training import averaging, schedule

anywidget = pytest.importorskip("anywidget", reason="explorers need pip install 'vfnet_edu[notebook]'")


def planner(expression: str, data) -> list:
    return in_node("planner", expression, data)


@pytest.fixture(scope="module")
def rows():
    from vfnet_edu.widgets.planner import published

    return published()


def config_of(row: dict) -> OptimConfig:
    names = ("lr", "lr_batch", "schedule", "epochs", "warmup_steps", "warmup_start")
    return OptimConfig(**{name: row[name] for name in names}, drop_at=tuple(row["drop_at"]))


# ------------------------------------------------------------------ the same arithmetic
def test_learning_rates_are_those_of_training(rows):
    cosine = rows[0] | {"schedule": "cosine", "warmup_start": 0.25}
    linear = rows[0] | {"schedule": "linear"}
    cases = []
    for row in [*rows, cosine, linear]:
        for batch, per_epoch in ((16, 7330), (64, 1833), (8, 9)):
            total = per_epoch * row["epochs"]
            edges = (e * per_epoch + d for e in (7, 8, 11, 16, 22) for d in (-1, 0))
            steps = {0, 1, 249, 499, 500, 501, total - 1, *edges}
            cases += [(row, batch, per_epoch, step) for step in sorted(steps) if 0 <= step < total]
    code = """data.map(([r, batch, per, s]) =>
      learningRate(r, r.lr * (batch / r.lr_batch), s, Math.floor(s / per), per * r.epochs))"""
    found = planner(code, cases)
    for rate, (row, batch, per_epoch, step) in zip(found, cases, strict=True):
        config = config_of(row)
        base = config.lr * (batch / config.lr_batch)
        wanted = schedule.learning_rate(config, base, step, step // per_epoch, per_epoch * config.epochs)
        assert rate == pytest.approx(wanted, rel=1e-12, abs=1e-15)


def test_averaging_rates_are_those_of_training(rows):
    row = next(row for row in rows if row["swa_epochs"])
    config = SWAConfig(row["swa_epochs"], row["swa_lr"], row["swa_lr_end"])
    per_epoch, plan = 100, "makePlan(r, 8, 2, 32, 3200, 10)"
    steps = [41 * per_epoch, 41 * per_epoch + 37, 58 * per_epoch + 99]
    found = planner(f"((r) => data[1].map((s) => rateAt(r, {plan}, s)))(data[0])", [row, steps])
    for rate, step in zip(found, steps, strict=True):
        assert rate == pytest.approx(averaging.swa_rate(config, 2.0, step % per_epoch / per_epoch), rel=1e-12)


def test_batches_and_steps_are_those_of_training():
    rng = random.Random(0)
    cases = [(8, 2, 16, 117_266), (1, 2, 16, 117_266), (3, 2, 16, 100), (64, 2, 16, 100), (16, 2, 16, 999)]
    for _ in range(300):
        world, each, batch = rng.randint(1, 16), rng.randint(1, 16), rng.randint(1, 256)
        whole = world * each * rng.randint(1, 4)
        cases.append((world, each, rng.choice((batch, whole)), rng.randint(1, 5000)))
    code = """data.map(([world, each, batch, images]) => {
      const shape = batchShape(each, batch, world);
      return shape && [...shape, stepsPerEpoch(images, shape[0], world, shape[1])]; })"""
    accepted = 0
    for (world, each, batch, images), found in zip(cases, planner(code, cases), strict=True):
        try:
            shape = schedule.batch_shape(DataConfig(batch_size=batch, images_per_gpu=each), world)
        except UserError:
            assert found is None
            continue
        per_gpu, passes = shape
        order = Order(np.ones(images, bool), per_gpu, 0, range(1), 0, 0, world, passes)
        assert found == [per_gpu, passes, order.per_epoch() // passes]
        accepted += 1
    assert 100 < accepted < len(cases)


def test_the_remedy_is_the_one_of_training(rows):
    cases = [(3, 2, 16), (64, 2, 16), (5, 4, 18)]
    code = "data[1].map(([g, i, b]) => words(data[0], makePlan(data[0], g, i, b, 100, 1), g, b, 1, 0))"
    for (world, each, batch), said in zip(cases, planner(code, [rows[0], cases]), strict=True):
        with pytest.raises(UserError) as caught:
            schedule.batch_shape(DataConfig(batch_size=batch, images_per_gpu=each), world)
        multiple = str(caught.value).split("multiple of ")[1].rstrip(")")
        assert said.endswith(f"multiple of {multiple}.")


def test_the_sentence_of_the_published_run(rows):
    code = "words(data, makePlan(data, 8, 2, 16, 117266, 12), 8, 16, 12, 0)"
    said = planner(code, rows[0])
    assert said.startswith(
        "8 GPUs × 2 images = 16 images a step, learning rate 0.0100; 7,330 steps an epoch, 87,960 in all; "
        "at 12 images/s per GPU that takes 4.1 hours."
    )


def test_every_command_line_is_one_that_training_takes(rows, capsys):
    cases = [(rows[0], 1, 2, 16), (rows[2], 8, 4, 64), (rows[0], 12, 1, 24), (rows[-1], 64, 2, 128)]
    lines = planner("data.map((c) => command(...c))", cases)
    assert lines[0] == "python -m vfnet_edu.train vfnet_r50_1x --data coco/"
    assert lines[1].startswith("torchrun --nproc-per-node 8 -m vfnet_edu.train")
    assert "--nnodes 2 --nproc-per-node 6 " in lines[2] and "--nnodes 8 --nproc-per-node 8 " in lines[3]
    for line, (row, _, each, batch) in zip(lines, cases, strict=True):
        words = shlex.split(line)
        train.main([*words[words.index("vfnet_edu.train") + 1 :], "--print"])
        settings = dict(line.lstrip(" *").split(" = ", 1) for line in capsys.readouterr().out.splitlines())
        settings = {name.strip(): value.split()[0] for name, value in settings.items()}
        assert (settings["data.batch_size"], settings["data.images_per_gpu"]) == (str(batch), str(each))
        assert settings["name"] == repr(row["name"])


# ------------------------------------------------------------------ the explorer
def test_the_planner_knows_every_row_with_published_weights(rows):
    from vfnet_edu.widgets import TrainingPlanner

    planner = TrainingPlanner()
    assert [row["name"] for row in planner.recipes] == [row["name"] for row in rows] and len(rows) == 23
    assert len(json.dumps(planner.recipes)) < 10_000
    planner.recipe = "vfnet_r101_2x"
    planner.gpus = 64
    with pytest.raises(Exception, match="vfnet_r50_1x"):
        planner.recipe = "vfnet_r51_1x"


# ------------------------------------------------------------------ several machines
def test_two_machines(tmp_path):
    """Two torchruns that meet over c10d, as on two machines that share a folder; gloo, one process each."""
    data = write_shape_scenes(tmp_path / "coco", train=4, val=2, size=64)
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
               "--rdzv-backend", "c10d", "--rdzv-id", "coco", "--rdzv-endpoint", f"127.0.0.1:{free_port()}",
               "-m", "vfnet_edu.train", "vfnet_tiny", "--data", data, "--out", tmp_path / "run", "--device", "cpu",
               "--data.batch-size", "2", "--data.augment.long-side", "64", "64", "--data.augment.short-side", "64",
               "64", "--data.test-scale", "64", "64", "--data.workers", "0", "--max-steps", "1"]  # fmt: skip
    start = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    start["env"] = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen([str(word) for word in command], **start) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("2 process(es) x 1 images x 1 pass(es)" in out for out, _ in said) == 1
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"


def free_port() -> int:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


# ------------------------------------------------------------------ exercises


def test_answers_written_by_hand():
    def rate_at(step, steps_per_epoch):
        rate = 0.01 * 0.1 ** sum(step // steps_per_epoch >= e for e in (8, 11))
        return rate * (1 - (1 - step / 500) * 0.9) if step < 500 else rate

    assert chapter_18.rate_at.judge(rate_at)[1]
    assert chapter_18.rate.judge(lambda gpus, images, passes: 0.01 * gpus * images * passes / 16)[1]
    told, right = chapter_18.rate.judge(lambda gpus, images, passes: 0.02)
    assert not right and "it should be 0.01" in told
    assert "one of the six" in chapter_18.wrong_option.judge(lambda: "--head.gamma")[0]


def test_the_log_is_that_of_drops_given_in_steps():
    config = OptimConfig(drop_at=(58640, 80630))
    lines = [line.split() for line in chapter_18.LOG.splitlines()[5:]]
    assert len(lines) == 6
    for step, epoch, rate, *_ in lines:
        done = int(step) - 1  # a line tells of the step that was just done
        assert float(epoch) == round(int(step) / 7330, 2)
        assert float(rate) == round(schedule.learning_rate(config, 0.01, done, done // 7330, 12 * 7330), 5)
