"""The table of peers: that contenders take turns and do the same work, and that the page is made from the json."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch

from vfnet_edu.bench import peer_detectors, peer_operators, peers
from vfnet_edu.bench.rows import ROWS
from vfnet_edu.bench.sizes import QUICK
from vfnet_edu.bench.turns import Row, Skipped, Turn, compete
from vfnet_edu.runtime.errors import UserError

PAGE = Path(__file__).parent.parent / "book" / "benchmarks.md"


@pytest.fixture(autouse=True)
def _threads(one_thread):
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    return replace(QUICK, folder=tmp_path_factory.mktemp("peers"))


def table(*names, sizes=QUICK, **more):
    """A table of :mod:`peers` in which nothing was measured; `names` of rows."""
    results = [
        {"row": name, "threads": 1 if ROWS[name].threads else None, "contender": contender, "seconds": [0.3, 0.1, 0.2]}
        for name in names
        for contender in ROWS[name].contenders
    ]
    results[-1] = {**results[-1], "seconds": [0.02, 0.04, 0.03], "peak_mb": 12.4}
    fresh = peers.begin(peers.Options(), sizes)
    return json.loads(json.dumps({**fresh, "repeats": 3, "results": results, **more}))


# ------------------------------------------------------------------ taking turns
def test_contenders_take_turns():
    said = []

    def contender(name):
        steps = [lambda word=word: said.append(name + word) for word in ("", " before", " after")]
        return lambda sizes: Turn(*steps)

    def absent(sizes):
        raise Skipped("not on a Monday")

    row = Row("", {"a": contender("a"), "absent": absent, "b": contender("b")})
    a, skipped, b = compete(row, None, 2, 1)
    assert said == ["a before", "a", "a after", "b before", "b", "b after"] * 3  # the first round warms up
    assert len(a["seconds"]) == len(b["seconds"]) == 2 and min(a["seconds"]) > 0
    assert skipped == {"contender": "absent", "skipped": "not on a Monday"}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say")
def test_memory_of_a_turn():
    """In a process of its own: in this one, memory that other tests gave back would be used first."""
    code = """
import torch
from vfnet_edu.bench.turns import Row, Turn, peak_megabytes

