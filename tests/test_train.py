"""Training through its command line: what it leaves behind, and that nothing loses or changes a run."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from recorded import close

from vfnet_edu import recipes, train
from vfnet_edu.data.shapes import write_shape_scenes
from vfnet_edu.models.detector import build
from vfnet_edu.recipe import OptimConfig
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.training import checkpoint, schedule
from vfnet_edu.training.run import RunFolder
from vfnet_edu.weights import zoo

TINY = (
    "--backbone.width 8 --neck.channels 32 --head.channels 32 --head.depth 1 --data.batch-size 4"
    " --data.images-per-gpu 4 --data.augment.long-side 64 64"
    " --data.augment.short-side 64 64 --data.test-scale 64 64 --data.workers 0"
    " --optim.epochs 2 --optim.lr 1e-3 --optim.lr-batch 16 --optim.precision fp32"
    " --eval-every 1 --log-every 1 --device cpu"
).split()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_shape_scenes(tmp_path_factory.mktemp("shapes") / "set", train=12, val=4, size=64)


@pytest.fixture(autouse=True)
def _quiet(one_thread):
    """One thread, and the signal handlers of the test process as they were."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(data, out, *more):
    train.main([*TINY, "--data", str(data), "--out", str(out), *map(str, more)])
    return state_of(out)


