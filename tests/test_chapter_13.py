"""Chapter 13: its kernels run and compile, its explorer fetches what they fetch, and it is a page without Triton."""

import importlib.util
import json
import os
import subprocess
import sys
from math import ceil
from pathlib import Path

import pytest
import torch
from chapters import ROOT, code_cells, read, tags
from javascript import in_node

from vfnet_edu.exercises import chapter_13
from vfnet_edu.ops.star.operator import star_conv2d

CHAPTER = ROOT / "notebooks/13_triton.ipynb"
SIZES = [
    (7, 9, 8, 0, 12.0),
    (3, 5, 4, 3, 24.0),
    (6, 8, 16, 8, 7.0),
    (7, 7, 8, 4, 20.0),
]  # rows, columns, tile, tap, reach
LEVELS = "levelsOf(data.rows, data.columns)"


def levels_of(rows: int, columns: int) -> list[tuple[int, int]]:
    sizes = [(rows, columns)]
    while len(sizes) < 3:
        sizes.append(tuple(ceil(n / 2) for n in sizes[-1]))
    return sizes


# ------------------------------------------------------------------ the explorer
@pytest.mark.parametrize("rows, columns, tile, tap, reach", SIZES)
def test_addresses_and_masks_are_those_of_the_operator(rows, columns, tile, tap, reach):
    """All programs of the launch, with the addresses of the explorer on a real map: what the operator samples."""
    how = {"size": tile, "tap": tap, "reach": reach, "channels": 3}
    programs = sum(ceil(h * w / tile) for h, w in levels_of(rows, columns))
    expression = f"data.programs.map((n) => [place(n, {LEVELS}, data.how.size), lanesOf(n, {LEVELS}, data.how)])"
    data = {"rows": rows, "columns": columns, "programs": list(range(programs)), "how": how}
    found = in_node("launch_grid", expression, data)
    for level, (height, width) in enumerate(levels_of(rows, columns)):
        x = torch.randn(1, 3, height, width, dtype=torch.float64)
        memory = x.permute(0, 2, 3, 1).flatten()
        mine = torch.full((height * width, 3), torch.nan, dtype=torch.float64)
        for where, lanes in found:
            for lane in filter(None, lanes if where["level"] == level else []):
                inside = [one for one in lane["fetches"] if one["inside"]]
                sample = [one["share"] * memory[one["address"] : one["address"] + 3] for one in inside]
                mine[lane["cell"]] = sum(sample, torch.zeros(3, dtype=torch.float64))
        only = torch.zeros(3, 3, 9, dtype=torch.float64)
        only[:, :, tap] = torch.eye(3)
        ltrb = torch.full((1, 4, height, width), reach, dtype=torch.float64)
        wanted = star_conv2d(x, ltrb, only.view(3, 3, 3, 3), 8 << level, "reference")
        torch.testing.assert_close(mine, wanted[0].flatten(1).T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows, columns, tile, tap, reach", SIZES)
def test_programs_are_counted_as_in_the_exercise(rows, columns, tile, tap, reach):
    sizes = levels_of(rows, columns)
    programs = sum(ceil(h * w / tile) for h, w in sizes)
    data = {"rows": rows, "columns": columns, "programs": list(range(programs)), "tile": tile}
    got = in_node("launch_grid", f"data.programs.map((n) => place(n, {LEVELS}, data.tile))", data)
    for program, where in enumerate(got):
        assert (where["level"], where["first"], where["count"]) == chapter_13.tile.reference(program, sizes, tile)


def test_what_a_masked_fetch_would_read():
    wrong = "mistaken({row: data[0], column: data[1], inside: false}, [7, 9])"
    assert in_node("launch_grid", wrong, [2, -1]) == [1, 8]
    assert in_node("launch_grid", wrong, [2, 9]) == [3, 0]
    assert in_node("launch_grid", wrong, [-1, 10]) == [0, 1]
    assert in_node("launch_grid", wrong, [-1, 3]) is None and in_node("launch_grid", wrong, [7, 0]) is None
    assert in_node("launch_grid", "mistaken({row: 2, column: 3, inside: true}, [7, 9])") is None


def test_steps():
    step = "moved(data[0], data[1], data[2], levelsOf(7, 9))"
    assert in_node("launch_grid", step, [[0, 28], 1, 0]) == [0, 29]
    assert in_node("launch_grid", step, [[0, 62], 1, 0]) == [1, 0]  # the programs go on with the next level
    assert in_node("launch_grid", step, [[0, 0], -1, 0]) == [0, 0]
    assert in_node("launch_grid", step, [[0, 28], 0, -1]) == [0, 19]
    assert in_node("launch_grid", step, [[2, 3], 10, 1]) == [2, 5]


def test_words():
    say = "words(levelsOf(7, 9), data[0], {size: 8, tap: data[1], reach: 12, channels: 16})"
    assert in_node("launch_grid", say, [[0, 28], 0]) == (
        "Program 3 of 0 to 11 works on P3, 7 × 9 cells. Lane 4, cell (3, 1): tap 1, top left, reads at row 1.5, "
        "column −0.5; 2 of its 4 fetches are masked. Without its mask, address 128 would be cell (0, 8): valid memory, "
        "wrong cell."
    )
    last = in_node("launch_grid", say, [[0, 62], 8])
    assert "and only 7 of its 8 lanes have a cell" in last and "memory behind the map" in last
    assert "all 4 fetches are on the map." in in_node("launch_grid", say, [[0, 28], 4])
    assert "memory in front of the map" in in_node("launch_grid", say, [[0, 0], 0])


def test_explorer():
    pytest.importorskip("anywidget", reason="the explorers need anywidget")
    from vfnet_edu.widgets import LaunchGridExplorer

    explorer = LaunchGridExplorer()
    assert explorer.levels == [(7, 9, 8), (4, 5, 16), (2, 3, 32)] and explorer.program == 3
    for at in ([0, 62], [1, 0], [1, 19], [2, 5]):
        explorer.at = at
        data = {"rows": 7, "columns": 9, "at": at}
        assert explorer.program == in_node("launch_grid", f"programOf(data.at, {LEVELS}, 8)", data)


# ------------------------------------------------------------------ the kernels of the chapter
def kernels_of_the_chapter() -> str:
    """They need a file: Triton reads their source."""
    sources = [cell.source for cell in code_cells(read(CHAPTER))]
    kernels = [source for source in sources if source.startswith("@triton.jit")]
    assert len(kernels) == 8
    launch = [source for source in sources if source.startswith("def my_star")]
    rows = "def rows(t):\n    return t[0].flatten(1).T.contiguous()"
    return "\n\n\n".join(["import torch\nimport triton\nimport triton.language as tl", rows, *kernels, *launch]) + "\n"


def module_of_the_chapter(folder: Path):
    path = folder / "kernels_of_chapter_13.py"
    path.write_text(kernels_of_the_chapter(), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BOXES = {
    "inside": lambda *shape: 4 * torch.rand(shape),
    "whole cells": lambda *shape: torch.randint(0, 4, shape) * 8.0,
    "across the border": lambda *shape: 20 + 40 * torch.rand(shape),
}


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="the chapter runs in Triton's interpreter")
@pytest.mark.parametrize("boxes", BOXES)
def test_kernels(boxes, tmp_path):
    pytest.importorskip("triton")
    mine, sizes, strides = module_of_the_chapter(tmp_path), [(5, 7), (3, 2), (1, 1)], [8, 16, 32]
    xs = [torch.randn(1, 16, *size) for size in sizes]
    ltrbs = [BOXES[boxes](1, 4, *size) * (stride / 8) for size, stride in zip(sizes, strides, strict=True)]
    weight = torch.randn(32, 16, 3, 3) / 12
    for y, x, ltrb, stride in zip(mine.my_star(xs, ltrbs, weight, strides), xs, ltrbs, strides, strict=True):
        torch.testing.assert_close(y, star_conv2d(x, ltrb, weight, stride, "reference"), rtol=0, atol=1e-5)


COMPILE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import kernels_of_chapter_13 as mine
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

LEVELS = ((100, 168, 8), (50, 84, 16), (25, 42, 32))
maps = {name: "*fp32" for name in ("x_ptr", "ltrb_ptr", "weight_ptr", "out_ptr", "columns_ptr")}
numbers = {name: "i32" for name in ("H", "W", "stride")}
fixed = {"C": 64, "O": 64, "M": 32, "LEVELS": LEVELS}
for name in ("one_tap", "nine_taps", "star", "star_pyramid"):
    kernel = getattr(mine, name)
    constants = {key: value for key, value in fixed.items() if key in kernel.arg_names}
    types = {key: (maps | numbers | dict.fromkeys(constants, "constexpr"))[key] for key in kernel.arg_names}
    source = ASTSource(kernel, signature=types, constexprs=constants)
    code = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    print(name, "mma" in code)
"""


def test_the_kernels_compile_for_a_gpu(tmp_path):
    """With no GPU: the lines that the interpreter runs are Triton's language, and the product is on tensor cores."""
    pytest.importorskip("triton")
    (tmp_path / "kernels_of_chapter_13.py").write_text(kernels_of_the_chapter(), encoding="utf-8")
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", COMPILE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["one_tap False", "nine_taps False", "star True", "star_pyramid True"]


# ------------------------------------------------------------------ where there is no Triton
READER = """
import json, sys
sys.modules["triton"] = None  # as if it were not installed
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for source in json.load(sys.stdin):
    shell.run_cell(source).raise_error()
"""


def test_without_triton_the_chapter_says_so_and_goes_on(tmp_path):
    pytest.importorskip("anywidget", reason="the explorers need anywidget")
    sources = [cell.source for cell in code_cells(read(CHAPTER)) if "colab" not in cell.source]
    quick = [source.replace("exam_scenes(50)", "exam_scenes(2)") for source in sources]
    environment = os.environ | {"MPLBACKEND": "agg", "TRITON_INTERPRET": "0", "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", READER], input=json.dumps(quick), capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    assert done.stdout.count("No Triton here") == 1


def test_cells_that_need_triton_name_it():
    """That is how they are left out where it is not installed: a launch, too."""
    for cell in code_cells(read(CHAPTER)):
        launches = any(f"{name}[" in cell.source for name in ("one_tap", "nine_taps", "star", "star_pyramid"))
        assert not launches or "triton" in cell.source
        assert "exercise" not in " ".join(tags(cell)) or "triton" not in cell.source
