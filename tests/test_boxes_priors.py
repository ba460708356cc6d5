"""Boxes and priors against the authors' code, number by number."""

import pytest
import torch
from recorded import Recording, close

from vfnet_edu import boxes
from vfnet_edu.priors import (
    base_anchors,
    grid_anchors,
    grid_points,
    per_point,
    pyramid_anchors,
    pyramid_points,
    valid_cells,
)

BOX, ANCHOR = Recording("boxes"), Recording("anchors")


@pytest.mark.parametrize("name", ["iou", "iof", "giou"])
def test_overlaps(name):
    a, b, fn = BOX["a"], BOX["b"], getattr(boxes, name)
    close(fn(a[:, None], b), BOX[f"{name}_pair"])
    close(fn(a[:24], b), BOX[f"{name}_aligned"])


def test_distances():
    decoded = boxes.ltrb_to_xyxy(BOX["points"], BOX["distance"])
    close(decoded, BOX["dist2box"])
    close(boxes.clip(decoded, (128, 160)), BOX["dist2box_clip_128x160"])
    close(boxes.xyxy_to_ltrb(BOX["points"], BOX["d2_boxes"]), BOX["box2dist"], atol=1e-5)


@pytest.mark.parametrize("name, stds", [("std1", (1.0, 1, 1, 1)), ("std01", (0.1, 0.1, 0.2, 0.2))])
def test_deltas(name, stds):
    priors = BOX["delta_priors"]
    close(boxes.encode_deltas(priors, BOX["delta_gts"], stds), BOX[f"delta_enc_{name}"], atol=1e-5)
    decoded = boxes.decode_deltas(priors, BOX[f"delta_in_{name}"], stds)
    close(decoded, BOX[f"delta_dec_{name}"], atol=1e-4)
    close(boxes.clip(decoded, (128, 160)), BOX[f"delta_dec_{name}_clip_128x160"], atol=1e-4)


@pytest.mark.parametrize("name", ["vfnet", "atss", "retina"])
def test_anchors(name):
    sides, ratios = ((8.0,), (1.0,))
    if name == "retina":
        sides, ratios = tuple(4 * 2 ** (i / 3) for i in range(3)), (0.5, 1.0, 2.0)
    for level, stride in enumerate(ANCHOR["strides"].tolist()):
        size = tuple(ANCHOR["sizes"][level].tolist())
        base = base_anchors(tuple(s * stride for s in sides), ratios)
        close(base, ANCHOR[f"{name}_base_{level}"], rtol=1e-6, atol=1e-4)
        close(grid_anchors(grid_points(size, stride), base), ANCHOR[f"{name}_grid_{level}"], rtol=1e-6, atol=1e-4)
        for padded in ((128, 160), (96, 128), (97, 100)):
            valid = valid_cells(size, stride, padded).repeat_interleave(len(base))
            assert torch.equal(valid, ANCHOR[f"{name}_valid_{padded[0]}x{padded[1]}_{level}"].bool())


def test_points():
    for level, stride in enumerate(ANCHOR["strides"].tolist()):
        size = tuple(ANCHOR["sizes"][level].tolist())
        close(grid_points(size, stride), ANCHOR[f"vfnet_points_{level}"])
        close(grid_points(size, stride, 0.5), ANCHOR[f"fovea_points_{level}"])
        close(grid_points(size, stride), ANCHOR[f"reppoints_points_{level}"][:, :2])


def test_levels_of_a_coco_image():
    sizes = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]
    points = torch.cat([grid_points(hw, s) for hw, s in zip(sizes, (8, 16, 32, 64, 128), strict=True)])
    assert len(points) == 22400 and points[0].tolist() == [0, 0] and points[1].tolist() == [8, 0]


def test_a_pyramid_is_its_levels_in_order():
    shapes, strides = [(2, 3), (1, 2)], (8, 16)
    points = pyramid_points(shapes, strides, 0.5)
    assert points.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8], [24, 8]]
    assert per_point(strides, shapes).tolist() == [8] * 6 + [16] * 2
    anchors = pyramid_anchors(shapes, strides, (4.0, 8.0), (0.5, 1.0))
    assert anchors.shape == (8 * 4, 4)
    for level, (size, stride) in enumerate(zip(shapes, strides, strict=True)):
        base = base_anchors((4.0 * stride, 8.0 * stride), (0.5, 1.0))
        own = anchors[24 * level : 24 + 8 * level]
        assert torch.equal(own, grid_anchors(grid_points(size, stride), base))


def test_centerness():
    box = torch.tensor([0.0, 0, 40, 20])
    points = torch.tensor([[20.0, 10], [10, 10], [10, 5], [39, 10]])
    expected = torch.tensor([1, 10 / 30, 10 / 30 * 5 / 15, 1 / 39]).sqrt()
    close(boxes.centerness(points, box), expected)
