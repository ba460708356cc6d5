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
from vfnet_edu.runtime.errors import UserError
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


def test_an_unknown_name_is_one_line():
    with pytest.raises(UserError, match="vfnet_huge: no such checkpoint"):
        vf.load("vfnet_huge")
