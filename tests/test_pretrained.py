"""The small models that come with the package are what the files beside them say."""

import json

import pytest

import vfnet_edu as vf
from vfnet_edu.data.coco import read_coco
from vfnet_edu.data.loader import val_loader
from vfnet_edu.data.shapes import CLASSES, write_shape_scenes
from vfnet_edu.evaluation.judge import judge
from vfnet_edu.evaluation.scores import coco_scores
from vfnet_edu.runtime.config import to_text
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.weights import zoo

NAMES = ("vfnet_tiny", "vfnet_tiny_focal")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = write_shape_scenes(tmp_path_factory.mktemp("shapes") / "scenes", train=8)
    return read_coco(folder / "annotations/instances_val.json", folder / "val")


@pytest.mark.parametrize("name", NAMES)
def test_numbers_beside_the_weights(name, scenes):
    file = zoo.SHIPPED / f"{name}.safetensors"
    assert file.stat().st_size < 2_000_000
    recipe, model = vf.load(name)
    assert model.classes == tuple(CLASSES) and not model.training
    assert file.with_suffix(".recipe.txt").read_text() == to_text(recipe) + "\n"
    said = json.loads(file.with_suffix(".json").read_text())
    outcome = judge(model, val_loader(scenes, recipe.data.test_scale, 20, workers=0), scenes, losses=False)
    assert len(scenes) == said["images"]
    assert coco_scores(scenes, outcome.results).record()["AP"] == pytest.approx(said["AP"], abs=0.003)
    assert outcome.calibration.spearman() == pytest.approx(said["rank_correlation"], abs=0.01)


def test_the_two_differ_in_their_loss_alone():
    one, other = (vf.load(name)[0] for name in NAMES)
    assert (one.head.loss, other.head.loss) == ("varifocal", "focal")
    changed = [(a, b) for a, b in zip(to_text(one).splitlines(), to_text(other).splitlines(), strict=True) if a != b]
    assert [a.split("=")[0].strip() for a, _ in changed] == ["head.loss", "head.alpha"]


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_gives_the_detector_alone(name):
    model = vf.pretrained(name)
    assert model.recipe == vf.load(name)[0] and not model.training
    assert all(v.isfinite().all() and v.device.type == "cpu" for v in model.parameters())


def test_the_readme_beside_the_weights_names_them():
    text = (zoo.SHIPPED / "README.md").read_text()
    assert tuple(zoo.shipped()) == NAMES and all(f'vf.load("{name}")' in text for name in NAMES)


@pytest.mark.parametrize(
    "name, near", [("vfnet_tine", "vfnet_tiny"), ("vfnet_r50", "vfnet_r50_1x"), ("runs/somewhere/best.pt", "")]
)
def test_an_unknown_name_is_one_line(name, near):
    for load in (vf.load, vf.pretrained):
        with pytest.raises(UserError, match=f"{name}: no such file or run folder") as error:
            load(name)
        text = str(error.value)
        assert "vfnet_tiny, vfnet_tiny_focal" in text and "row of the results tables" in text and "\n" not in text
        assert (f"did you mean {near}?" if near else "recipes.names()") in text
        assert error.value.code == Exit.CHECKPOINT
