"""Every number in the prose is what the executed chapter found."""

import ast
import datetime as dt

import pytest
from chapters import GIVEN, NOTEBOOKS, ROOT, code_cells, half_unit, numbers, read, value_of


@pytest.fixture(scope="module")
def executed():
    """The folder of the notebooks as the build has executed them."""
    folder = ROOT / "book/_build/jupyter_execute/notebooks"
    if not folder.exists():
        pytest.skip("build the book first: python book/build.py")
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_prose_says_what_was_measured(path, executed):
    notebook = read(executed / path.name)
    assert [c.id for c in notebook.cells] == [c.id for c in read(path).cells], "built from another version: build again"
    (output,) = code_cells(notebook)[-1].outputs
    results = ast.literal_eval(output["data"]["text/plain"])
    for printed, key in numbers(notebook):
        if key and key not in GIVEN:
            value, tolerance = results[key] if isinstance(results[key], tuple) else (results[key], half_unit(printed))
            close = abs(value_of(printed) - value) <= tolerance * (1 + 1e-9)
            assert close, f"prose says {printed}, measured {key} = {value}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_ran_and_in_time(path, executed):
    notebook = read(executed / path.name)
    cells = code_cells(notebook)
    assert all(c.execution_count for c in cells if c.source.strip()), "a cell was not executed"
    assert any(c.outputs for c in cells)
    times = [c.metadata["execution"] for c in cells if "execution" in c.metadata]
    if times:
        start, end = times[0]["iopub.execute_input"], times[-1]["shell.execute_reply"]
        spent = (dt.datetime.fromisoformat(end) - dt.datetime.fromisoformat(start)).total_seconds()
        assert 0.2 < spent < 240, f"{spent:.0f} s"
