"""Chapter 0: the network in the page is torch's, its scenes and verdicts are Python's, and every mistake has a hint."""

import base64

import numpy as np
import pytest
import torch
from javascript import in_node

import vfnet_edu as vf
from vfnet_edu.data.shapes import CLASSES, VAL_START, draw_scene
from vfnet_edu.exercises import chapter_00
from vfnet_edu.models.fold import fold_norms
from vfnet_edu.runtime.errors import UserError

pytest.importorskip("anywidget", reason="the explorers need anywidget")
from vfnet_edu.widgets import DetectorExplorer, detector  # noqa: E402
from vfnet_edu.widgets.detector import GROUNDS, SCENES, SIZE, Item, compose, eight_bits, judge, scene  # noqa: E402


@pytest.fixture(scope="module")
def model():
    return vf.load("vfnet_tiny")[1]


@pytest.fixture(scope="module")
def page(model):
    """What the page computes with, in torch."""
    return eight_bits(model)


def base(data: bytes) -> str:
    return base64.b64encode(data).decode()


def rgba(images: list[torch.Tensor]) -> bytes:
    opaque = torch.full((1, SIZE, SIZE), 255, dtype=torch.uint8)
    return b"".join(torch.cat([x, opaque]).permute(1, 2, 0).contiguous().numpy().tobytes() for x in images)


def live(expression: str, **data):
    return in_node("detector", expression, data)


# ------------------------------------------------------------------ the network
LOOK = """(async () => {
  const network = new Vfnet(data.manifest, await inflate(Buffer.from(data.weights, "base64")));
  const scenes = Buffer.from(data.scenes, "base64"), each = 128 * 128 * 4;
  return Array.from({ length: scenes.length / each }, (_, i) => {
    const seen = network.run(scenes.subarray(i * each, (i + 1) * each), 128, 128);
    const maps = [seen.stages, seen.pyramid, seen.logits, seen.initial, seen.refined].flat();
    const numbers = Buffer.concat(maps.map(({ data }) => Buffer.from(data.slice().buffer)));
    return [numbers.toString("base64"), seen.kept.map(({ box, score, label }) => [...box, score, label])];
  });
})()"""


def test_maps_and_detections_are_torchs(model, page):
    """Twenty scenes: every map within 1e-4 of torch's, with the same rounded weights; the same boxes kept."""
    images = [draw_scene(0, VAL_START + k)[0] for k in range(20)]
    manifest, weights = detector.packed(model)
    there = live(LOOK, manifest=manifest, weights=base(weights), scenes=base(rgba(images)))
    for image, (numbers, kept) in zip(images, there, strict=True):
        with torch.no_grad():
            stages = page.backbone(page.stack([image]))
            pyramid = page.neck(stages)
            out = page.head(pyramid)
        maps = [one[0].permute(1, 2, 0) for one in (*stages, *pyramid)] + [out.logits[0], out.boxes[0], out.refined[0]]
        wanted = torch.cat([one.flatten() for one in maps])
        mine = torch.from_numpy(np.frombuffer(base64.b64decode(numbers), np.float32).copy())
        assert mine.shape == wanted.shape and (mine - wanted).abs().max() < 1e-4

        found, mine = page([image])[0], torch.tensor(kept).view(-1, 6)
        assert torch.equal(mine[:, 5].long(), found.labels)
        assert (mine[:, :4] - found.boxes).abs().max() < 1e-3 and (mine[:, 4] - found.scores).abs().max() < 1e-5


def test_rounding_is_small(model, page):
    """Every kernel within half a step of the folded one; the rest is as it was."""
    for (name, exact), rounded in zip(fold_norms(model).named_parameters(), page.parameters(), strict=True):
        if exact.ndim < 4:
            assert torch.equal(exact, rounded), name
        else:
            step = exact.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
            assert ((exact - rounded).abs() <= 0.5001 * step).all(), name


def test_what_travels_is_small(model):
    explorer = DetectorExplorer.of(model)
    assert len(explorer.weights) < 800_000 and len(explorer.pictures) < 120_000
    assert len(explorer.still) < 40_000 and explorer.still.startswith("data:image/jpeg;base64,")
    assert [one["name"] for one in explorer.scenes] == list(SCENES) and explorer.items == explorer.scenes[0]["items"]


