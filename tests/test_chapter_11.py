"""Chapter 11: its explorer computes what the library computes, and its exercises know each mistake."""

import matplotlib.cbook as cbook
import pytest
import torch
import torch.nn.functional as F
from javascript import in_node
from PIL import Image
from torch import Tensor

from vfnet_edu.boxes import iou, ltrb_to_xyxy
from vfnet_edu.ops.star.operator import star_conv2d, star_offsets

STRIDES = (8, 16, 32)


def boxes(n: int = 40) -> list[list[float]]:
    return (torch.rand(n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 200).tolist()


@pytest.mark.parametrize("stride", STRIDES)
def test_offsets_are_the_library_s(stride):
    got = in_node("star", "data[0].map((ltrb) => starOffsets(ltrb, data[1]))", [boxes(), stride])
    ltrb = torch.tensor(boxes(), dtype=torch.float64)[:, :, None, None]
    wanted = star_offsets(ltrb, stride).flatten(1)
    torch.testing.assert_close(torch.tensor(got, dtype=torch.float64), wanted, rtol=1e-12, atol=1e-12)


def seen_by_convolution(cells: Tensor, ltrb: Tensor, stride: int) -> Tensor:
    """What nine taps read at every cell, (H, W, 9, 3): a star convolution that copies each tap to its own channels."""
    copy = torch.eye(27, dtype=cells.dtype).view(27, 3, 3, 3)  # output 9 c + tap <- channel c, tap
    out = star_conv2d(cells.permute(2, 0, 1)[None], ltrb, copy, stride)[0]  # (27, H, W)
    return out.unflatten(0, (3, 9)).permute(2, 3, 1, 0)


@pytest.mark.parametrize("stride", STRIDES)
def test_colours_are_what_the_convolutions_read(stride):
    """The map, the star and the grid, even where they leave the picture."""
    width, height = 96, 64
    pixels = torch.randint(256, (height, width, 4), generator=torch.Generator().manual_seed(1))
    rgb = pixels[..., :3].permute(2, 0, 1).double()
    cells = F.avg_pool2d(rgb, stride, stride, stride // 2, count_include_pad=False).permute(1, 2, 0)  # (H, W, 3)
    points = [(x, y) for y in range(0, height + 1, stride) for x in range(0, width + 1, stride)]
    ltrbs = (torch.rand(len(points), 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 60).tolist()
    got = in_node(
        "star",
        """(() => {
          const [pixels, size, stride, points, ltrbs] = data, map = colourMap(pixels, size, stride);
          return [
            map.cells,
            points.map((p, i) => starCells(p, ltrbs[i], stride).map((cell) => bilinear(map, cell))),
            points.map((p) => gridCells(p, stride).map((cell) => bilinear(map, cell))),
          ];
        })()""",
        [pixels.flatten().tolist(), [width, height], stride, points, ltrbs],
    )
    h, w = cells.shape[:2]
    ltrb = torch.tensor(ltrbs, dtype=torch.float64).view(1, h, w, 4).permute(0, 3, 1, 2)
    star = seen_by_convolution(cells, ltrb, stride)
    grid = seen_by_convolution(cells, torch.full_like(ltrb, stride), stride)
    for mine, wanted in zip(got, (cells.flatten(0, 1), star.flatten(0, 1), grid.flatten(0, 1)), strict=True):
        torch.testing.assert_close(torch.tensor(mine, dtype=torch.float64), wanted, rtol=1e-12, atol=1e-10)


def test_a_box_stays_on_the_picture_and_on_the_grid():
    assert in_node("star", "snap([100, 77], [30, 10, 40, 20], 8, [384, 448])") == [104, 80]
    assert in_node("star", "snap([-50, 900], [30, 10, 40, 20], 32, [384, 448])") == [32, 416]
    point, ltrb = in_node("star", "toGrid([104, 72], [30, 10, 40, 30], 32)")  # the same sides, seen from another point
    assert point == [96, 64] and ltrb == [22, 2, 48, 38]
    point, ltrb = in_node("star", "toGrid([104, 72], [2, 2, 3, 3], 32)")  # no point of the grid inside: the box grows
    assert point == [96, 64] and ltrb == [0, 0, 11, 11]


def test_iou_and_toy_score():
    ltrb = torch.tensor(boxes(), dtype=torch.float64)
    point = torch.tensor([150.0, 120.0], dtype=torch.float64)
    truth = torch.tensor([100.0, 60, 260, 200], dtype=torch.float64)
    got = in_node("star", "data[0].map((ltrb) => fit([150, 120], ltrb, data[1]))", [boxes(), truth.tolist()])
    wanted = iou(ltrb_to_xyxy(point, ltrb), truth)
    torch.testing.assert_close(torch.tensor(got, dtype=torch.float64), wanted, rtol=1e-12, atol=1e-12)
    assert in_node("star", "fit([5, 5], [1, 1, 1, 1], [50, 50, 60, 60])") == 0
    a, b = (255 * torch.rand(2, 9, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).unbind()
    score = in_node("star", "likeness(...data)", [a.tolist(), b.tolist()])
    assert score == pytest.approx(1 - float((a - b).abs().mean()) / 255, abs=1e-12)
    assert in_node("star", "likeness(data, data)", a.tolist()) == 1


def test_words():
    say = "words([192, 152], [80, 100, 80, 100], 8)"
    assert in_node("star", say) == (
        "Box 160 × 200 px around the point (192, 152), stride 8: the star reaches 12.5 cells up; the 3x3 grid reaches "
        "1. Tap 1 (top left) is offset by (−11.5, −9) cells."
    )
    told = in_node("star", "words([192, 152], [80, 100, 80, 100], 8, [112, 52, 272, 252])")
    assert told.startswith("IoU with the dashed box 1.00. Box 160")
    assert "all offsets are 0" in in_node("star", "words([192, 152], [8, 8, 8, 8], 8)")


def test_explorer():
    pytest.importorskip("anywidget", reason="the explorers need anywidget")
    from vfnet_edu.widgets import StarExplorer

    explorer = StarExplorer(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False), stride=16)
    assert explorer.size == [384, 448] and len(explorer.image) < 60_000
    left, top, right, bottom = explorer.ltrb
    assert explorer.point[0] - left >= 0 and explorer.point[1] + bottom <= explorer.size[1]
    assert explorer.offsets[0].tolist() == [1 - top / 16, 1 - left / 16]
    assert explorer.offsets[8].tolist() == [bottom / 16 - 1, right / 16 - 1]
    small = StarExplorer(Image.new("L", (100, 70)))
    assert small.size == [96, 64] and small.image.startswith("data:image/jpeg;base64,")
