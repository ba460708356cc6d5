"""What every chapter must be before it is run, and that its solutions are right."""

import ast
import contextlib
import io
import re

import matplotlib
import nbformat
import pytest
from chapters import GIVEN, NOTEBOOKS, code_cells, exercise_names, numbers, read, solutions, tags, value_of

chapters = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
COLAB = """# On Colab this installs the package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    %pip install -q "vfnet_edu[notebook]\""""


@pytest.fixture(autouse=True)
def own_style():
    """The chapters choose a look; it ends with the test."""
    with matplotlib.rc_context():
        yield


def test_there_are_chapters():
    assert {int(p.stem[:2]) for p in NOTEBOOKS} == {*range(19)}


@chapters
def test_clean(path):
    text = path.read_text(encoding="utf-8")
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert not cell.outputs and cell.execution_count is None, "strip the outputs"
    ids = [c.id for c in notebook.cells]
    assert len(ids) == len(set(ids))
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert not re.search(r"(?<!\w)/(home|root|work|tmp|opt|Users)/", text), "an absolute path"
    assert not re.search(r"```\{|:::|\{(ref|eq|numref|cite|doc)\}`", text), "a directive that JupyterLab cannot show"


@chapters
def test_opening(path):
    title, colab, imports = read(path).cells[:3]
    number = int(path.stem[:2])
    assert re.match(rf"# {number}\. .+\?\n|# {number}\. .+\n", title.source)
    for promise in ("**The question.**", "**Time.**", "**The number to expect.**"):
        assert f"> {promise}" in title.source
    assert colab.source == COLAB and tags(colab) == ["remove-cell"]
    assert 'plt.style.use("vfnet_edu.viz.chapter")' in imports.source


@chapters
def test_ends_with_what_would_break(path):
    texts = [c.source for c in read(path).cells if c.cell_type == "markdown"]
    headings = re.findall(r"^## (.+)$", "\n".join(texts), re.M)
    assert headings[-1].startswith("What would break"), headings[-1]


@chapters
def test_figures_speak(path):
    """Alt text and caption on every figure; a caption without numbers that could go stale."""
    for cell in code_cells(read(path)):
        draws = "plt.show()" in cell.source
        style = cell.metadata.get("mystnb", {})
        assert draws <= bool(style), f"a figure without alt text: {cell.source[:80]}"
        if style:
            assert len(style["image"]["alt"]) > 40 and len(style["figure"]["caption"]) > 40
            assert style["figure"]["name"].startswith("fig-")


def test_every_figure_has_a_name_of_its_own():
    figures = [c.metadata.get("mystnb", {}).get("figure", {}) for p in NOTEBOOKS for c in code_cells(read(p))]
    names = [figure["name"] for figure in figures if "name" in figure]
    assert [name for name in names if names.count(name) > 1] == []


@chapters
def test_fits_the_page(path):
    """Code is not cut at 1280 px, what the reader sees is short, and a figure can be read on a phone (CONTRIBUTING)."""
    notebook = read(path)
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    blocks = re.findall(r"```\w*\n(.*?)```", prose, re.S)
    for cell in code_cells(notebook):
        if "remove-cell" in tags(cell):
            continue
        blocks.append(cell.source)
        lines = cell.source.count("\n") + 1
        assert lines <= 15 or "hide-input" in tags(cell), f"{lines} lines that everybody sees: {cell.source[:60]}"
        for inches in re.findall(r"figsize=\(([\d.]+)", cell.source):
            assert float(inches) <= 4.8, f"a figure of {inches} inches: {cell.source[:60]}"
    for line in "\n".join(blocks).splitlines():
        assert len(line) <= 76, f"{len(line)} columns: {line}"


@chapters
def test_exercises_have_solutions_that_are_right(path, monkeypatch):
    """Each solution, in place of its stub, after the imports alone."""
    matplotlib.use("agg")
    monkeypatch.setenv("VFNET_EDU_STRICT", "1")
    notebook = read(path)
    names, found = exercise_names(notebook), solutions(notebook)
    assert 2 <= len(names) <= 4 and list(found) == names
    space = {}
    with contextlib.redirect_stdout(io.StringIO()) as told:
        for cell in [notebook.cells[2], *code_cells(notebook, "exercise-needs")]:
            exec(compile(cell.source, path.name, "exec"), space)
        for name in names:
            exec(compile(found[name], f"{path.name}, {name}", "exec"), space)
    assert told.getvalue().count("Right.") == len(names)


@chapters
def test_stubs_are_told_not_yet(path, capsys):
    matplotlib.use("agg")
    notebook, space = read(path), {}
    for cell in [notebook.cells[2], *code_cells(notebook, "exercise-needs")]:
        exec(compile(cell.source, path.name, "exec"), space)
    capsys.readouterr()
    for name in exercise_names(notebook):
        (cell,) = code_cells(notebook, name)
        exec(compile(cell.source, f"{path.name}, {name}", "exec"), space)
        assert capsys.readouterr().out.startswith("Not yet. The function returns nothing yet"), name


@chapters
def test_numbers_say_where_they_come_from(path):
    """A number in the prose is one of RESULTS, or says that it is given; small whole numbers speak for themselves."""
    notebook = read(path)
    last = code_cells(notebook)[-1]
    assert tags(last) == ["remove-cell"] and last.source.startswith("RESULTS = ") and last.source.endswith("\nRESULTS")
    (mapping,) = (n.value for n in ast.walk(ast.parse(last.source)) if isinstance(n, ast.Assign))
    keys = {k.value for k in mapping.keys}
    assert len(keys) == len(mapping.keys), "a key twice"
    for printed, key in numbers(notebook):
        if key is None:
            assert "." not in printed and abs(value_of(printed)) < 20, f"where does {printed} come from?"
        else:
            assert key in keys | GIVEN, f"{printed}: RESULTS has no {key}"
    used = {key for _, key in numbers(notebook)}
    assert keys <= used, f"RESULTS that no sentence uses: {keys - used}"


@chapters
def test_what_is_shown_knows_its_chapter(path):
    """The docstring of whatever a chapter derives leads back to it."""
    notebook, space = read(path), {}
    source = "\n".join(c.source for c in code_cells(notebook))
    exec(compile(notebook.cells[2].source, path.name, "exec"), space)
    for shown in re.findall(r"vf\.show\(([\w.]+)\)", source):
        if shown.startswith("triton"):
            pytest.importorskip("triton")
        thing = eval(shown, space)
        chapter = f"chapter {int(path.stem[:2])}"
        assert re.search(rf"{chapter}\b", thing.__doc__ or ""), f"{shown}: no '{chapter}' in its docstring"