def test_other_detectors_are_refused():
    with torch.device("meta"):
        big, alien = vf.build(vf.recipes.vfnet_r50_1x()), vf.build(vf.recipes.vfnet_tiny(), ("cat", "dog"))
    with pytest.raises(UserError, match="the page cannot compute vfnet_r50_1x"):
        detector.packed(big)
    with pytest.raises(UserError, match="ShapeScenes' classes"):
        DetectorExplorer.of(alien)


# ------------------------------------------------------------------ scenes
MOVED = [
    [Item(7, 20, 100, -35, 1.6, 2), Item(4, 64, 64, 180, 0.4, 1), Item(0, 126, 3, 5, 1.0, 3), Item(4, 70, 60, 0, 1.05)],
    [Item(k, 16 * k + 8, 60 + (k % 3) * 20, 23 * k, 0.5 + 0.15 * k, 8 - k) for k in range(8)],
]
COMPOSE = """(async () => {
  const bytes = new Uint8Array(await inflate(Buffer.from(data.pictures, "base64")));
  return data.scenes.map(([ground, items]) => {
    const { pixels, owner } = compose(data.sheet, bytes, ground, items);
    return [Buffer.from(pixels.buffer).toString("base64"), Array.from(owner), trueBoxes(owner, 128, items.length)];
  });
})()"""


def test_scenes_are_composed_as_in_python():
    scenes = [[GROUNDS.index(SCENES[name][0]), [list(item) for item in detector.items_of(name)]] for name in SCENES]
    scenes += [[ground, [list(item) for item in items]] for ground, items in enumerate(MOVED)]
    sheet, pictures = detector.packed_pictures()
    there = live(COMPOSE, sheet=sheet, pictures=base(pictures), scenes=scenes)
    for (ground, items), (pixels, owner, boxes) in zip(scenes, there, strict=True):
        image, mine = compose(ground, [Item(*item) for item in items])
        theirs = torch.frombuffer(bytearray(base64.b64decode(pixels)), dtype=torch.uint8).view(SIZE, SIZE, 4)
        off = (theirs[..., :3].permute(2, 0, 1).int() - image.int()).abs()
        assert off.max() <= 1 and (off > 0).float().mean() < 1e-3  # a sine may differ in its last bit
        assert torch.equal(torch.tensor(owner).view(SIZE, SIZE), mine)
        assert boxes == detector.true_boxes(mine, len(items))


