"""Chapter 17: the recipe calculator counts what the package counts, plans what training does, and invents no AP."""

import json
import math
from dataclasses import replace

import pytest
import torch
import traitlets
from javascript import in_node

from vfnet_edu import recipes
from vfnet_edu.bench import deform, interval
from vfnet_edu.models.detector import build
from vfnet_edu.models.heads.vfnet import VFNetConfig
from vfnet_edu.models.necks import FPNConfig, PAFPNConfig
from vfnet_edu.priors import ceil32
from vfnet_edu.recipe import Recipe
from vfnet_edu.summary import count_flops, kept_for_backward, summarize

pytest.importorskip("anywidget", reason="the explorers need anywidget")


@pytest.fixture(scope="module")
def explorer():
    from vfnet_edu.widgets.recipe_calculator import RecipeCalculator

    return RecipeCalculator()


CHOICE = ("backbone", "dcn", "neck", "channels", "size", "schedule", "gpus", "images_per_gpu", "speed")
TABLES = ("counts", "rows", "schedules", "depths", "sizes", "images")


def choice_of(explorer, **changes) -> dict:
    return {key: getattr(explorer, key) for key in CHOICE} | changes


def in_page(explorer, expression: str, **changes):
    """The value of an expression that sees `choice` and the tables, `what`."""
    given = {"choice": choice_of(explorer, **changes), "what": {key: getattr(explorer, key) for key in TABLES}}
    return in_node("recipe_calculator", f"(({{ choice, what }}) => {expression})(data)", given)


def as_recipe(choice: dict) -> Recipe:
    """The detector of a choice, as the package would build it."""
    from vfnet_edu.widgets.recipe_calculator import BACKBONES, DEPTHS

    channels = choice["channels"]
    return Recipe(
        "of the page",
        backbone=replace(BACKBONES[choice["backbone"]], dcn=choice["dcn"]),
        neck={"fpn": FPNConfig, "pafpn": PAFPNConfig}[choice["neck"]](channels=channels),
        head=VFNetConfig(channels=channels, depth=DEPTHS[choice["neck"]], dcn=choice["dcn"]),
    )


TRIED = [
    {},
    {"backbone": "R2-101", "dcn": True, "neck": "pafpn", "channels": 384, "size": 1200},  # VFNet-X-1200
    {"backbone": "R-50", "dcn": True, "channels": 320, "size": 400},
    {"backbone": "X-101-64x4d", "neck": "pafpn", "channels": 128, "size": 1000},
]


@pytest.mark.parametrize("changes", TRIED)
def test_the_page_counts_what_the_package_counts(explorer, changes):
    choice = choice_of(explorer, **changes)
    got = in_page(explorer, "calculate(choice, what)", **changes)
    with torch.device("meta"):
        model = build(as_recipe(choice))
    short = choice["size"]
    (width,) = (w for w, h, *_ in explorer.sizes if h == short)
    size = (ceil32(short), ceil32(width))
    parts = summarize(model, size)
    for part in got["parts"]:
        mine = [p for p in parts if p.name.split(".")[0].split(" ")[0] == part["name"]]
        assert part["parameters"] == sum(p.parameters for p in mine), part["name"]
        assert part["flops"] == sum(p.flops for p in mine), part["name"]
    trained = parts[-1].trained
    assert got["state"] == 4 * got["parameters"] + 8 * trained


def test_memory_is_that_of_one_pass_to_a_percent(explorer):
    """Levels are counted by their cells; the statistics of norms and the cut of the coarse levels are not."""
    with torch.device("meta"):
        model = build(as_recipe(choice_of(explorer)))
        images = torch.empty(2, 3, 800, 1344)
    wanted = kept_for_backward(lambda: model.network(images), model.parameters())
    got = in_page(explorer, "calculate(choice, what).kept")
    assert got == pytest.approx(wanted, rel=0.01)
    assert 2 < wanted / 1e9 < 4  # what chapter 18 counts