row = Row("", {"large": lambda sizes: Turn(lambda: torch.ones(20_000_000)), "none": lambda sizes: Turn(list)})
print(*(peak_megabytes(row, contender, None, 1) for contender in ("large", "none")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    large, none = map(float, done.stdout.split())
    assert large == pytest.approx(80, abs=8) and none < 8


# ------------------------------------------------------------------ the rows
@pytest.mark.parametrize("name", ["load0", "score", "read", "star", "star-learn", "assign"])
def test_rows(sizes, name):
    for result in compete(ROWS[name], sizes, 1, 1):
        assert "seconds" in result or result["contender"] == "onnxruntime DeformConv", result


@pytest.mark.parametrize("name", ["answer", "learn"])
def test_detectors(sizes, name):
    found = compete(ROWS[name], sizes, 1, 1)
    assert sum("seconds" in result for result in found) >= 3
    assert all("seconds" in result or "bf16" in result["contender"] for result in found)


@pytest.mark.parametrize("learn", [False, True])
def test_stars_are_the_same(sizes, learn):
    ours, theirs = (
        peer_operators.convolve(f, learn)(sizes).run() for f in (peer_operators.star, peer_operators.deformable)
    )
    levels = len(peer_operators.STRIDES)
    for a, b in zip(ours[:levels], theirs[:levels], strict=True):  # maps, or their gradients
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_star_of_onnx_is_the_same(sizes):
    try:
        theirs = peer_operators.onnx_runtime(sizes).run()
    except Skipped as reason:
        pytest.skip(str(reason))
    for a, (b,) in zip(peer_operators.convolve(peer_operators.star, False)(sizes).run(), theirs, strict=True):
        torch.testing.assert_close(a, torch.from_numpy(b), rtol=1e-3, atol=1e-4)


def test_scores_and_matches_are_the_same(sizes):
    ours, *theirs = (make(sizes).run() for make in ROWS["score"].contenders.values())
    for stats in theirs:
        assert list(stats[:12]) == pytest.approx(list(ours.numbers.values()), abs=1e-12)
    assert 0 < ours.numbers["AP"] < 1
    ours, theirs = (make(sizes).run() for make in ROWS["assign"].contenders.values())
    assert torch.equal(ours, theirs) and (ours >= 0).any()


def test_the_same_is_read(sizes):
    first, following, theirs = (make(sizes).run() for make in ROWS["read"].contenders.values())
    size = first.json_path.stat().st_size / 1e6
    assert size == pytest.approx(sizes.json_mb, rel=0.05)
    assert len(first) == len(following) == len(theirs.imgs) and len(first.xywh) == len(theirs.anns) == 7 * len(first)


def test_detectors_see_images_as_large_as_they_are(sizes):
    image = peer_detectors.noise(sizes.answer, 1)[0]
    for kind in (peer_detectors.FCOS, peer_detectors.RetinaNet):
        images, _ = peer_detectors.torchvisions(kind, sizes.answer).transform([image / 255])
        assert images.image_sizes == [sizes.answer]
    assert peer_detectors.vfnet(sizes.answer).recipe.data.test_scale == (sizes.answer[1], sizes.answer[0])


# ------------------------------------------------------------------ the command, the json and the page
def test_the_command(tmp_path, capfd):
    report, told = tmp_path / "peers.json", ["--quick", "--threads", "1", "--sizes.folder", str(tmp_path)]
    peers.main([*told, "--rows", "assign", "--repeats", "2", "--json", str(report)])
    said = capfd.readouterr()
    assert "ATSS: 3 boxes in 64 x 96" in said.out and "all pairs" in said.out and not said.err
    found = json.loads(report.read_text())
    assert (
        found["repeats"] == 2 and found["sizes"]["boxes"] == 3 and {"torch", "pycocotools"} <= found["versions"].keys()
    )
    for result in found["results"]:
        assert (result["row"], result["threads"], len(result["seconds"])) == ("assign", 1, 2)
        assert result["peak_mb"] is None or result["peak_mb"] >= 0
    assert [result["contender"] for result in found["results"]] == ["ours", "all pairs"]


def test_rows_that_are_not_measured_again_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "apart", lambda function, *arguments: function(*arguments))
    report = tmp_path / "peers.json"
    report.write_text(json.dumps(table("score", "assign", repeats=1)))
    told = ["--quick", "--no-memory", "--threads", "1", "--sizes.folder", str(tmp_path), "--json", str(report)]
    peers.main([*told, "--rows", "assign", "star", "--repeats", "1"])
    found = json.loads(report.read_text())["results"]
    assert list(dict.fromkeys(result["row"] for result in found)) == ["score", "star", "assign"]
    assert found[0]["seconds"] == [0.3, 0.1, 0.2] and len(found[-1]["seconds"]) == 1
    with pytest.raises(UserError, match="another repeats"):
        peers.main([*told, "--rows", "assign", "--repeats", "2"])
    with pytest.raises(UserError, match="no such row: yolo"):
        peers.main([*told, "--rows", "yolo"])


def test_the_page_is_made_from_the_json(tmp_path):
    page, report = tmp_path / "page.md", tmp_path / "peers.json"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    found = table("answer", "score")
    found["results"][1] = {k: v for k, v in found["results"][1].items() if k != "seconds"} | {"skipped": "no time"}
    report.write_text(json.dumps(found))
    for _ in range(2):
        peers.main(["--json", str(report), "--page", str(page)])
    before, inside, after = split(page.read_text(encoding="utf-8"))
    assert (before, after) == split(PAGE.read_text(encoding="utf-8"))[::2]
    assert "| 1 | ours, VFNet R-50 | 200 | 100 .. 300 | 5 |  |" in inside  # threads are said where they matter
    assert "| faster-coco-eval | 30 | 20 .. 40 | 0.15 | 12 |" in inside
    assert "no time" in inside and f"torch {found['versions']['torch']}" in inside and "of 3 rounds" in inside


def split(text):
    before, rest = text.split(peers.BEGIN)
    return before, *rest.split(peers.END)


def test_what_the_page_needs(tmp_path):
    page, report = tmp_path / "page.md", tmp_path / "peers.json"
    page.write_text("no marks")
    for problem in ("which: --json", "measure first", "no table", "no table", "no marks"):
        with pytest.raises(UserError, match=problem):
            peers.main(["--page", str(page), *([] if "which" in problem else ["--json", str(report)])])
        if problem == "measure first":
            report.write_text("[1, 2]")
        elif report.exists() and report.read_text() == "[1, 2]":
            report.write_text('{"sizes": {"moons": 1}}')
        elif report.exists():
            report.write_text(json.dumps(table("assign")))
    assert page.read_text() == "no marks"


def test_the_profiler_is_quiet():
    command = "-m vfnet_edu.bench model vfnet_tiny --size 64 64 --repeats 1 --profile 3 --device cpu".split()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0 and "all kernels of the star" in done.stdout
    assert not done.stderr
