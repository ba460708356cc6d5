"""Published weights, from a server on this machine: whole, resumed, and everything that is not the published file."""

import hashlib
import http.server
import io
import threading

import pytest
import torch
from small import small

from vfnet_edu import convert, recipes
from vfnet_edu.models.detector import build
from vfnet_edu.recipe import Published
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.runtime.files import cache_folder
from vfnet_edu.weights import download, imagenet, ours, zoo
from vfnet_edu.weights.download import fetch
from vfnet_edu.weights.mmdet import to_mmdet

PAGE = b"\n<!DOCTYPE HTML><html>Too many users have viewed or downloaded this file recently"


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` {path: bytes}; cuts an answer after `cut` bytes; understands Range if `ranges`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.ranges, self.asked = {}, None, True, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, start = self.server, 0
        server.asked.append((self.path, self.headers.get("Range")))
        if self.path not in server.files:
            return self.send_error(404)
        content = server.files[self.path]
        if server.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("VFNET_EDU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()  # asked to end, it does so at once
    monkeypatch.setattr(zoo, "SERVER", server.url)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def row(server, monkeypatch):
    """A row of a table with its file on the server, as OpenMMLab hosts them"""
    model = build(small("vfnet"), ("cat", "dog", "owl", "fox", "hen"))
    buffer = io.BytesIO()
    torch.save({"meta": {"CLASSES": model.classes}, "state_dict": to_mmdet(model.state_dict())}, buffer)
    content = buffer.getvalue()
    file = f"small_coco_20201027pth-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[f"/small_coco/{file}"] = content
    recipe = small("vfnet", published=Published(checkpoint=file))
    monkeypatch.setattr(recipes, "names", lambda: ["small_vfnet"])
    monkeypatch.setattr(recipes, "small_vfnet", lambda: recipe, raising=False)
    return model


def test_downloaded_checked_converted_cached(server, row):
    model = zoo.pretrained("small_vfnet")
    assert model.classes == row.classes and not model.training
    assert all(torch.equal(v, row.state_dict()[k]) for k, v in model.state_dict().items())
    kept = [p.name for p in cache_folder().iterdir() if p.suffix != ".lock"]
    assert kept == ["small_vfnet.safetensors"]
    server.files.clear()
    assert zoo.pretrained("small_vfnet").classes == row.classes  # from the cache
    assert len(server.asked) == 1


def test_one_door(server, row, tmp_path, monkeypatch):
    """A published row by its name, and what every command makes of it; a path that exists wins over a name."""
    monkeypatch.chdir(tmp_path)
    file = zoo.find("small_vfnet")
    assert file == zoo.cached_file("small_vfnet") and zoo.find(file) == file
    recipe, model = zoo.load("small_vfnet")
    assert recipe == model.recipe and recipe.name == "small_vfnet" and model.classes == row.classes
    convert.main(["small_vfnet", "--to-mmdet"])
    assert (tmp_path / "small_vfnet.pth").exists()

    mine = build(recipe, ("cell", "bead"))
    (tmp_path / "small_vfnet").mkdir()
    with pytest.raises(UserError, match="small_vfnet: no best.safetensors and no last.pt") as error:
        zoo.find("small_vfnet")
    assert error.value.code == Exit.CHECKPOINT
    ours.save(tmp_path / "small_vfnet/best.safetensors", mine)
    assert zoo.load("small_vfnet")[1].classes == ("cell", "bead")
    assert len(server.asked) == 1


def test_rows_without_published_weights(server):
    for name in ("vfnet_small", "vfnet_r50_qfl_1x"):
        with pytest.raises(UserError, match=f"{name}: no weights are published"):
            zoo.load(name)


def test_interrupted_then_resumed(server, row):
    path, server.cut = next(iter(server.files)), 1000
    with pytest.raises(UserError, match="cut.* try again to go on") as error:
        zoo.pretrained("small_vfnet")
    assert error.value.code == Exit.CHECKPOINT and "fetch the file elsewhere" in str(error.value)
    assert [p.stat().st_size for p in cache_folder().glob("*.part")] == [1000]
    assert not list(cache_folder().glob("*.pth")) and not list(cache_folder().glob("*.safetensors"))
    server.cut = None
    assert zoo.pretrained("small_vfnet").classes == row.classes
    assert server.asked[1] == (path, "bytes=1000-") and not list(cache_folder().glob("*.part"))


def test_a_server_that_cannot_resume_starts_again(server, row):
    server.cut = 1000
    with pytest.raises(UserError):
        zoo.pretrained("small_vfnet")
    server.cut, server.ranges = None, False
    assert zoo.pretrained("small_vfnet").classes == row.classes


def test_complete_but_not_yet_renamed(server, row):
    path, content = next(iter(server.files.items()))
    cache_folder().mkdir(parents=True)
    (cache_folder() / (path.rsplit("/")[-1] + ".part")).write_bytes(content)
    assert zoo.pretrained("small_vfnet").classes == row.classes


@pytest.mark.parametrize(
    "content, message",
    [(PAGE, "is a web page"), (b"x" * 5000, "not the published file: its SHA-256 begins"), (None, "answered 404")],
)
def test_something_else_instead(server, row, content, message):
    path, whole = next(iter(server.files.items()))
    server.files = {path: content} if content else {}
    with pytest.raises(UserError, match=message) as error:
        zoo.pretrained("small_vfnet")
    assert error.value.code == Exit.CHECKPOINT
    assert not [p for p in cache_folder().iterdir() if p.suffix != ".lock"]  # nothing is left that could pass for it
    server.files = {path: whole}
    assert zoo.pretrained("small_vfnet").classes == row.classes


def test_a_file_that_is_too_large(server, row, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 1_000_000)
    with pytest.raises(UserError, match=r"is 0.0 GB, more than the limit of 0.0 GB .*put it at .*[.]pth[)]") as error:
        zoo.pretrained("small_vfnet")
    assert error.value.code == Exit.CHECKPOINT and not list(cache_folder().glob("*.part"))


def test_a_cached_file_that_was_damaged_is_fetched_again(server):
    content = b"a backbone"
    url = f"{server.url}/r-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[url.removeprefix(server.url)] = content
    fetch(url).write_bytes(b"rot")
    assert fetch(url).read_bytes() == content and len(server.asked) == 2
    assert fetch(url).read_bytes() == content and len(server.asked) == 2


def test_no_server_and_no_place(server, row, monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, "SERVER", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="could not download"):
        zoo.pretrained("small_vfnet")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VFNET_EDU_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="VFNET_EDU_CACHE") as error:
        zoo.pretrained("small_vfnet")
    assert error.value.code == Exit.STORAGE


def test_many_processes_download_once(server, row):
    done = []
    threads = [threading.Thread(target=lambda: done.append(zoo.pretrained("small_vfnet"))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(done) == 4 and len(server.asked) == 1


def test_weights_on_google_drive_only(server, tmp_path):
    with pytest.raises(UserError) as error:
        zoo.vfnet_x(pretrained=True)
    text = str(error.value)
    assert "https://drive.google.com/file/d/1I_NLVsGb-6p8kildkFYhIVSdpS1nr8Eh" in text
    assert f"--recipe vfnetx_r2_101_800 --out {cache_folder() / 'vfnetx_r2_101_800.safetensors'}" in text
    model = build(small("atss"))  # what `convert` puts there is found
    cache_folder().mkdir(parents=True, exist_ok=True)
    ours.save(zoo.cached_file("atss_r50_vfl_1x"), model)
    assert zoo.atss_r50(pretrained=True).recipe == model.recipe


def test_imagenet_backbones_come_the_same_way(server, monkeypatch):
    model = build(small("vfnet"))
    state = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in model.backbone.state_dict().items()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    name = f"/r-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    server.files[name] = buffer.getvalue()
    monkeypatch.setitem(imagenet.IMAGENET, model.recipe.backbone, server.url + name)
    said = imagenet.load_backbone(model, "imagenet")
    assert said.endswith(f"{name[1:]}, from {server.url}{name}, in pytorch style")
    assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])
    for url in imagenet.IMAGENET.values():
        assert url.startswith(("https://", server.url)) and len(url.rsplit("-", 1)[1]) == len("01234567.pth")


@pytest.mark.parametrize(
    "function, arguments, name",
    [
        (zoo.vfnet_r50, {}, "vfnet_r50_ms_2x"),
        (zoo.vfnet_r50, {"dcn": True}, "vfnet_r50_dcn_ms_2x"),
        (zoo.vfnet_r101, {"dcn": True}, "vfnet_r101_dcn_ms_2x"),
        (zoo.vfnet_x101_32x4d, {}, "vfnet_x101_32x4d_ms_2x"),
        (zoo.vfnet_x101_64x4d, {"dcn": True}, "vfnet_x101_64x4d_dcn_ms_2x"),
        (zoo.vfnet_r2_101, {}, "vfnet_r2_101_ms_2x"),
        (zoo.vfnet_x, {}, "vfnetx_r2_101_800"),
        (zoo.retinanet_r50, {"loss": "focal"}, "retinanet_r50_fl_1x"),
        (zoo.foveabox_r50, {}, "foveabox_r50_vfl_1x"),
        (zoo.reppoints_r50, {"loss": "varifocal"}, "reppoints_r50_vfl_1x"),
        (zoo.atss_r50, {"loss": "focal"}, "atss_r50_fl_1x"),
    ],
)
def test_the_front_door(function, arguments, name):
    with torch.device("meta"):
        model = function(**arguments, classes=("cat", "dog"))
    assert model.recipe.name == name and model.classes == ("cat", "dog") and model.recipe.head.classes == 2


def test_other_classes_on_pretrained_weights(server, row, monkeypatch):
    monkeypatch.setattr(recipes, "names", lambda: ["small_vfnet", "vfnet_r50_ms_2x"])
    monkeypatch.setattr(recipes, "vfnet_r50_ms_2x", recipes.small_vfnet)
    model = zoo.vfnet_r50(pretrained=True, classes=("cell", "bead"))
    assert model.classes == ("cell", "bead") and not model.training
    assert torch.equal(model.neck.lateral[0].conv.weight, row.neck.lateral[0].conv.weight)
    with pytest.raises(UserError, match="choose one of varifocal, focal"):
        zoo.atss_r50(loss="quality")