def test_each_published_row_is_found_and_nothing_else(explorer):
    assert len(explorer.rows) == 15
    for row in explorer.rows:
        recipe = getattr(recipes, row["name"])()
        choice = {key: value for key, value in row.items() if key in CHOICE}
        told = in_page(explorer, "words(choice, what)", **choice)
        assert f"The authors' {row['name']}: {recipe.published.ap_val} AP on val2017" in told
        assert f"{recipe.published.ap_test_dev} on test-dev." in told
        with torch.device("meta"):
            wanted = sum(p.numel() for p in build(recipe).parameters())
        assert in_page(explorer, "calculate(choice, what).parameters", **choice) == wanted
    for changes in ({"channels": 288}, {"size": 600}, {"schedule": "2x"}, {"dcn": True}, {"neck": "pafpn"}):
        assert in_page(explorer, "words(choice, what)", **changes).endswith("No AP was published for this one.")
    assert "with 16 images a step" in in_page(explorer, "words(choice, what)", gpus=4)


def test_the_plan_is_that_of_training(explorer):
    plan = in_page(explorer, "planOf(choice, what)")
    steps = math.ceil(math.ceil(explorer.images / 2) / 8)
    assert (plan["perGpu"], plan["passes"]) == (2, 1)
    assert plan["steps"] == steps == 7330 and plan["all"] == 12 * steps and plan["rate"] == pytest.approx(0.01)
    assert plan["hours"] == pytest.approx(plan["all"] * 16 / (8 * explorer.speed) / 3600, rel=1e-12)
    longer = in_page(explorer, "planOf(choice, what)", schedule="41 + 18", gpus=16, images_per_gpu=4)
    assert longer["epochs"] == 59 and longer["rate"] == pytest.approx(0.04)  # 64 images a step


def test_every_schedule_is_a_recipes(explorer):
    from vfnet_edu.widgets.recipe_calculator import schedule_of

    for row in explorer.rows:
        recipe, plan = getattr(recipes, row["name"])(), explorer.schedules[row["schedule"]]
        assert schedule_of(recipe) == row["schedule"]
        assert (plan["epochs"], plan["swa_epochs"]) == (recipe.optim.epochs, recipe.swa.epochs)
        assert tuple(plan["drop_at"]) == recipe.optim.drop_at


def test_explorer(explorer):
    with pytest.raises(traitlets.TraitError):
        explorer.backbone = "R-18"
    text = in_page(explorer, "words(choice, what)")
    assert text.startswith("32.9 M parameters and 456 GFLOP for an image of 1333 × 800; at least 3.")
    assert "8 GPUs × 2 images = 16 a step, learning rate 0.0100; 87,960 steps take " in text


def test_counting_is_of_what_runs():
    layer = torch.nn.Conv2d(3, 8, 3, bias=False)
    image = torch.ones(1, 3, 12, 12)
    assert count_flops(lambda: layer(image))["Global"] == 2 * 27 * 8 * 100
    assert kept_for_backward(lambda: layer(image), layer.parameters()) == image.nbytes
    assert kept_for_backward(lambda: layer(image), [image, *layer.parameters()]) == 0
    with torch.no_grad():
        assert kept_for_backward(lambda: layer(image)) == 0


def test_what_was_recorded_is_what_the_commands_write(tmp_path, capsys):
    """Both measurements, on a handful of scenes: the same keys as in the files that the chapter reads."""
    few, written = ["--scenes", "8", "--exam", "3", "--draws", "20"], tmp_path / "interval.json"
    interval.main([*few, "--json", str(written)])
    made, recorded = (json.loads(path.read_text("utf-8")) for path in (written, interval.RECORDED))
    assert made.keys() == recorded.keys() and made["rows"].keys() == recorded["rows"].keys()
    gap = made["rows"]["difference"]
    assert len(gap["exams"]) == 2 and gap.keys() == recorded["rows"]["difference"].keys()
    first, second = (made["rows"][name]["AP"] for name in made["models"])
    assert gap["AP"] == pytest.approx(second - first, abs=2e-3)

    few, written = ["--seeds", "0", "--rates", "0", "1", "--steps", "20", "--batch", "2"], tmp_path / "deform.json"
    deform.main([*few, "--lessons", "4", "--exams", "4", "--json", str(written)])
    made, recorded = (json.loads(path.read_text("utf-8")) for path in (written, deform.RECORDED))
    assert made.keys() == recorded.keys()
    assert all(row.keys() == recorded["rows"][0].keys() for row in made["rows"])
    plain, moved = made["rows"]
    assert plain["moved"] == 0 < moved["moved"] and plain["mask"] == 1
    assert {(row["seed"], row["rate"]) for row in recorded["rows"]} == {(s, r) for s in range(3) for r in (0, 0.1, 1)}
    assert "seed  rate" in capsys.readouterr().out
