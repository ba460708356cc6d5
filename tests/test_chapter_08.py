"""Chapter 8: the switchboard computes what the library computes, and its exercises know each mistake."""

import base64
import itertools
import json

import pytest
import torch
from javascript import in_node

import vfnet_edu as vf
from vfnet_edu.boxes import centers, clip, iou
from vfnet_edu.evaluation.average_precision import THRESHOLDS, average_precision, match
from vfnet_edu.evaluation.oracle import Switches, Truth, by_overlap, switched
from vfnet_edu.exercises import chapter_08
from vfnet_edu.postprocess import Candidates, DetectConfig, select

pytest.importorskip("anywidget", reason="the explorers need anywidget")
from vfnet_edu.widgets import OracleExplorer, detector  # noqa: E402
from vfnet_edu.widgets.oracle import CHOICES, oracle_scene  # noqa: E402

CONFIG = DetectConfig(min_score=0.05)
STATES = [dict(zip(CHOICES, at, strict=True)) for at in itertools.product(*CHOICES.values())]


@pytest.fixture(scope="module")
def drawn():
    """Two objects and 60 predictions around them, in float64: candidates, truth, points, and the scene of the page."""
    g = torch.Generator().manual_seed(8)
    target = {"boxes": torch.tensor([[10.0, 12, 50, 44], [60, 30, 90, 80]]).double(), "labels": torch.tensor([2, 0])}
    around = target["boxes"][torch.arange(60) % 2] + 6 * torch.randn(60, 4, generator=g, dtype=torch.float64)
    around[50:] = torch.tensor([100.0, 100, 110, 110], dtype=torch.float64)  # background
    boxes = clip(torch.cat([around[:, :2], torch.maximum(around[:, 2:], around[:, :2] + 2)], 1), (96, 128))
    scores = torch.rand(1, 60, 3, generator=g, dtype=torch.float64) ** 3
    scores[:, 55:] = 0.02  # nothing can bring these to the surface: the page does without
    points = (boxes[:, :2] + boxes[:, 2:]) / 2
    candidates = Candidates(_round(scores, 4), _round(boxes, 2)[None], [60])
    truth = by_overlap(candidates.boxes, [target])
    truth = truth._replace(ious=_round(truth.ious, 4))
    image = torch.full((3, 96, 128), 90, dtype=torch.uint8)
    return candidates, truth, points, oracle_scene("scene 1", image, 0, candidates, truth, points, target, CONFIG)


def _round(x, digits):
    return torch.tensor([round(v, digits) for v in x.flatten().tolist()], dtype=torch.float64).view(x.shape)


def rows_of(candidates: Candidates, truth: Truth):
    return (truth.told[0] | (candidates.scores[0].amax(1) > CONFIG.min_score)).nonzero()[:, 0]


def test_every_switch_of_the_page_is_that_of_the_library(drawn):
    candidates, truth, points, scene = drawn
    told = in_node("oracle", "data[1].map((state) => switched(data[0], state))", [scene, STATES])
    rows = rows_of(candidates, truth)
    for state, mine in zip(STATES, told, strict=True):
        wanted = switched(candidates, truth, points, Switches(**state))
        for name, value in (("scores", wanted.scores[0, rows]), ("boxes", wanted.boxes[0, rows])):
            torch.testing.assert_close(torch.tensor(mine[name], dtype=torch.float64), value, rtol=0, atol=1e-12)
        if state["center"] == "true":
            factor = torch.tensor(mine["factor"], dtype=torch.float64)
            torch.testing.assert_close(factor, wanted.factor[0, rows], rtol=0, atol=5.1e-5)  # sent with four digits


