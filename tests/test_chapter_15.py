"""Chapter 15: the explorer decides what the library decides, and opens on the case that the text describes."""

import base64
import math

import pytest
import torch
from javascript import in_node
from torchvision.ops import box_iou, nms

import vfnet_edu as vf
from vfnet_edu.boxes import iou
from vfnet_edu.exercises import chapter_15
from vfnet_edu.postprocess import pool, soft_nms

pytest.importorskip("anywidget", reason="the explorers need anywidget")
from vfnet_edu.widgets import NmsExplorer, detector  # noqa: E402
from vfnet_edu.widgets import nms as explorer_of_nms  # noqa: E402


def crowd(seed: int, count: int = 50, whole: bool = True):
    """Boxes and scores in float64; `whole`: on whole pixels and tenths, so that there are ties."""
    g = torch.Generator().manual_seed(seed)
    corner, size = (40 * torch.rand(2, count, 2, generator=g, dtype=torch.float64)).unbind()
    boxes, scores = torch.cat([corner, corner + 2 + size / 2], 1), torch.rand(count, generator=g, dtype=torch.float64)
    return (boxes.round(), ((9 * scores).round() + 1) / 10) if whole else (boxes, scores)


# ---- the arithmetic of the explorer ---------------------------------------------------------------------------------
def decided(crowds, **state):
    data = [[boxes.tolist(), scores.tolist()] for boxes, scores in crowds]
    call = "data[0].map(([boxes, scores]) => decisions(boxes, scores, data[1]))"
    return in_node("nms", call, [data, {"limit": 0.6, **state}])


def test_a_hundred_sets_with_ties_are_decided_as_by_torchvision():
    crowds = [crowd(seed) for seed in range(100)]
    for limit in (0.3, 0.6):
        for (boxes, scores), steps in zip(crowds, decided(crowds, way="hard", limit=limit), strict=True):
            assert [step["taken"] for step in steps] == nms(boxes, scores, limit).tolist()
            gone = sorted(change["i"] for step in steps for change in step["changed"])
            assert sorted([*gone, *(step["taken"] for step in steps)]) == list(range(len(scores)))


@pytest.mark.parametrize("way", ["linear", "gaussian"])
def test_soft_decisions_are_those_of_the_package(way):
    crowds = [crowd(seed, whole=False) for seed in range(40)]
    for (boxes, scores), steps in zip(crowds, decided(crowds, way=way), strict=True):
        wanted, order = soft_nms(boxes, scores, torch.zeros(len(scores)), 0.6, way)
        assert [step["taken"] for step in steps] == order.tolist()
        mine = torch.tensor([step["score"] for step in steps], dtype=torch.float64)
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-12)


def test_overlaps_and_decays():
    ((boxes, scores),) = crowds = [crowd(3, whole=False)]
    shared = box_iou(boxes, boxes)
    for way, factor in {
        "hard": lambda o: 0 if o > 0.6 else 1,
        "linear": lambda o: 1 - o if o > 0.6 else 1,
        "gaussian": lambda o: math.exp(-(o**2) / 0.5),
    }.items():
        (steps,) = decided(crowds, way=way)
        for step in steps:
            for change in step["changed"]:
                overlap = float(shared[step["taken"], change["i"]])
                assert change["overlap"] == pytest.approx(overlap, abs=1e-12)
                assert change["after"] == pytest.approx(change["before"] * factor(overlap), abs=1e-12)


SMALL = {
    "boxes": [[0, 0, 10, 10], [0, 0, 10, 8], [30, 30, 40, 40], [0, 3, 10, 10]],
    "scores": [0.9, 0.5, 0.3, 0.8],
    "objects": [[0, 0, 10, 10], [0, 2, 10, 10]],
    "names": ["first star", "second star"],
    "kind": "star",
    "rank": {0: 1, 3: 2, 1: 3, 2: 4},
}


def test_standing_and_what_is_told():
    steps = "((d) => [decisions(d.boxes, d.scores, {way: 'hard', limit: 0.6}), d])(data)"
    told = "told(d.boxes, steps, d.objects)"
    stand = "[0, 1, 2].map((n) => standing(d.scores, steps, n).map(({ fate }) => fate))"
    fates = "standing(d.scores, steps, 1).map(fate)"
    found, stands, said = in_node("nms", f"(([steps, d]) => [{told}, {stand}, {fates}])({steps})", SMALL)
    assert found == [{"score": 0.9, "iou": 1}, None]
    assert stands[0] == ["waits"] * 4
    assert stands[1] == ["stays", "goes", "waits", "goes"] and stands[2] == ["stays", "goes", "stays", "goes"]
    assert said == ["stays, now", "goes, IoU 0.80", "waits", "goes, IoU 0.70"]


