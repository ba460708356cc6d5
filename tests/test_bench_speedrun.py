"""The ladder: every rung is a recipe that can be run, each with one idea more, up to `vfnet_small` itself."""

import json
from dataclasses import replace

import pytest
import tyro

from vfnet_edu import recipes, train
from vfnet_edu.bench import speedrun
from vfnet_edu.bench.speedrun import RUNGS
from vfnet_edu.data.shapes import write_shape_scenes
from vfnet_edu.runtime.config import difference
from vfnet_edu.runtime.errors import UserError


def recipe_of(rung):
    base = train.Options(recipes.vfnet_small())
    return tyro.cli(train.Options, args=rung.options.split(), default=base).recipe


def test_every_rung_changes_one_thing_more_until_the_recipe_is_reached():
    recipes_of_rungs = [recipe_of(rung) for rung in RUNGS]
    away = [len(difference(recipe, recipes.vfnet_small())) for recipe in recipes_of_rungs]
    assert away[-1] == 0 and away == sorted(away, reverse=True) and len(set(away)) == len(away)


def test_the_first_rung_is_where_the_shipped_models_come_from():
    tiny = recipes.vfnet_tiny()
    first = recipe_of(RUNGS[0])
    assert set(difference(first, replace(tiny, optim=replace(tiny.optim, epochs=6)))) <= {"name", "backbone.width"}


def test_the_command(tmp_path, capsys, monkeypatch):
    """A rung of one step on a small set; the ladder's own training stands in a process of its own."""
    data = write_shape_scenes(tmp_path / "set", train=16, val=2, size=64)
    quick = f"--data {data} --optim.epochs 1 --data.augment.long-side 64 64 --data.augment.short-side 64 64"
    monkeypatch.setattr(speedrun, "RUNGS", (speedrun.Rung("quick", f"{quick} --data.workers 0"),))
    told = f"--rungs 0 --seeds 3 --threads 1 --out {tmp_path} --json {tmp_path / 'ladder.json'}".split()
    speedrun.main(told)
    assert "| quick |" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "ladder.json").read_text())["rows"]
    assert row["rung"] == 0 and len(row["AP"]) == len(row["seconds"]) == 1 and row["seconds"][0] > 0
    assert json.loads((tmp_path / "rung0_seed3" / "config.json").read_text())["recipe"]["seed"] == 3
    with pytest.raises(UserError, match="ended with 3: error: there is no folder"):
        speedrun.run_training(["vfnet_small", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "x")], 1)