def test_the_list_of_the_page_is_that_of_the_library(drawn):
    candidates, truth, points, scene = drawn
    states = [state for state in STATES if state["center"] == "none"]
    told = in_node("oracle", "data[1].map((state) => reported(data[0], state))", [scene, states])
    for state, mine in zip(states, told, strict=True):
        found = select(switched(candidates, truth, points, Switches(**state)), 0, (96, 128), CONFIG)
        assert [one["label"] for one in mine] == found.labels.tolist()
        scores = torch.tensor([one["score"] for one in mine], dtype=torch.float32)
        torch.testing.assert_close(scores, found.scores, rtol=1e-6, atol=1e-6)  # the library selects in float32
        torch.testing.assert_close(
            torch.tensor([one["box"] for one in mine], dtype=torch.float32), found.boxes, rtol=1e-6, atol=1e-4
        )


def test_the_iou_of_the_page(drawn):
    candidates, truth, _, scene = drawn
    told = in_node(
        "oracle", "data.boxes.map((box, i) => data.owners[i] < 0 ? 0 : iou(box, data.objects[data.owners[i]]))", scene
    )
    exact = by_overlap(candidates.boxes, [{"boxes": truth.boxes[0, :2], "labels": truth.labels[0, :2]}]).ious
    torch.testing.assert_close(
        torch.tensor(told, dtype=torch.float64), exact[0, rows_of(candidates, truth)], rtol=0, atol=1e-12
    )


def test_verdicts():
    scene = {"objects": [[0, 0, 10, 10, 1], [20, 0, 30, 10, 0]]}
    kept = [
        {"label": 1, "score": 0.9, "box": [0, 0, 10, 9]},
        {"label": 1, "score": 0.8, "box": [0, 0, 10, 10]},  # better, and too late
        {"label": 1, "score": 0.7, "box": [20, 0, 30, 10]},
        {"label": 0, "score": 0.6, "box": [25, 0, 35, 10]},
        {"label": 0, "score": 0.5, "box": [20, 0, 30, 8]},
    ]
    told = in_node("oracle", "judged(data[0], data[1])", [scene, kept])
    assert [one["verdict"] for one in told] == ["found", "a second one", "wrong class", "too loose", "found"]
    assert [round(one["iou"], 3) for one in told] == [0.9, 1, 1, 0.333, 0.8]


def test_words(drawn):
    scene = drawn[3]
    aps = {"/".join(state.values()): 50.0 for state in STATES} | {"sorted/own/own/none": 61.25}
    say = "words({...data[1], rank: 1}, data[2], ['a', 'b', 'c'], judged(data[0], reported(data[0], data[1])))"
    own, dealt = STATES[0], STATES[0] | {"score": "sorted"}
    assert "50.0, as with nothing replaced." in in_node("oracle", say, [scene, own, aps])
    assert "11.3 more than with nothing replaced. Number 1 of" in in_node("oracle", say, [scene, dealt, aps])
    nothing = scene | {"scores": [[0, 0, 0] for _ in scene["scores"]]}
    assert in_node("oracle", say, [nothing, own, aps]).endswith("In this scene nothing is reported.")


def test_state_of_the_switchboard(drawn):
    scene = drawn[3]
    assert len(json.dumps(scene)) < 20_000 and len(scene["boxes"]) == 55 and scene["size"] == [128, 96]
    explorer = OracleExplorer(scenes=[scene], aps={"own/own/own/none": 1.0}, classes=["a", "b", "c"])
    assert Switches(explorer.score, explorer.label, explorer.box, explorer.center) == Switches("one", "true")
    with pytest.raises(Exception, match="guess"):
        explorer.score = "guess"


# ------------------------------------------------------------------ the reader's own scene
OWN = """(async () => {
  const network = new Vfnet(data.manifest, await inflate(Buffer.from(data.weights, "base64")));
  return data.scenes.map(({ pixels, objects }) => {
    const seen = network.run(Buffer.from(pixels, "base64"), 128, 128);
    const scene = sceneOf(network, seen, objects, 128);
    const lists = data.states.map((state) => reported(scene, state).map(({ label, score }) => [label, score]));
    const aps = data.states.map((state) => compared(scene, state).told.ap);
    return [scene, lists, aps];
  });
})()"""


