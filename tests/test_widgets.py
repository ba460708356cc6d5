"""What holds for all explorers: no markup from strings, no request, helpers shared rather than copied."""

import json
import re
from pathlib import Path

import matplotlib
import matplotlib.style
import pytest
from javascript import in_node

import vfnet_edu.widgets as widgets
from vfnet_edu.viz import chapters
from vfnet_edu.widgets.front_end import LIBRARIES

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
    every, *overrides = json.loads((ROOT / "biome.json").read_text(encoding="utf-8"))["overrides"]
    known = {Path(path).stem: one["javascript"]["globals"] for one in overrides for path in one["includes"]}
    assert known.keys() == LIBRARIES.keys()
    for name, names in (known | {"": every["javascript"]["globals"]}).items():
        files = ("common", *LIBRARIES.get(name, ()))
        text = "\n".join((FOLDER / f"{file}.js").read_text(encoding="utf-8") for file in files)
        assert names == sorted(re.findall(r"^export (?:const|function|class) (\w+)", text, re.M))


def test_a_loss_looks_the_same_in_figures_and_in_explorers():
    colours = {chapters.ORANGE: "orange", chapters.PINK: "pink", chapters.GREEN: "green", chapters.BLUE: "blue"}
    look = in_node("loss", "LOOK")
    assert list(look) == list(chapters.LOSSES)
    for name, line in chapters.LOSSES.items():
        assert look[name]["stroke"] == f"var(--ve-{colours[line['color']]})"
        dashes = len(look[name].get("stroke-dasharray", "").split())
        assert dashes == {"-": 0, "--": 2, ":": 2, "-.": 4}[line["ls"]]


def test_the_cycle_of_the_style_has_the_colours_by_name():
    with matplotlib.style.context("vfnet_edu.viz.chapter"):
        cycle = [entry["color"].lower() for entry in matplotlib.rcParams["axes.prop_cycle"]]
    named = (chapters.BLUE, chapters.ORANGE, chapters.GREEN, chapters.PINK, chapters.YELLOW, chapters.SKY, chapters.INK)
    assert [f"#{colour.lstrip('#')}" for colour in cycle] == [colour.lower() for colour in named]


def test_each_explorer_is_one_module_of_python_and_one_of_javascript():
    libraries = {"common"}.union(*LIBRARIES.values())
    assert {p.stem for p in SCRIPTS} - libraries == set(widgets._HOME.values())
    for name, module in widgets._HOME.items():
        explorer = getattr(widgets, name)
        assert explorer.__module__ == f"vfnet_edu.widgets.{module}" and explorer.__doc__


def test_an_unknown_explorer():
    with pytest.raises(AttributeError, match="FluxExplorer"):
        widgets.FluxExplorer  # noqa: B018
