"""Chapter 1: the pyramid explorer says what the library computes, and every mistake earns its own hint."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from javascript import in_node
from PIL import Image

import vfnet_edu as vf
from vfnet_edu.boxes import iou
from vfnet_edu.data.shapes import VAL_START, draw_scene
from vfnet_edu.exercises import chapter_01
from vfnet_edu.priors import grid_points
from vfnet_edu.runtime.errors import UserError

pytest.importorskip("anywidget", reason="the explorers need anywidget")
from vfnet_edu.widgets import PyramidExplorer  # noqa: E402


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return vf.build(vf.recipes.vfnet_tiny()).eval()


@pytest.fixture(scope="module")
def scene():
    return draw_scene(0, VAL_START + 7)


@pytest.fixture(scope="module")
def explorer(model, scene):
    return PyramidExplorer.of(model, *scene)


# ------------------------------------------------------------------ the explorer
def test_the_traits_are_the_predictions(model, scene, explorer):
    image, target = scene
    with torch.no_grad():
        out = model.raw([image])
    score, label = out.logits[0].sigmoid().max(dim=1)
    rows = torch.tensor(explorer.rows)
    assert rows.shape == (336, 6) and explorer.shapes == [[16, 16], [8, 8], [4, 4]] and explorer.strides == [8, 16, 32]
    assert torch.allclose(rows[:, :4], out.refined[0], atol=0.006)
    assert torch.allclose(rows[:, 4], score, atol=6e-5) and torch.equal(rows[:, 5].long(), label)
    assert torch.tensor(explorer.objects)[:, :4].equal(target["boxes"]) and explorer.classes == list(model.classes)
    assert len(json.dumps(explorer.get_state(drop_defaults=True))) < 100_000


def test_it_starts_at_the_best_cell(explorer):
    score = torch.tensor(explorer.rows)[:, 4]
    stride, (h, w) = explorer.strides[explorer.level], explorer.shapes[explorer.level]
    start = sum(a * b for a, b in explorer.shapes[: explorer.level])
    chosen = start + int(explorer.y // stride) * w + int(explorer.x // stride)
    assert score[chosen] == score.max() and explorer.y < h * stride


def test_the_picture_is_inside_and_of_any_size(model):
    image = torch.randint(0, 256, (3, 70, 100), dtype=torch.uint8)
    explorer = PyramidExplorer.of(model, image)
    head, data = explorer.image.split(",")
    assert head == "data:image/png;base64" and explorer.size == [70, 100] and explorer.objects == []
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), image.permute(1, 2, 0).numpy())
    assert explorer.shapes == [[12, 16], [6, 8], [3, 4]] and len(explorer.rows) == 252  # padded to 96 x 128


def test_large_images_and_other_detectors_are_refused_with_a_remedy(model):
    with pytest.raises(UserError, match="22,050 locations.*512 x 512"):
        PyramidExplorer.of(model, torch.zeros(3, 800, 1333, dtype=torch.uint8))
    retinanet = vf.build(vf.recipes.retinanet_r50_fl_1x()).eval()
    with pytest.raises(UserError, match="9 predictions per cell"):
        PyramidExplorer.of(retinanet, torch.zeros(3, 64, 64, dtype=torch.uint8))


def pyramid(expression: str, data):
    return in_node("pyramid", expression, data)


def test_points_and_cells_in_javascript():
    shapes, strides = [[13, 21], [7, 11], [4, 6]], [8, 16, 32]
    there = pyramid(
        "data.map(([[h, w], s]) => Array.from({length: h * w}, (_, i) => pointOf(Math.floor(i / w), i % w, s)))",
        [*zip(shapes, strides, strict=True)],
    )
    for points, shape, stride in zip(there, shapes, strides, strict=True):
        assert torch.tensor(points, dtype=torch.float32).equal(grid_points(shape, stride))
    back = pyramid(
        "data.map(([x, y]) => cellAt(x, y, 8, [13, 21]))", [[0, 0], [7.99, 8], [72, 40], [-5, 999], [167.9, 1]]
    )
    assert back == [[0, 0], [1, 0], [5, 9], [12, 0], [0, 20]]
    inside = pyramid("data.map(([x, y]) => cellAt(x + 3.9, y + 0.1, 8, [13, 21]))", grid_points((13, 21), 8).tolist())
    assert inside == [[i, j] for i in range(13) for j in range(21)]


def test_counts_in_javascript(explorer):
    data = {"rows": explorer.rows, "shapes": explorer.shapes}
    score = torch.tensor(explorer.rows, dtype=torch.float64)[:, 4]
    tie = float(score[17])  # strictly above: a score equal to the threshold does not count
    for threshold in (0.0, 0.01, tie, 0.5):
        starts, every, level = pyramid(
            "((s) => [s, countAbove(data.rows, data.threshold), countAbove(data.rows, data.threshold, s[1], s[2])])"
            "(levelStarts(data.shapes))",
            data | {"threshold": threshold},
        )
        assert starts == [0, 256, 320, 336]
        assert every == int((score > threshold).sum()) and level == int((score[256:320] > threshold).sum())


def test_overlap_in_javascript(explorer):
    a, b = torch.tensor(explorer.rows).double()[:, :4], torch.tensor(explorer.objects).double()[:, :4]
    truth = iou(a[:, None], b)  # (336, G)
    data = {"a": a.tolist(), "b": b.tolist()}
    there = torch.tensor(pyramid("data.a.map((x) => data.b.map((y) => overlap(x, y)))", data), dtype=torch.float64)
    assert (there - truth).abs().max() < 1e-12
    nearest = pyramid("data.a.map((x) => nearest(x, data.b))", data)
    for (index, share), row in zip(nearest, truth, strict=True):
        assert abs(share - float(row.max())) < 1e-12 and index == (int(row.argmax()) if share > 0 else -1)
    assert pyramid("nearest([0, 0, 1, 1], data)", [[5, 5, 6, 6]]) == [-1, 0]
    assert pyramid("nearest([0, 0, 1, 1], data)", []) == [-1, 0]


# ------------------------------------------------------------------ the exercises


def test_cells_are_those_of_the_network():
    with torch.device("meta"):
        model = vf.build(vf.recipes.vfnet_r50_1x())
        out = model.network(torch.empty(1, 3, 352, 512))
    assert chapter_01.cells.reference(333, 500, model.head.config.strides) == out.logits.shape[1]


def test_answers_in_other_words_are_right_too():
    def my_box(row, column, stride, ltrb):
        x, y = column * stride, row * stride
        l, t, r, b = ltrb
        return torch.stack([x - l, y - t, x + r, y + b])

    def my_pairs(logits, threshold):
        score = 1 / (1 + torch.exp(-logits))
        pairs = [(i, k) for i in range(len(score)) for k in range(score.shape[1]) if score[i, k] > threshold]
        return torch.tensor(pairs)

    def my_cells(height, width, strides):
        height, width = (32 * ((side + 31) // 32) for side in (height, width))
        return sum(((height - 1) // s + 1) * ((width - 1) // s + 1) for s in strides)

    assert chapter_01.box.judge(my_box)[1] and chapter_01.pairs.judge(my_pairs)[1]
    assert chapter_01.cells.judge(my_cells)[1]
