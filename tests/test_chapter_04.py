"""Chapter 4: the explorer computes what Python computes, fields are gradients, exercises say what the network does."""

import pytest
import torch
from javascript import in_node

import vfnet_edu as vf
from vfnet_edu.boxes import iou
from vfnet_edu.exercises import chapter_04
from vfnet_edu.models.necks import FPNConfig

pytest.importorskip("anywidget", reason="the explorers need anywidget")
from vfnet_edu.runtime.errors import UserError  # noqa: E402
from vfnet_edu.widgets.receptive_field import (  # noqa: E402
    ReceptiveFieldExplorer,
    covered,
    fields,
    influence,
    share_inside,
    side_of_share,
)

ROWS, COLUMNS = 12, 17  # of blocks


def lights(n: int = 20) -> torch.Tensor:
    return torch.randint(256, (n, ROWS, COLUMNS), generator=torch.Generator().manual_seed(0))


def close(mine, wanted):
    torch.testing.assert_close(
        torch.tensor(mine, dtype=torch.float64), torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


# ------------------------------------------------------------------ the explorer's arithmetic
def test_squares_are_pythons():
    light, points = lights(), [[8 * (n % 9), 8 * (n % 6)] for n in range(20)]
    expression = "data[0].map((light, n) => sideOfShare(light, 17, data[1][n], data[2]))"
    for share in (0.1, 0.5, 0.9, 1):
        got = in_node("receptive_field", expression, [light.flatten(1).tolist(), points, share])
        close(got, [side_of_share(e.square(), tuple(p), share) for e, p in zip(light, points, strict=True)])


def test_shares_are_pythons():
    corners = 60 * torch.rand(20, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1).tolist()  # some reach beyond the picture
    expression = "data[0].map((light, n) => shareInside(light, 17, data[1][n]))"
    got = in_node("receptive_field", expression, [lights().flatten(1).tolist(), boxes])
    close(got, [share_inside(e.square(), tuple(box)) for e, box in zip(lights(), boxes, strict=True)])
    got = in_node("receptive_field", "data.map((box) => covered(box, [24, 16], 30))", boxes)
    close(got, [covered(tuple(box), (24, 16), 30) for box in boxes])


def test_small_cases():
    one = torch.zeros(3, 3)
    one[1, 1] = 1
    assert side_of_share(one, (1.5, 1.5), block=1) == 1  # one pixel, all of it
    assert side_of_share(torch.ones(3, 3), (1.5, 1.5), block=1) == 3
    assert side_of_share(torch.ones(4, 4), (8, 8), 0.25) == 8 and side_of_share(torch.ones(4, 4), (8, 8), 0.26) == 16
    assert share_inside(torch.ones(2, 2), (0, 0, 4, 8)) == 0.5 and share_inside(torch.ones(2, 2), (2, 2, 6, 6)) == 0.25
    assert covered((0, 0, 10, 10), (10, 10), 10) == 0.25 and covered((0, 0, 4, 4), (20, 20), 8) == 0


def test_which_cell_and_which_object():
    assert in_node("receptive_field", "nearestCell(11, 13, 8, [16, 16])") == [2, 1]
    assert in_node("receptive_field", "nearestCell(127, 200, 32, [4, 4])") == [3, 3]
    assert in_node("receptive_field", "indexOf([[16, 16], [8, 8], [4, 4]], 2, [1, 3])") == 256 + 64 + 7
    objects = [[0, 0, 100, 100, "large"], [20, 20, 40, 40, "small"], [110, 0, 120, 100, "far"]]
    for (x, y), name in {(30, 30): "small", (60, 60): "large", (103, 50): "large", (108, 50): "far"}.items():
        assert in_node("receptive_field", f"objectAt(data, {x}, {y})[4]", objects) == name


def test_words():
    cell = {"level": 4, "stride": 16, "cell": [4, 3], "point": [48, 64], "object": [10, 20, 64, 82, "ring"]}
    said = in_node("receptive_field", "words(data)", cell | {"side": 44, "on": 0.624, "of": 0.55})
    assert said == (
        "P4, stride 16, row 4, column 3: its point is (48, 64). Half of its field lies in a square of 44 pixels around "
        "this point. The ring is 54 × 62 pixels: 62 % of the field lies on it, and the square covers 55 % of it."
    )


# ------------------------------------------------------------------ the fields
@pytest.fixture(scope="module")
def model():
    return vf.load("vfnet_tiny")[1]


def test_influence_is_the_sum_of_all_squared_gradients(model):
    """Of all 64 features, one by one; random sums agree on average."""
    noise = torch.Generator().manual_seed(0)
    batch = torch.randn(2, 3, 32, 32, generator=noise)
    cells = torch.tensor([[1, 2], [3, 0]])
    x = batch.clone().requires_grad_()
    features = model.neck(model.backbone(x))[0]  # (2, 64, 4, 4)
    chosen = features[torch.arange(2), :, cells[:, 0], cells[:, 1]].sum(0)  # (64,): pictures do not mix
    wanted = torch.zeros(2, 32, 32)
    for feature in chosen:
        wanted += torch.autograd.grad(feature, x, retain_graph=True)[0].square().sum(1)
    got = influence(model, batch, 0, cells, noise, probes=300)
    torch.testing.assert_close(got.sum((1, 2)), wanted.sum((1, 2)), rtol=0.15, atol=0)
    assert torch.corrcoef(torch.stack([got.flatten(), wanted.flatten()]))[0, 1] > 0.97
    assert torch.equal(got > 0, wanted > 0)


def test_explorer(model):
    image = torch.randint(256, (3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    target = {"boxes": torch.tensor([[8.0, 8, 20, 24], [30, 10, 90, 60]]), "labels": torch.tensor([3, 5])}
    explorer = ReceptiveFieldExplorer.of(model, image, target, which=1)
    assert explorer.shapes == [[8, 12], [4, 6], [2, 3]] and (explorer.level, explorer.x, explorer.y) == (3, 60, 35)
    packed = torch.frombuffer(bytearray(explorer.fields), dtype=torch.uint8).view(-1, 16, 24)
    assert torch.equal(packed, fields(model, image, [(8, 12), (4, 6), (2, 3)])) and len(packed) == 96 + 24 + 6
    assert (packed.amax((1, 2)) == 255).all()
    assert torch.equal(explorer.field(), packed[4 * 12 + 8].double().square())  # the point (64, 32)
    explorer.level = 5
    assert torch.equal(explorer.field(), packed[120 + 1 * 3 + 2].double().square())
    assert [row[4] for row in explorer.objects] == [model.classes[3], model.classes[5]]
    assert not model.training
    for size, said in (((60, 64), "multiples of 32"), ((256, 256), "128 x 128")):
        with pytest.raises(UserError, match=said):
            ReceptiveFieldExplorer.of(model, torch.zeros(3, *size, dtype=torch.uint8), target)


# ------------------------------------------------------------------ what the exercises call right is what happens
@pytest.mark.parametrize("case", chapter_04.pyramid.cases)
def test_shapes_are_those_of_the_neck(case):
    maps, channels, extra = case
    for source in ("p5", "c5"):
        neck = FPNConfig(channels=channels, extra_levels=extra, extra_from=source).build(tuple(c for c, _, _ in maps))
        shapes = [tuple(x.shape[1:]) for x in neck.to("meta")([torch.empty(1, *m, device="meta") for m in maps])]
        assert shapes == chapter_04.pyramid.reference(*case)


@pytest.mark.parametrize("case", chapter_04.window.cases)
def test_windows_are_those_of_convolutions(case):
    """With weights of 1, a pixel moves the cell exactly where the window is."""
    x = torch.ones(1, 1, 201, 201, requires_grad=True)
    y = x
    for kernel, stride in case[0]:
        y = torch.nn.functional.conv2d(y, torch.ones(1, 1, kernel, kernel), stride=stride, padding=kernel // 2)
    (gradient,) = torch.autograd.grad(y[0, 0, y.shape[2] // 2, y.shape[3] // 2], x)
    assert int((gradient[0, 0, 100] > 0).sum()) == chapter_04.window.reference(*case)


def test_the_level_of_a_size_has_the_square_that_overlaps_it_most():
    levels, unit = (3, 4, 5, 6, 7), 8
    squares = torch.tensor([[-s, -s, s, s] for s in (unit * 2**n / 2 for n in levels)], dtype=torch.float64)
    for size in torch.linspace(10, 1500, 331, dtype=torch.float64).tolist():
        overlap = iou(torch.tensor([-size, -size, size, size], dtype=torch.float64) / 2, squares)
        assert levels[int(overlap.argmax())] == chapter_04.level.reference(size, size, unit, levels)
