"""Models that people share: a run folder's card as the hub reads it, and a small hub on this machine to load from."""

import hashlib
import http.server
import json
import os
import pickle
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from small import small

import vfnet_edu as vf
from vfnet_edu import predict
from vfnet_edu.models.detector import build
from vfnet_edu.runtime.config import to_dict
from vfnet_edu.runtime.errors import Exit, UserError, cli
from vfnet_edu.training import card as cards
from vfnet_edu.training.card import card, write_card
from vfnet_edu.training.run import RunFolder
from vfnet_edu.weights import hub, ours, zoo

huggingface_hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")

OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"
NASTY = "<img src=x onerror=alert(1)> | [a](http://b)\n---\n`c`"
CLASSES = ("cat", "dog", NASTY, "fox", "hen")


# ------------------------------------------------------------------ a small hub
class Hub(http.server.ThreadingHTTPServer):
    """Models {"owner/name": {commit: {file: bytes}}}, answered as the hub does; `main` is the last commit."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.models, self.asked, self.size = {}, [], None
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        owner, name, _, revision, file = self.path.strip("/").split("/", 4)
        self.server.asked.append(file)
        commits = self.server.models.get(f"{owner}/{name}")
        if commits is None:
            return self.refuse("RepoNotFound")
        commit = list(commits)[-1] if revision == "main" else revision
        if commit not in commits:
            return self.refuse("RevisionNotFound")
        if file not in commits[commit]:
            return self.refuse("EntryNotFound", commit)
        content = commits[commit][file]
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(self.server.size or len(content)))
        self.end_headers()
        return content

    def do_GET(self):
        if content := self.do_HEAD():
            self.wfile.write(content)

    def refuse(self, code, commit=""):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("VFNET_EDU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    huggingface_hub.close_session()  # the next one reads no_proxy
    server = Hub()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.shutdown()
    server.server_close()


def model_of(seed):
    torch.manual_seed(seed)
    return build(small("vfnet"), CLASSES)


@pytest.fixture
def shared(server, tmp_path):
    """Two versions of one model on the hub, each beside a pickle that would be heard of"""
    models = {}
    for seed, commit in enumerate((OLD, NEW)):
        models[commit] = model_of(seed)
        ours.save(tmp_path / "best.safetensors", models[commit], {"epoch": "2", "ap": "0.5"})
        files = {"best.safetensors": (tmp_path / "best.safetensors").read_bytes(), "last.pt": pickle.dumps(Bomb())}
        server.models.setdefault("ann/cards", {})[commit] = files
    return models


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was loaded')",)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_shared_model_is_loaded_and_its_commit_is_named(server, shared, caplog):
    recipe, model = vf.load("hf:ann/cards")
    assert model.classes == CLASSES and recipe == shared[NEW].recipe and not model.training
    assert same(model, shared[NEW])
    assert f"hf:ann/cards@{NEW}" in caplog.text
    assert set(server.asked) == {"best.safetensors"}


def test_a_commit_is_the_same_weights_for_ever_and_needs_no_second_download(server, shared, caplog):
    name = f"hf:ann/cards@{OLD}"
    assert same(vf.load(name)[1], shared[OLD]) and not caplog.text
    server.asked.clear()
    server.models.clear()
    assert same(vf.load(name)[1], shared[OLD]) and not server.asked


@pytest.mark.parametrize(
    "name, said",
    [
        ("hf:nobody/nothing", "the hub has no such model"),
        ("hf:ann/cards@v9", "has no revision 'v9'"),
        ("hf:ann/pickles", "there is no best.safetensors in it"),
        ("hf:ann/html", "not a readable safetensors file"),
        ("hf:cards", "not the name of a model"),
        ("hf:ann/../cards", "not the name of a model"),
        ("hf:ann/..", "could not download it"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(server, shared, name, said):
    server.models["ann/pickles"] = {OLD: {"last.pt": pickle.dumps(Bomb()), "pytorch_model.bin": pickle.dumps(Bomb())}}
    server.models["ann/html"] = {OLD: {"best.safetensors": b"<!doctype html>"}}
    with pytest.raises(UserError) as caught:
        vf.load(name)
    assert said in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert caught.value.code == (Exit.USAGE if "not the name" in said else Exit.CHECKPOINT)
    assert set(server.asked) <= {"best.safetensors"}


def test_the_command_ends_with_its_exit_code(server, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli(predict.main, ["hf:nobody/nothing", str(tmp_path)])
    error = capsys.readouterr().err
    assert caught.value.code == Exit.CHECKPOINT
    assert error.startswith("error: hf:nobody/nothing: the hub has no such model") and error.count("\n") == 1


def test_a_file_too_large_is_not_downloaded(server, shared):
    server.size = 3 * 1024**3
    with pytest.raises(UserError, match=r"3\.2 GB, more than the limit of 2\.1 GB"):
        vf.load("hf:ann/cards")
    assert server.asked == ["best.safetensors"]


def failing(monkeypatch, error):
    def download(*args, **more):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


@pytest.mark.parametrize(
    "error, said, code",
    [
        (errors.LocalEntryNotFoundError("long\nstory"), "the hub cannot be reached", Exit.CHECKPOINT),
        (OSError(28, "No space left on device"), "No space left on device", Exit.STORAGE),
        (RuntimeError("first line\nsecond line"), "could not download it: first line (", Exit.CHECKPOINT),
    ],
)
def test_no_network_no_room_and_the_unexpected(monkeypatch, error, said, code):
    failing(monkeypatch, error)
    with pytest.raises(UserError) as caught:
        vf.load("hf:ann/cards")
    assert said in str(caught.value) and "\n" not in str(caught.value) and caught.value.code == code


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'vfnet_edu\[hub\]'"):
        hub.fetch_from_hub("hf:ann/cards")


@pytest.mark.skipif(os.name == "nt", reason="no colon in a file name there")
def test_a_path_wins(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf:ann").mkdir()
    ours.save(tmp_path / "hf:ann" / "cards", model_of(0))
    assert zoo.find("hf:ann/cards").exists()


# ------------------------------------------------------------------ the model card
def diary(epochs=3):
    numbers = {name: 0.1 for name in ("AP", "AP50", "AP75", "APs", "APm", "AR1", "AR10", "AR100")} | {"APl": -1.0}
    rows = [{"name": name, "AP": 0.4, "AP50": -1.0, "objects": 1234, "detections": 7} for name in CLASSES]
    more = {"images": 1500, "why": None, "per_class": rows}
    return [
        {"kind": "eval", "step": 10 * epoch, "epoch": epoch, **numbers, "AP": epoch / 8, **more}
        for epoch in range(1, epochs + 1)
    ]


@pytest.fixture
def run(tmp_path):
    """A run folder whose best weights are those of its second epoch, and the images it was judged by"""
    folder = tmp_path / "playing cards 'v1'"
    folder.mkdir()
    ours.save(folder / "best.safetensors", model_of(0), {"epoch": "2", "ap": "0.2500"})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in diary()))
    return folder, SimpleNamespace(root=tmp_path / "cards #1" / "images" / "val2017")


def test_the_hub_can_read_the_card(run):
    folder, check = run
    write_card(folder, check)
    read = huggingface_hub.ModelCard.load(folder / "README.md")
    front = read.data.to_dict()
    assert front["license"] == "apache-2.0" and front["library_name"] == "vfnet_edu"
    assert front["pipeline_tag"] == "object-detection" and "vfnet" in front["tags"]
    assert front["metrics"] == ["map", "map_50", "map_75"]
    assert read.data.model_name == folder.name
    best = read.data.eval_results[0]
    assert (best.task_type, best.metric_type, best.metric_value) == ("object-detection", "map", 25.0)
    assert (best.dataset_name, best.dataset_split) == ("cards #1", "validation")
    assert len(read.data.eval_results) == 3


def test_the_card_says_what_the_model_is_and_names_mean_nothing_in_markdown(run):
    folder, check = run
    write_card(folder, check)
    text = huggingface_hub.ModelCard.load(folder / "README.md").text
    for said in ("| AP | 25.0 |", "1,500 validation images of cards \\#1 after epoch 2", "| APl | – |", "cat, dog"):
        assert said in text
    assert "<img" not in text.replace("\\<img", "") and "\n---\n" not in text and "| [a]" not in text
    assert 'vf.load("hf:owner/playing-cards-v1-")' in text and "pip install 'vfnet_edu[hub]'" in text
    assert str(folder.parent) not in text  # nobody's home folder
    assert "```\n  name" in text and text.count("\n## ") == 4


def test_the_card_shows_what_was_changed_in_a_recipe():
    recipe = vf.recipes.vfnet_small()
    changed = replace(recipe, optim=replace(recipe.optim, lr=0.5))
    text = card("x", metadata_of(changed), [], None)
    assert f"| `optim.lr` | `0.5` | `{recipe.optim.lr!r}` |" in text and "was not measured" in text
    assert huggingface_hub.ModelCard(text).data.get("model-index") is None


def test_the_report_of_a_run_brings_the_card(run):
    folder, _ = run
    with RunFolder(folder, resume=True) as open_run:
        open_run.report(None, None, None, {})
    assert {"README.md", "index.html"} <= {path.name for path in folder.iterdir()}
    assert huggingface_hub.ModelCard.load(folder / "README.md").data.eval_results[0].metric_value == 25.0


@pytest.mark.parametrize(
    "folder, name", [("data/cards/valid", "cards"), ("coco/val2017", "coco"), ("VOC/JPEGImages", "VOC")]
)
def test_the_data_set_is_named_after_its_folder(folder, name, tmp_path):
    text = card("x", metadata_of(vf.recipes.vfnet_small()), diary(2), SimpleNamespace(root=tmp_path / folder))
    assert huggingface_hub.ModelCard(text).data.eval_results[0].dataset_name == name


def metadata_of(recipe):
    return {"recipe": json.dumps(to_dict(recipe)), "classes": '["a"]', "epoch": "2"}


def test_a_readme_of_somebody_is_left_alone_and_ours_is_renewed(run, monkeypatch):
    folder, check = run
    path = folder / "README.md"
    path.write_text("my own words")
    write_card(folder, check)
    assert path.read_text() == "my own words"
    path.write_text(cards.MARK)
    write_card(folder, check)
    assert path.read_text().startswith("---\nlicense") and cards.MARK in path.read_text()
    assert not list(folder.glob(".*tmp"))


def test_no_card_without_weights_and_no_error_from_a_broken_file(run, tmp_path):
    folder, check = run
    (folder / "best.safetensors").write_bytes(b"no")
    with pytest.warns(UserWarning, match=r"README.md could not be written"):
        write_card(folder, check)
    write_card(tmp_path, check)
    assert not (tmp_path / "README.md").exists() and not (folder / "README.md").exists()
