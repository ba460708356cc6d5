"""The README is true: tables are the recipes, claims have a recording behind them, links and commands exist."""

import re
from pathlib import Path

import pytest
from recorded import FOLDER
from test_detector import SYSTEMS
from test_recipes import HOSTS, ROWS, VFNET, VFNETX

from vfnet_edu import recipes
from vfnet_edu.__main__ import VERBS
from vfnet_edu.bench import losses
from vfnet_edu.runtime import config

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
TABLE = {  # recipe -> the other cells of its row
    cells[0].strip("`"): cells[1:]
    for cells in ([c.strip() for c in line.strip("|").split("|")] for line in TEXT.splitlines() if line[:3] == "| `")
}


def test_every_row_in_order():
    assert list(TABLE) == list(ROWS) == recipes.names()[: len(ROWS)]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_what_its_recipe_says(name):
    parameters, ap, *fps, _ = TABLE[name]
    published = recipes.by_name(name).published
    assert parameters == f"{ROWS[name][1] / 1e6:.2f} M"  # test_recipes.py counts them
    if name in HOSTS:
        assert ap == f"{published.ap_val:.1f}" and not fps
    else:
        assert ap == f"{published.ap_val:.1f} / {published.ap_test_dev:.1f}" and fps == [f"{published.fps_v100:.1f}"]


@pytest.mark.parametrize("name", ROWS)
def test_a_claim_has_its_evidence(name):
    """Never more than what is recorded; more recordings than claims are welcome."""
    claims = set(re.split(r"[,;] ", TABLE[name][-1]))
    architecture = ROWS[name][0]  # of the keys: one for both losses, and for all schedules
    system = {recipe: variant for variant, recipe in SYSTEMS.items()}.get(name, architecture)
    assert "keys" in claims  # test_recipes.py
    if "outputs" in claims:
        assert (FOLDER / f"det_{architecture}.npz").exists()
    if "gradients" in claims:
        assert (FOLDER / f"train_{system}.npz").exists()
    if "trained" in claims:
        assert name in sum(losses.ROWS.values(), ())
    for claim in claims - {"keys", "outputs", "gradients", "trained"}:  # test_backbones.py
        assert claim.startswith("backbone is t") and name in VFNET and "_dcn_" not in name


def test_links_and_pictures():
    linked = re.findall(r"\]\(([^)#\s]+)", TEXT) + re.findall(r'src="([^"]+)"', TEXT)
    linked = [p for p in linked if "://" not in p]
    assert linked and [p for p in linked if not (ROOT / p).exists()] == []


def test_commands_recipes_and_options():
    assert set(re.findall(r"python -m vfnet_edu\.(\w+)", TEXT)) <= set(VERBS)
    named = set(re.findall(r"\b(?:vfnetx?|atss|retinanet|foveabox|reppoints)_[rx]\d\w+", TEXT))
    assert set(VFNETX) < named <= set(recipes.names())
    known = set(config.flatten(recipes.vfnet_r50_1x()))
    assert {o.replace("-", "_") for o in re.findall(r"--([a-z]+\.[a-z.-]+)", TEXT)} <= known
