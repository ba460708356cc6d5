"""What holds for all explorers: no markup from strings, no request, helpers shared rather than copied."""

import json
import re
from pathlib import Path

import pytest

import vfnet_edu.widgets as widgets

ROOT = Path(__file__).parent.parent
FOLDER = Path(widgets.__file__).parent
SCRIPTS = sorted(FOLDER.glob("*.js"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_text_stays_text_and_nothing_is_fetched(path):
    text = path.read_text(encoding="utf-8").replace('"http://www.w3.org/2000/svg"', "")
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"):
        assert forbidden not in text
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|WebSocket|import\(|^import ", text, re.M)


def test_the_linter_knows_what_explorers_share():
    """common.js is put in front of every explorer, in the same module: what it exports needs no import."""
    (explorers,) = json.loads((ROOT / "biome.json").read_text(encoding="utf-8"))["overrides"]
    shared = (FOLDER / "common.js").read_text(encoding="utf-8")
    assert explorers["javascript"]["globals"] == sorted(re.findall(r"^export (?:const|function) (\w+)", shared, re.M))


def test_each_explorer_is_one_module_of_python_and_one_of_javascript():
    assert {p.stem for p in SCRIPTS} - {"common"} == set(widgets._HOME.values())
    for name, module in widgets._HOME.items():
        explorer = getattr(widgets, name)
        assert explorer.__module__ == f"vfnet_edu.widgets.{module}" and explorer.__doc__


def test_an_unknown_explorer():
    with pytest.raises(AttributeError, match="FluxExplorer"):
        widgets.FluxExplorer  # noqa: B018