def test_an_object_at_rest_is_its_sprite():
    """Not turned, not scaled, on whole pixels: nothing is interpolated."""
    item = Item(CLASSES.index("ring"), 64, 70)
    sprite = detector.sprites()[item.sprite]
    h, w = sprite.inside.shape
    image, owner = compose(0, [item])
    window = np.s_[70 - h // 2 : 70 - h // 2 + h, 64 - w // 2 : 64 - w // 2 + w]
    ground = detector.draw_ground(GROUNDS[0], detector.PALETTE, SIZE)[:, *window].double()
    wanted = (sprite.light + sprite.through * ground / 255).clamp(0, 255)
    assert (image[:, *window] - wanted).abs().max() <= 0.5 + 1e-9
    assert torch.equal(owner[window] == 0, sprite.inside)


def test_hidden_objects_have_no_box():
    star, square = CLASSES.index("star"), CLASSES.index("rectangle")
    _, owner = compose(0, [Item(star, 64, 64, 0, 0.5, 0), Item(square, 64, 64, 0, 1.2, 1)])
    hidden, (x1, y1, x2, y2) = detector.true_boxes(owner, 2)
    assert hidden is None and x1 < 48 < 80 < x2 and y1 < 48 < 80 < y2


# ------------------------------------------------------------------ verdicts
JUDGE = """(async () => {
  const network = new Vfnet(data.manifest, await inflate(Buffer.from(data.weights, "base64")));
  const scenes = Buffer.from(data.scenes, "base64"), each = 128 * 128 * 4;
  return data.targets.map(([boxes, labels], i) => {
    const seen = network.run(scenes.subarray(i * each, (i + 1) * each), 128, 128);
    return judge(seen, boxes, labels).map(({ kept, best }) => [kept, best].flatMap((one) => [one?.score ?? 0, one?.fit ?? 0]));
  });
})()"""  # noqa: E501


def test_verdicts_are_pythons(model, page):
    scenes = [scene(name) for name in SCENES] + [draw_scene(0, VAL_START + k) for k in range(6)]
    targets = [[target["boxes"].tolist(), target["labels"].tolist()] for _, target in scenes]
    targets[0][0][0] = None  # as if it were out of sight
    manifest, weights = detector.packed(model)
    images = [image for image, _ in scenes]
    there = live(JUDGE, manifest=manifest, weights=base(weights), scenes=base(rgba(images)), targets=targets)
    for image, target, verdicts in zip(images, targets, there, strict=True):
        mine = [list(one) for one in judge(page, image, *target)]
        assert np.allclose(verdicts, mine, atol=1e-4)
    assert there[0][0] == [0, 0, 0, 0]


def test_every_scene_has_its_surprise(page):
    verdicts = {}
    for name in SCENES:
        image, target = scene(name)
        verdicts[name] = judge(page, image, target["boxes"].tolist(), target["labels"].tolist())
    second = max(verdicts["second best"], key=lambda one: one.best_fit - one.fit)
    assert second.best_fit - second.fit > 0.1 and second.score - second.best_score > 0.3
    assert [one.score > 0.3 for one in verdicts["twins"]].count(True) == 1
    assert all(one.score > 0.6 for one in verdicts["covered"])
    corner = page([scene("on its corner")[0]])[0]
    assert CLASSES[corner.labels[0]] == "heart" and corner.scores[0] > 0.5


def test_words():
    verdict = {"box": [0, 0, 9, 9], "kept": {"score": 0.85, "fit": 0.82}, "best": {"score": 0.14, "fit": 0.98}}
    same = verdict | {"best": {"score": 0.85, "fit": 0.82}}
    none = verdict | {"kept": None, "best": None}
    called = none | {"other": {"score": 0.66, "label": 0}}
    data = [verdict, same, verdict | {"kept": None}, none, called, verdict | {"box": None}]
    call = "data.all.map((one) => tell('star', one, 0.3, ['ring']))"
    better, none_better, no_kept, nothing, other, hidden = live(call, all=data)
    assert better == (
        "The box kept for the star scores 0.85, and its IoU is 0.82: another box fits better (IoU 0.98), but scores "
        "only 0.14."
    )
    assert none_better.endswith("its IoU is 0.82: no other box fits better.")
    assert no_kept.startswith("No box is kept for the star") and nothing == "No box around it says star."
    assert other == "No box around it says star, but one with score 0.66 calls it a ring."
    assert hidden == "The star is out of sight."
    assert live("namesOf([3, 0, 3], ['a', 'b', 'c', 'd'])") == ["first d", "a", "second d"]


def test_a_new_object_goes_where_there_is_room():
    assert live("freePlace([[0, 32, 32], [1, 96, 64]], 128)") == [32, 96]


def test_labels_do_not_cover_each_other():
    """Also where many boxes lie on each other, in corners, and outside the picture."""
    boxes = [[60, 60, 200, 160]] * 8 + [[0, 0, 40, 40], [350, 350, 384, 384], [-30, -30, 20, 500], [300, 2, 400, 9]]
    sizes = [[70 + 5 * k, 19] for k in range(len(boxes))]
    placed = live("placeLabels(data.boxes, data.sizes, 384)", boxes=boxes, sizes=sizes)
    for k, (x, y, w, h) in enumerate(placed):
        assert [w, h] == sizes[k] and 0 <= x <= 384 - w and 0 <= y <= 384 - h
        for a, b, c, d in placed[:k]:
            assert x >= a + c or a >= x + w or y >= b + d or b >= y + h
    assert placed[0][:2] == [60, 41]  # above the first box, at its left


# ------------------------------------------------------------------ the exercises


def test_answers_in_other_words_are_right_too():
    def my_kept(scores, ious):
        best = 0
        for n in range(1, len(scores)):
            if scores[n] > scores[best]:
                best = n
        return best

    def my_lost(scores, ious):
        return np.max(ious) - np.array(ious)[np.argmax(scores)]

    assert chapter_00.kept.judge(my_kept)[1] and chapter_00.lost.judge(my_lost)[1]
    assert chapter_00.kept.judge(lambda scores, ious: np.argmax(scores))[1]