def test_a_scene_of_ones_own_is_judged_as_in_python():
    """The network of the page, its scene for the switches, what is reported at every position, and the scene's AP."""
    _, model = vf.load("vfnet_tiny_focal")
    page, (manifest, weights) = detector.eight_bits(model), detector.packed(model)
    names = list(detector.SCENES)
    images, targets = zip(*(detector.scene(name) for name in names), strict=True)
    scenes = [
        {"pixels": _pixels(image), "objects": [[*box, k] for box, k in zip(*_told(target), strict=True)]}
        for image, target in zip(images, targets, strict=True)
    ]
    data = {"manifest": manifest, "weights": base64.b64encode(weights).decode(), "scenes": scenes, "states": STATES}
    there = in_node("own_scene", OWN, data)
    with torch.no_grad():
        out = page.raw(list(images))
        own = page.candidates(out, list(images))
    truth, points = by_overlap(own.boxes, targets), centers(out.anchors)
    config = model.recipe.detect
    for n, (made, lists, aps) in enumerate(there):
        wanted = oracle_scene("", images[n], n, own, truth, points, targets[n], config)
        assert made["owners"] == wanted["owners"] and made["size"] == [128, 128]
        for key in ("boxes", "scores", "ious", "centers", "objects"):
            mine, theirs = (torch.tensor(scene[key], dtype=torch.float64) for scene in (made, wanted))
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0.006)  # Python's are rounded
        for state, mine, ap in zip(STATES, lists, aps, strict=True):
            found = select(switched(own, truth, points, Switches(**state)), n, (128, 128), config)
            scores = torch.tensor([score for _, score in mine], dtype=torch.float32)
            torch.testing.assert_close(scores, found.scores, rtol=0, atol=1e-4)
            assert ap == pytest.approx(scene_ap(found, targets[n]), abs=0.1), (names[n], state)


def _pixels(image):
    opaque = torch.full((1, 128, 128), 255, dtype=torch.uint8)
    return base64.b64encode(torch.cat([image, opaque]).permute(1, 2, 0).contiguous().numpy().tobytes()).decode()


def _told(target):
    return target["boxes"].tolist(), target["labels"].tolist()


def scene_ap(found, target) -> float:
    """AP of one scene, with the lines of chapter 3."""
    aps = []
    for label in target["labels"].unique():
        mine = target["boxes"][target["labels"] == label]
        ious = iou(found.boxes[found.labels == label][:, None], mine).numpy()  # (D, G)
        aps += [average_precision(match(ious, threshold), len(mine)) for threshold in THRESHOLDS]
    return 100 * sum(aps) / len(aps)


def test_words_on_a_scene_of_ones_own():
    found = {"iou": 0.7, "score": 0.9}
    data = {
        "own": {"ap": 50.0, "count": 3, "found": [found, None]},
        "told": {"ap": 62.5, "count": 4, "found": [found | {"iou": 0.9}, None]},
        "best": [0.93, 0.2],
    }
    say = "words(data, 'star', {})"
    start = "AP of this scene: 50.0 with nothing replaced, 62.5 with your switches, from 4 reported boxes. The star"
    assert in_node("own_scene", say.format(0), data) == (
        f"{start}: IoU 0.70 is reported by itself, IoU 0.90 with your switches; the best box on offer has 0.93."
    )
    assert "nothing that finds it is reported by itself" in in_node("own_scene", say.format(1), data)
    assert in_node("own_scene", say.format(-1), data) == f"{start} is out of sight."


# ------------------------------------------------------------------ exercises
def test_the_expected_box_is_what_chance_gives():
    scores, ious = chapter_08.kept.cases[3]
    g, drawn = torch.Generator().manual_seed(0), []
    for _ in range(4000):
        shuffle = torch.randperm(len(scores), generator=g).tolist()
        first = max(shuffle, key=lambda i: scores[i])  # the first of the highest
        drawn.append(ious[first])
    assert sum(drawn) / 4000 == pytest.approx(chapter_08.kept.reference(scores, ious), abs=0.01)
