"""How the tests read a chapter: its cells, its numbers, its exercises."""

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NUMBER = re.compile(r"(?<![\w.,/^-])([−-]?\d[\d,]*(?:\.\d+)?)(?:\s?(?:<!--([\w ]+)-->))?")
GIVEN = {"given", "paper"}  # a choice or a definition; a fact with its source beside it


def read(path: Path):
    return nbformat.read(path, 4)


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def code_cells(notebook, tag: str = "") -> list:
    return [c for c in notebook.cells if c.cell_type == "code" and (not tag or tag in tags(c))]


def exercise_names(notebook) -> list[str]:
    return [t for c in notebook.cells for t in tags(c) if t.startswith("exercise-") and t != "exercise-needs"]


def solutions(notebook) -> dict[str, str]:
    """Exercise -> the Python of the folded solution behind it."""
    found, waiting = {}, None
    for cell in notebook.cells:
        names = [t for t in tags(cell) if t.startswith("exercise-") and t != "exercise-needs"]
        if names:
            waiting = names[0]
        elif waiting and cell.source.startswith("<details><summary>Solution</summary>"):
            found[waiting] = "\n".join(re.findall(r"```python\n(.*?)```", cell.source, re.S))
            waiting = None
    return found


def prose(cell) -> str:
    """A Markdown cell without what is not prose: code, maths, links' targets, headings, HTML tags, tables' rules."""
    text = re.sub(r"```.*?```", " ", cell.source, flags=re.S)
    text = re.sub(r"^#+ .*$", " ", text, flags=re.M)
    text = re.sub(r"\$\$.*?\$\$", " ", text, flags=re.S)
    text = re.sub(r"\$[^$\n]+\$", " ", text)
    text = re.sub(r"`[^`]+`", " ", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", lambda m: re.sub(r"\d", "", m[1]), text)
    return re.sub(r"<(?!!--)[^>]+>", " ", text)


def numbers(notebook) -> list[tuple[str, str | None]]:
    """(number as printed, its key or None) of the whole prose."""
    return [m.groups() for c in notebook.cells if c.cell_type == "markdown" for m in NUMBER.finditer(prose(c))]


def value_of(printed: str) -> float:
    return float(printed.replace(",", "").replace("−", "-"))


def half_unit(printed: str) -> float:
    """Half a unit of the last printed digit."""
    return 0.5 * 10.0 ** -len(printed.partition(".")[2])