def state_of(out):
    """Every tensor that a run ends with."""
    state = torch.load(out / "last.pt", weights_only=True)
    tensors = dict(state["model"])
    for i, moments in state["optimizer"]["state"].items():
        tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    return {"step": torch.tensor(state["step"]), **tensors}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """A run that nothing happened to."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "straight"
    state = run(data, out)
    torch.set_num_threads(threads)
    return out, state


def child(target, *args):
    """A process forked from this one, so that torch is already imported."""
    process = multiprocessing.get_context("fork").Process(target=target, args=args, daemon=False)
    process.start()
    return process


def run_quietly(data, out, *more):
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    torch.set_num_threads(1)
    try:
        train.main([*TINY, "--data", str(data), "--out", str(out), *more])
    except UserError as error:
        os._exit(int(error.code))
    os._exit(0)


# ------------------------------------------------------------------ what a run leaves behind
def test_the_run_folder_is_the_report(straight):
    out, _ = straight
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    trained = [r for r in records if r["kind"] == "train"]
    judged = [r for r in records if r["kind"] == "eval"]
    assert [r["step"] for r in trained] == list(range(1, 7)) and [r["epoch"] for r in judged] == [1, 2]
    assert {"loss", "loss_cls", "loss_box", "loss_refine", "lr", "images_per_second", "data_share"} <= trained[0].keys()
    assert {"AP", "AP50", "val_loss_cls", "rank_correlation", "per_class"} <= judged[0].keys()
    files = "config.json config.txt environment.json best.safetensors last.pt index.html loss.png lr.png ap.png pr.png"
    for name in [*files.split(), "per_class_ap.png", "predictions.png", "iacs_iou.png"]:
        assert (out / name).stat().st_size > 0, name
    assert json.loads((out / "status.json").read_text())["state"] == "done"


def test_a_checkpoint_knows_what_it_is(straight):
    out, state = straight
    recipe, model = zoo.load(out)
    assert recipe.head.channels == 32 and recipe.head.classes == len(model.classes) == 8
    recipe, model = zoo.load(out / "last.pt")
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not model.training


def test_print_marks_changes(capsys):
    train.main(["vfnet_r50_1x", "--optim.lr", "0.02", "--print"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("*")] == [line for line in lines if "optim.lr " in line]


def test_unknown_names_are_refused(capsys):
    with pytest.raises(UserError, match="vfnet_r50_1x"):
        train.main(["vfnet_r5_1x"])
    with pytest.raises(SystemExit) as caught:
        train.main(["--optim.learning-rate", "1"])
    assert caught.value.code == Exit.USAGE


# ------------------------------------------------------------------ going on
def test_stopped_and_resumed_is_the_same_run(data, straight, tmp_path):
    for steps in ("2", "3", "5"):  # inside an epoch, at its edge, in the next
        run(data, tmp_path, "--max-steps", steps, *(["--resume"] if steps != "2" else []))
    assert same(run(data, tmp_path, "--resume"), straight[1])
    steps = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in steps if r["kind"] == "train"] == list(range(1, 7))


def test_workers_do_not_change_a_run(data, straight, tmp_path):
    assert same(run(data, tmp_path, "--data.workers", "2"), straight[1])


def test_killed_at_any_time(data, straight, tmp_path):
    """kill -9 wherever it strikes, again and again: what is on disk always goes on to the same end."""
    rng = random.Random(0)
    for _ in range(6):
        process = child(
            run_quietly, data, tmp_path, *(["--resume"] if (tmp_path / "last.pt").exists() else ["--overwrite"])
        )
        process.join(rng.uniform(0.3, 2.5))
        process.kill()
        process.join()
        assert not (tmp_path / "last.pt").exists() or checkpoint.is_whole(tmp_path / "last.pt")
    resume = ["--resume"] if (tmp_path / "last.pt").exists() else ["--overwrite"]
    assert same(run(data, tmp_path, *resume), straight[1])
    assert not list(tmp_path.glob(".*.tmp")) and not list(tmp_path.glob(".*.new"))


def test_killed_while_saving(tmp_path):
    """Two hundred writes, each killed somewhere: never without a whole state."""
    tables = dict.fromkeys(checkpoint.TABLES, {})

    def save_forever(folder):
        n = 0
        while True:
            n += 1
            checkpoint.save(folder, {**tables, "n": n, "big": torch.full((200_000,), float(n))})

    checkpoint.save(tmp_path, {**tables, "n": 0, "big": torch.zeros(200_000)})
    rng, newest = random.Random(1), 0
    for _ in range(25):
        process = child(save_forever, tmp_path)
        time.sleep(rng.uniform(0.01, 0.08))
        process.kill()
        process.join()
        checkpoint.sweep(tmp_path)
        state, _ = checkpoint.load(tmp_path)
        assert (state["big"] == state["n"]).all()
        newest = max(newest, state["n"])
    assert newest > 0


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop(data, straight, tmp_path, number, code):
    process = child(run_quietly, data, tmp_path, "--optim.epochs", "200")
    while not (tmp_path / "last.pt").exists():
        time.sleep(0.05)
    os.kill(process.pid, number)
    process.join(20)
    assert process.exitcode == code
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "interrupted" and status["resumable"]


def test_broken_state_falls_back(data, straight, tmp_path):
    shutil.copytree(straight[0], tmp_path / "run")
    out = tmp_path / "run"
    content = bytearray((out / "last.pt").read_bytes())
    content[len(content) // 2] ^= 1  # one flipped bit; torch.load would take it
    (out / "last.pt").write_bytes(content)
    state, note = checkpoint.load(out)
    assert state["step"] == 6 and "last.pt" in note and "checksum" in note
    (out / "previous.pt").write_bytes(b"<html>quota exceeded</html>")
    with pytest.raises(UserError) as caught:
        checkpoint.load(out)
    assert caught.value.code == Exit.CHECKPOINT


# ------------------------------------------------------------------ what is refused
def refused(code, *args):
    with pytest.raises(UserError) as caught:
        train.main([*TINY, *map(str, args)])
    assert caught.value.code == code, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_run_is_not_overwritten(data, straight):
    assert "--resume" in refused(Exit.BUSY, "--data", data, "--out", straight[0])


def test_one_process_per_folder(data, tmp_path):
    with RunFolder(tmp_path):
        process = child(run_quietly, data, tmp_path)
        process.join(20)
        assert process.exitcode == Exit.BUSY


def test_a_worker_that_outlives_its_run_does_not_hold_the_folder(tmp_path):
    """A data-loading process is forked from a run: killed runs must be restarted at once."""

    def own(folder):
        run = RunFolder(folder)
        worker = os.fork()
        if worker == 0:
            time.sleep(30)
            os._exit(0)
        (folder / "worker").write_text(str(worker))
        time.sleep(30)
        run.status("unreachable")

    process = child(own, tmp_path)
    while not (tmp_path / "worker").exists() or not (tmp_path / "worker").read_text():
        time.sleep(0.01)
    with pytest.raises(UserError, match=f"process {process.pid}"):
        RunFolder(tmp_path)
    process.kill()
    process.join()
    worker = int((tmp_path / "worker").read_text())
    try:
        os.kill(worker, 0)  # it lives
        with RunFolder(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_files_of_a_run_are_whole_or_old(tmp_path, monkeypatch):
    """A full disk while a file is rewritten leaves the old one."""
    with RunFolder(tmp_path) as folder:
        folder.write("config.json", "the old one")
        folder.log(kind="train", step=1, loss=0.5)

        def full(number):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("vfnet_edu.runtime.files.os.fsync", full)
        for write in (
            lambda: folder.write("config.json", "the new one"),
            lambda: folder.status("running"),
            lambda: folder.rewind(0, 0),
            lambda: folder.log(kind="train", step=2, loss=0.5),
        ):
            with pytest.raises(UserError) as caught:
                write()
            assert caught.value.code == Exit.STORAGE
        monkeypatch.undo()
    assert (tmp_path / "config.json").read_text() == "the old one"
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "starting"
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_torn_diary_and_a_lost_config_do_not_stop_a_resume(data, straight, tmp_path):
    run(data, tmp_path, "--max-steps", "4")
    with open(tmp_path / "metrics.jsonl", "a") as diary:
        diary.write('{"kind": "train", "st')
    (tmp_path / "config.json").write_text("")
    assert same(run(data, tmp_path, "--resume"), straight[1])
    steps = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in steps if r["kind"] == "train"] == list(range(1, 7))
    assert json.loads((tmp_path / "config.json").read_text())["classes"]


def test_a_closed_pipe_is_no_lack_of_memory(data, tmp_path):
    """`train ... | head -1`"""
    command = [sys.executable, "-m", "vfnet_edu.train", *TINY, "--data", data, "--out", tmp_path / "run"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"})  # fmt: skip
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(60) == 141 and "memory" not in said and "Traceback" not in said, said
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "interrupted"


def test_a_changed_recipe_is_not_resumed(data, straight):
    out = straight[0]
    assert "optim.lr" in refused(Exit.USAGE, "--data", data, "--out", out, "--resume", "--optim.lr", "0.5")
    assert "head.gamma" in refused(Exit.USAGE, "--data", data, "--out", out, "--resume", "--head.gamma", "1")


def test_bad_batch(data, tmp_path):
    assert "multiple of 4" in refused(Exit.USAGE, "--data", data, "--out", tmp_path, "--data.batch-size", "6")


def test_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        train.main(["vfnet_r50_1x", "--out", str(tmp_path / "run")])
    assert caught.value.code == Exit.DATA


def test_no_permission(data, tmp_path):
    (tmp_path / "file").write_text("")
    assert refused(Exit.STORAGE, "--data", data, "--out", tmp_path / "file" / "run")


def test_other_classes_are_not_resumed(data, straight, tmp_path):
    renamed = tmp_path / "renamed"
    shutil.copytree(data, renamed)
    for path in (renamed / "annotations").glob("*.json"):
        path.write_text(path.read_text().replace('"heart"', '"organ"'))
    assert "organ" in refused(Exit.USAGE, "--data", renamed, "--out", straight[0], "--resume")
    path = renamed / "annotations" / "instances_val.json"
    path.write_text(path.read_text().replace('"organ"', '"heart"'))
    assert "heart" in refused(Exit.DATA, "--data", renamed, "--out", tmp_path / "run")


def test_divergence_stops_before_the_update(data, tmp_path):
    message = refused(Exit.DIVERGED, "--data", data, "--out", tmp_path, "--optim.lr", "1e12", "--optim.clip-norm", "0",
                      "--optim.optimizer", "sgd", "--optim.epochs", "30")  # fmt: skip
    assert "not finite" in message and json.loads((tmp_path / "diverged.json").read_text())["image_ids"]
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "failed"


def test_disk_full(data, tmp_path):
    def limited():
        import resource  # POSIX only, like all of this test

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        run_quietly(data, tmp_path)

    process = child(limited)
    process.join(60)
    assert process.exitcode == Exit.STORAGE
    assert not (tmp_path / "last.pt").exists() and not list(tmp_path.glob(".*.tmp"))


def test_other_classes_start_their_last_layers_anew(data, straight, tmp_path, capsys):
    few = tmp_path / "few"
    shutil.copytree(data, few)
    for path in (few / "annotations").glob("*.json"):
        content = json.loads(path.read_text())
        content["categories"] = content["categories"][:3]
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] <= 3]
        path.write_text(json.dumps(content))
    run(few, tmp_path / "run", "--weights", straight[0], "--max-steps", "1")
    assert "head.score_out.bias, head.score_out.weight" in capsys.readouterr().out
    assert zoo.load(tmp_path / "run")[0].head.classes == 3


def test_weights_that_do_not_fit_name_the_recipe_that_would(data, tmp_path):
    with pytest.raises(UserError, match="it was made with vfnet_tiny: use that recipe"):
        run(data, tmp_path / "run", "--weights", "vfnet_tiny")


def test_the_log_says_which_backbone_weights_it_starts_from(data, straight, tmp_path, capsys):
    file, backbone = tmp_path / "backbone.pth", zoo.load(straight[0])[1].get_submodule("backbone").state_dict()
    torch.save(backbone, file)
    run(data, tmp_path / "run", "--backbone-weights", file, "--max-steps", "1")
    assert f"backbone: {len(backbone)} tensors of {file}, in pytorch style\n" in capsys.readouterr().out


# ------------------------------------------------------------------ several processes
def test_two_processes(data, tmp_path):
    """torchrun and gloo, where one rank sees no box at all: nobody waits for ever, both hold the same weights."""
    empty = tmp_path / "empty"
    shutil.copytree(data, empty)
    path = empty / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    keep = {image["id"] for image in content["images"][:1]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in keep]
    path.write_text(json.dumps(content))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m",
               "vfnet_edu.train", *TINY, "--data", empty, "--out", tmp_path / "run", "--data.images-per-gpu", "1",
               "--optim.epochs", "1"]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 process(es) x 1 images x 2 pass(es)" in done.stdout
    records = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["kind"] == "eval" and records[-1]["images"] == 4


# ------------------------------------------------------------------ schedule and parameter groups
def test_learning_rate():
    config, epoch, total = OptimConfig(), 7330, 12 * 7330
    rate = lambda step, e=0: schedule.learning_rate(config, 0.01, step, e, total)  # noqa: E731
    assert rate(0) == pytest.approx(0.001) and rate(250) == pytest.approx(0.0055)
    assert rate(499) == pytest.approx(0.009982) and rate(500) == 0.01
    assert rate(7 * epoch, 7) == 0.01 and rate(8 * epoch, 8) == pytest.approx(0.001)
    assert rate(11 * epoch, 11) == pytest.approx(0.0001)
    assert schedule.warmup_steps(config, 228) == 45  # 300 photographs: not half of the run
    cosine = replace(config, schedule="cosine", warmup_steps=0)
    linear = replace(cosine, schedule="linear")
    assert schedule.learning_rate(cosine, 1.0, 50, 0, 100) == pytest.approx(0.5)
    assert [schedule.learning_rate(linear, 1.0, step, 0, 100) for step in (0, 25, 100)] == pytest.approx([1, 0.75, 0])


def test_parameter_groups():
    model = build(recipes.vfnet_r50_1x())
    names = {id(p): n for n, p in model.named_parameters()}
    rest, biases = schedule.parameter_groups(model, OptimConfig())
    found = {names[id(p)] for p in biases["params"]}
    assert (biases["scale"], biases["weight_decay"]) == (2.0, 0.0) and rest["weight_decay"] == 1e-4
    necks = {
        f"neck.{part}.{i}.conv.bias" for part, n in (("lateral", 3), ("output", 3), ("extra", 2)) for i in range(n)
    }
    assert found == necks | {"head.box_out.bias", "head.refine_out.bias", "head.score_out.bias"}
    others = {names[id(p)] for p in rest["params"]}
    assert {"head.box_gain", "backbone.layer2.0.bn1.bias", "head.cls_tower.0.norm.bias"} <= others
    assert not any(n.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1.")) for n in found | others)


def test_accumulated_passes_are_one_step(data, tmp_path):
    """Two passes of 2 give the gradient of both, each pass normalised by its own positives (as the docs say)."""
    torch.manual_seed(0)
    model = build(recipes.by_name("vfnet_small"), tuple("abcdefgh")).eval()
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(4)]
    targets = [{"boxes": torch.tensor([[5.0 + i, 5, 40, 50]]), "labels": torch.tensor([i])} for i in range(4)]
    for half in (slice(0, 2), slice(2, 4)):
        (sum(model(images[half], targets[half]).values()) / 2).backward()
    twice = model.head.score_out.weight.grad.clone()
    model.zero_grad()
    mean = sum(sum(model(images[h], targets[h]).values()) for h in (slice(0, 2), slice(2, 4))) / 2
    mean.backward()
    close(twice, model.head.score_out.weight.grad, rtol=1e-5)


# ------------------------------------------------------------------ weight averaging
def test_averaged_weights(data, tmp_path):
    """Two epochs more, from the best weights: the mean of their ends is judged and kept, also when resumed between."""
    out = tmp_path / "run"
    swa = ["--swa.epochs", "2", "--swa.lr", "1e-3", "--swa.lr-end", "1e-5"]
    run(data, out, *swa, "--max-steps", "9")  # two epochs, and one of the averaging
    first = torch.load(out / "last.pt", weights_only=True)
    assert first["average"]["n_averaged"] == 1 and first["epoch"] == 3
    run(data, out, *swa, "--resume")
    last = torch.load(out / "last.pt", weights_only=True)
    name = "head.score_out.weight"
    mean = (first["model"][name] + last["model"][name]) / 2
    assert last["average"]["n_averaged"] == 2
    close(last["average"][f"module.{name}"], mean, rtol=1e-5, atol=1e-7)
    rates = [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
    rates = [r["lr"] for r in rates if r["kind"] == "train"]
    assert rates[6] == rates[9] == pytest.approx(1e-3 / 4) and rates[6] > rates[7] > rates[8]  # 4 of 16 images
