"""Chapter 6: the explorer computes ATSS as the library does, and every wrong answer earns its own hint."""

import pytest
import torch
from javascript import in_node

from vfnet_edu.assigners import atss
from vfnet_edu.boxes import centers, iou, xyxy_to_ltrb
from vfnet_edu.exercises import chapter_06
from vfnet_edu.priors import pyramid_anchors

WIDTH, HEIGHT, STRIDES = 256, 192, (8, 16, 32, 64, 128)
SHAPES = [(-(-HEIGHT // s), -(-WIDTH // s)) for s in STRIDES]


def boxes_without_ties(count: int) -> torch.Tensor:
    """(count, 4) float64: corners anywhere, so no two points are equally far from a centre."""
    corners = torch.rand(count, 2, 2, dtype=torch.float64) * torch.tensor([WIDTH, HEIGHT])
    return torch.cat([corners.amin(1), corners.amax(1)], dim=1)


def test_the_explorer_computes_atss():
    anchors = pyramid_anchors(SHAPES, STRIDES, (8.0,)).double()  # (1024, 4)
    sizes = [h * w for h, w in SHAPES]
    boxes = boxes_without_ties(200)
    ks = [1 + i % 25 for i in range(len(boxes))]
    theirs = in_node(
        "atss",
        f"data.map(([box, k]) => assign(box, k, {WIDTH}, {HEIGHT}, {list(STRIDES)}))",
        [*zip(boxes.tolist(), ks, strict=True)],
    )
    first = [sum(sizes[:i]) for i in range(len(sizes))]  # index of each level's first anchor
    fates = set()
    for box, k, result in zip(boxes, ks, theirs, strict=True):
        distance = (centers(anchors) - centers(box)).norm(dim=-1)
        nearest = [d.topk(min(k, len(d)), largest=False).indices + f
                   for d, f in zip(distance.split(sizes), first, strict=True)]  # fmt: skip
        overlaps = iou(anchors[torch.cat(nearest)], box)
        assert result["tied"] == []
        assert abs(result["mean"] - overlaps.mean()) < 1e-12
        assert abs(result["std"] - overlaps.std()) < 1e-12
        assert abs(result["threshold"] - (overlaps.mean() + overlaps.std())) < 1e-12

        index = [first[c["level"] - 3] + c["index"] for c in result["candidates"]]
        assert sorted(index) == sorted(torch.cat(nearest).tolist())
        positive = {i for i, c in zip(index, result["candidates"], strict=True) if c["fate"] == "positive"}
        assert positive == set(torch.nonzero(atss(anchors, sizes, box[None], k) == 0)[:, 0].tolist())
        fates |= {c["fate"] for c in result["candidates"]}
    assert fates == {"positive", "low", "outside"}


def test_a_tie_goes_to_the_first_in_reading_order_and_is_told():
    near, words = in_node(
        "atss", "[nearest(64, 64, 16, 24, 24, 2), sentence(assign([8, 8, 40, 40], 2, 64, 64, [16]), 2)]"
    )
    assert [(point["x"], point["y"]) for point in near["points"]] == [(16, 16), (32, 16)]  # all four are equally far
    assert near["tied"]
    assert words.endswith("Tie on P4: another point is as near as the last one taken.")


def test_the_words_of_the_explorer():
    three, five = (8, 16, 32), STRIDES
    cases = [((62.3, 75, 211, 122), three), ((83, 51, 174, 142), three), ((83, 51, 174, 142), five),
             ((97.2, 41.3, 103, 171), three)]  # fmt: skip
    words = in_node("atss", "data.map(([box, strides]) => sentence(assign(box, 9, 256, 192, strides), 9))", cases)
    assert words[0].startswith("k = 9: 27 candidates on 3 levels, mean IoU 0.")
    assert words[1].endswith("none passes: nobody learns this object.")
    assert words[2].endswith("18 pass, all of them inside the box: 18 positives (9 on P3, 9 on P4).")
    assert words[3].endswith("9 pass, none of them inside the box: nobody learns this object.")


def test_the_explorer_is_in_step_with_python():
    pytest.importorskip("anywidget")
    from vfnet_edu.widgets import AtssExplorer

    explorer = AtssExplorer(k=12, strides=[8, 16, 32])
    assert (explorer.k, explorer.strides, len(explorer.box)) == (12, [8, 16, 32], 4)
    with pytest.raises(Exception, match="greater than 25"):
        explorer.k = 26
    assert {"box", "k", "level"} <= set(explorer.get_state())


def test_any_side_is_no_test_of_inside():
    def any_side(overlaps, points, box):
        return (overlaps >= overlaps.mean() + overlaps.std()) & (xyxy_to_ltrb(points, box).amax(-1) > 0.01)

    verdict, is_right = chapter_06.positives.judge(any_side)
    assert not is_right and "*any* positive distance" in verdict


def test_an_answer_that_decides_nothing_is_told_what_is_missing():
    answers = (lambda o, p, b: torch.zeros(len(o), dtype=torch.bool), lambda o, p, b: (o >= 0.2).tolist() * 2)
    for answer in answers:
        verdict, is_right = chapter_06.positives.judge(answer)
        assert not is_right and "should be" in verdict