def test_words():
    def say(step, way="hard", limit=0.6, **other):
        state = {"way": way, "limit": limit, "step": step}
        call = "words({ ...data[0], steps: decisions(data[0].boxes, data[0].scores, data[1]) }, data[1])"
        return in_node("nms", call, [SMALL | other, state])

    end = "In the end 2 stay of 4: first star with score 0.90 and IoU 1.00, no box for the second star."
    assert say(0) == f"4 boxes may be star, sorted by score. Nothing is decided yet: press Next. {end}"
    assert say(1) == (
        "Step 1 of 2: number 1 has the highest score, 0.90, and stays. 2 boxes overlap it by more than 0.60 and go. "
        f"Among them is a box of the second star with score 0.80 and IoU 0.88. {end}"
    )
    assert say(2).startswith("Step 2 of 2: number 4 has the highest score, 0.30, and stays. No box that waits overlaps")
    assert "1 box overlaps it by more than 0.75 and goes. The highest of them has score 0.50 and IoU 0.80." in say(
        1, limit=0.75
    )
    assert "2 boxes overlap it by more than 0.60 and lose score." in say(1, "linear")
    assert "score 0.80 and IoU 0.88, which is 0.30 now." in say(1, "gaussian")
    assert say(0, boxes=[], scores=[]) == "No box scores enough as star: there is nothing to suppress."


# ---- the scene it opens on ------------------------------------------------------------------------------------------
OPENED = """(async () => {
  const network = new Vfnet(data.manifest, await inflate(Buffer.from(data.weights, "base64")));
  const { candidates } = network.run(Buffer.from(data.pixels, "base64"), 128, 128);
  const mine = candidates.filter(({ label }) => label === data.label);
  const [boxes, scores] = [mine.map(({ box }) => box), mine.map(({ score }) => score)];
  return [boxes, scores, data.states.map((state) => told(boxes, decisions(boxes, scores, state), data.objects))];
})()"""


def test_two_crescents():
    """The true boxes overlap by more than 0.6; at that limit the second one's good box goes, at 0.75 it stays."""
    _, model = vf.load("vfnet_tiny")
    explorer = NmsExplorer.of(model)
    assert explorer.scenes[0]["items"] == explorer.items and explorer.limit == 0.6 and explorer.step == 1
    assert [scene["name"] for scene in explorer.scenes] == ["two crescents", *detector.SCENES]
    assert explorer.still.startswith("data:image/jpeg;base64,")
    image, owner = detector.compose(explorer_of_nms.GROUND, explorer_of_nms.CRESCENTS)
    objects = detector.true_boxes(owner, 2)
    first, second = (torch.tensor(box).float() for box in objects)
    assert 0.6 < iou(first, second) < 0.62
    opaque = torch.cat([image, torch.full((1, 128, 128), 255, dtype=torch.uint8)]).permute(1, 2, 0).contiguous()
    label = explorer_of_nms.CRESCENTS[0].sprite
    states = [{"way": "hard", "limit": limit} for limit in (0.6, 0.75)]
    data = {
        "manifest": explorer.manifest,
        "weights": base64.b64encode(explorer.weights).decode(),
        "pixels": base64.b64encode(opaque.numpy().tobytes()).decode(),
        "objects": objects,
        "label": label,
        "states": states,
    }
    boxes, scores, told = in_node("nms", OPENED, data)
    page = detector.eight_bits(model)
    with torch.no_grad():
        own = page.candidates(page.raw([image]), [image])
    wanted, score, labels = pool(own, 0, (128, 128), model.recipe.detect)
    mine = torch.where(labels == label, score, -1).argsort(descending=True)[: len(scores)]
    assert len(scores) == (labels == label).sum()
    torch.testing.assert_close(torch.tensor(boxes), wanted[mine], rtol=0, atol=0.01)
    torch.testing.assert_close(torch.tensor(scores), score[mine], rtol=0, atol=1e-3)
    best = torch.tensor(scores)[iou(torch.tensor(boxes), second) > 0.8].max()
    assert max(scores) == pytest.approx(0.94, abs=0.01) and float(best) == pytest.approx(0.79, abs=0.01)
    first_box, _, third = torch.tensor(boxes[:3])  # best score first; the third is the second crescent's best
    assert float(iou(first_box, third)) == pytest.approx(0.72, abs=0.01) and iou(third, second) > 0.8
    assert told[0][1]["iou"] < 0.65 and told[1][1]["iou"] > 0.8  # of the second crescent


# ---- exercises ------------------------------------------------------------------------------------------------------
def test_references_are_the_library():
    for boxes, scores, limit in chapter_15.suppress.cases:
        assert chapter_15.suppress.reference(boxes, scores, limit) == nms(boxes, scores, limit).tolist()
    for boxes, scores, labels, limit in chapter_15.offsets.cases:
        apart = boxes + labels[:, None] * 1000
        assert chapter_15.offsets.reference(boxes, scores, labels, limit) == nms(apart, scores, limit).tolist()


def test_any_way_to_move_the_boxes_apart_is_right():
    def only_x(boxes, scores, labels, limit):
        step = torch.tensor([1.0, 0, 1, 0]) * (boxes.max() - boxes.min() + 1)
        return nms(boxes + labels[:, None] * step, scores, limit)

    assert chapter_15.offsets.judge(only_x)[1]


def test_the_threshold_is_best_by_trying_all():
    for scores, hits, objects in chapter_15.threshold.cases:
        shown = [scores >= t for t in scores]
        f1 = torch.stack([2 * hits[some].sum() / (some.sum() + objects) for some in shown])
        assert chapter_15.threshold.reference(scores, hits, objects) == float(scores[f1.argmax()])
