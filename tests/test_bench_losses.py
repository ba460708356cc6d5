"""The table of focal against varifocal loss: that its rows are comparable, and that the command makes it."""

import json

import pytest

from vfnet_edu import recipes
from vfnet_edu.bench import losses
from vfnet_edu.data.shapes import write_shape_scenes
from vfnet_edu.runtime import config
from vfnet_edu.runtime.errors import UserError


@pytest.mark.parametrize("kind", losses.ROWS)
def test_the_rows_of_a_head_differ_in_the_loss_alone(kind):
    focal, varifocal = losses.small(kind, "focal"), losses.small(kind, "varifocal")
    assert focal.head.loss == "focal" and varifocal.head.loss == "varifocal"
    assert set(config.difference(varifocal, focal)) <= {"name", "head.loss", "head.alpha", "head.gamma"}
    base = config.difference(focal, recipes.vfnet_tiny())
    assert {key.split(".")[0] for key in base} <= {"name", "backbone", "head", "detect", "optim"}
    assert {key for key in base if key[:6] in ("optim.", "backbo")} == {"optim.epochs", "backbone.width"}


def test_the_head_of_vfnet_is_that_of_vfnet_small():
    assert losses.small("vfnet", "varifocal").head == recipes.vfnet_small().head


def test_the_command(tmp_path, capsys):
    data = write_shape_scenes(tmp_path / "set", train=16, val=2, size=64)
    told = f"--heads retinanet --seeds 0 --steps 1 --size 64 --data {data} --out {tmp_path / 'runs'}".split()
    losses.main([*told, "--json", str(tmp_path / "table.json")])
    said = capsys.readouterr().out
    assert "retinanet  focal          1" in said and "retinanet  varifocal      1" in said and "seeds (0,)" in said
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [(row["head"], row["loss"], row["steps"]) for row in rows] == [
        ("retinanet", "focal", 1),
        ("retinanet", "varifocal", 1),
    ]
    with pytest.raises(UserError, match="no such head: yolo"):
        losses.main(["--heads", "yolo"])
