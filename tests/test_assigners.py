"""Who learns what: the assigners against the authors' code and against cases worked out by hand."""

import json

import pytest
import torch
from recorded import Recording, close

from vfnet_edu import assigners
from vfnet_edu.assigners import (
    BACKGROUND,
    DISTANCES,
    IGNORED,
    assign_images,
    atss,
    fovea,
    matched_truth,
    max_iou,
    nearest,
    nearest_of_all,
    nearest_point,
)
from vfnet_edu.bench import assign
from vfnet_edu.bench.assign import naive_atss, random_boxes
from vfnet_edu.bench.star import peak_memory
from vfnet_edu.boxes import centers, iou, xyxy_to_ltrb
from vfnet_edu.priors import base_anchors, grid_anchors, grid_points, per_point, pyramid_anchors, pyramid_points

ATSS, MAXIOU, POINT, FOVEA = (Recording(n) for n in ("assign_atss", "assign_maxiou", "assign_point", "fovea_targets"))
CASES = [c for c in ATSS.text("cases") if not c.startswith("ignored_iof")]  # no system here uses ignore regions


def gt_inds(match):
    """The recordings count from 1; 0 is background, and -1 ignored."""
    return torch.where(match >= 0, match + 1, torch.where(match == IGNORED, -1, 0))


@pytest.mark.parametrize("case", CASES)
def test_atss(case):
    priors, sizes = ATSS["priors"], ATSS["num_level_priors"].tolist()
    if case == "valid_only":
        valid = ATSS["valid_only_valid"].bool()
        sizes = [int(v.sum()) for v in valid.split(sizes)]
        priors = priors[valid]
    scene = priors, sizes, ATSS[f"{case}_gts"], int(ATSS[f"{case}_topk"])
    match = atss(*scene)
    assert torch.equal(gt_inds(match), ATSS[f"{case}_gt_inds"])
    assert torch.equal(match, naive_atss(*scene))


def anchors_512():
    sizes = [(512 // s, 512 // s) for s in (8, 16, 32, 64, 128)]
    levels = [
        grid_anchors(grid_points(hw, s), base_anchors((8.0 * s,)))
        for hw, s in zip(sizes, (8, 16, 32, 64, 128), strict=True)
    ]
    return torch.cat(levels), [len(x) for x in levels]


def test_atss_by_hand():
    anchors, sizes = anchors_512()
    square = torch.tensor([[192.0, 192, 320, 320]])
    positive = torch.nonzero(atss(anchors, sizes, square) == 0)[:, 0]
    overlaps = iou(anchors[positive], square).sort(descending=True).values
    assert len(positive) == 9 and ((positive >= sizes[0]) & (positive < sizes[0] + sizes[1])).all()  # all on P4
    assert overlaps[0] == 1 and torch.allclose(overlaps[1:5], torch.tensor(0.7778), atol=1e-4)

    small = torch.tensor([[100.0, 100, 130, 120]])
    positive = torch.nonzero(atss(anchors, sizes, small) == 0)[:, 0]
    centers = {tuple(c) for c in ((anchors[positive, :2] + anchors[positive, 2:]) / 2).tolist()}
    assert centers == {(112, 112), (120, 112), (112, 104), (120, 104), (104, 112), (104, 104), (128, 112)}


def test_atss_with_few_anchors_on_a_level():
    match = atss(torch.tensor([[0.0, 0, 8, 8], [0, 0, 64, 64]]), [1, 1], torch.tensor([[0.0, 0, 60, 60]]))
    assert match.shape == (2,)


SCENES = {  # (G, 4) boxes to boxes that are hard to tell apart, or to reach
    "anywhere": lambda boxes: boxes,
    "crowded": lambda boxes: boxes * 0.2 + 150,
    "whole pixels": lambda boxes: boxes.round(),  # many points are equally far
    "on the grid": lambda boxes: (boxes / 8).round() * 8,  # still more
    "duplicate": lambda boxes: boxes[: (len(boxes) + 1) // 2].repeat(2, 1),
    "tiny": lambda boxes: torch.cat([boxes[:, :2], boxes[:, :2] + 0.1 * torch.rand_like(boxes[:, 2:])], 1),
    "without area": lambda boxes: boxes[:, [0, 1, 0, 1]],
    "outside": lambda boxes: boxes * 4 - 1000,
    "float64": lambda boxes: boxes.double(),
    "one box": lambda boxes: boxes[:1],
}


@pytest.mark.parametrize("kind", SCENES)
def test_atss_is_the_naive_one_also_where_anchors_tie(kind):
    for seed in range(50):
        torch.manual_seed(seed)
        height, width = [(512, 320), (128, 128), (333, 500), (64, 96), (640, 64)][seed % 5]
        strides = [(8, 16, 32, 64, 128), (8,), (4, 8), (64,)][seed % 4]
        shapes = [(-(-height // s), -(-width // s)) for s in strides]
        anchors, sizes = pyramid_anchors(shapes, strides, (8.0,)), [h * w for h, w in shapes]
        if seed % 7 == 0:  # in no order, and not all of them
            levels = [level[torch.randperm(len(level))[: 1 + len(level) // 2]] for level in anchors.split(sizes)]
            anchors, sizes = torch.cat(levels), [len(level) for level in levels]
        boxes = SCENES[kind](random_boxes(2 + 5 * (seed % 9), (height, width)))
        topk = (9, 9, 1, 25)[seed % 4]
        assert torch.equal(atss(anchors, sizes, boxes, topk), naive_atss(anchors, sizes, boxes, topk)), seed


@pytest.mark.parametrize("k", [1, 9, 30])
def test_blocks_find_the_nearest_points_and_leave_few_cases_to_the_full_search(k, monkeypatch):
    points, to = grid_points((100, 168), 8), 1344 * torch.rand(300, 2) - 100
    searched = []

    def full(points, to, k):
        searched.append(len(to))
        return nearest_of_all(points, to, k)

    monkeypatch.setattr(assigners, "nearest_of_all", full)

    def by_topk(to):
        distance = (to[:, None] - points).square().sum(-1).sqrt()  # (300, n)
        return distance.topk(k, largest=False).indices.T

    assert torch.equal(nearest(points, to, k), by_topk(to))
    assert sum(searched) < 30
    assert torch.equal(nearest(points, 50 * to, k), by_topk(50 * to))  # so far away that rounding makes points tie
    searched.clear()
    ties = nearest(points, torch.tensor([[4.0, 4.0], [404.0, 404.0]]), k)  # in the middle of four points
    assert searched == [2] and ties.shape == (k, 2)


@pytest.mark.parametrize("rounded", [False, True])
def test_atss_never_holds_all_pairs(rounded):
    anchors = pyramid_anchors([(100, 168), (50, 84), (25, 42)], (8, 16, 32), (8.0,))
    boxes = random_boxes(400, (800, 1344))
    boxes = (boxes / 8).round() * 8 if rounded else boxes
    peak, _ = peak_memory(lambda: atss(anchors, [16800, 4200, 1050], boxes), anchors.device)
    assert peak < (4 * 4 * DISTANCES / 1e6 if rounded else 4e-6 * len(anchors) * len(boxes) / 4)


def test_benchmark(tmp_path, capsys):
    report = tmp_path / "assign.json"
    threads = ["--threads", str(torch.get_num_threads())]
    assign.main(["--boxes", "2", "5", "--size", "128", "96", "--repeats", "1", "--json", str(report), *threads])
    rows = json.loads(report.read_text())["rows"]
    assert [row["boxes"] for row in rows] == [2, 5] and all(row["naive_ms"] > 0 < row["ours_mb"] for row in rows)
    assert "257 anchors" in capsys.readouterr().out


# ------------------------------------------------------------------ a batch
@pytest.mark.parametrize("per_cell", [1, 2])
def test_priors_on_batch_padding_are_marked(per_cell):
    shapes, strides, image_sizes = [(8, 12), (4, 6)], (8, 16), [(64, 96), (50, 33)]  # the second ends at 64 x 64
    anchors = pyramid_anchors(shapes, strides, (4.0, 8.0)[:per_cell])
    targets = [{"boxes": torch.tensor([[0.0, 0, 30, 30]]), "labels": torch.tensor([3])},
               {"boxes": torch.tensor([[0.0, 0, 9, 9], [8, 8, 40, 40]]), "labels": torch.tensor([5, 7])}]  # fmt: skip
    seen = []

    def spy(priors, level_sizes, boxes, labels):
        seen.append(level_sizes)
        return atss(priors, level_sizes, boxes)

    match = assign_images(spy, anchors, shapes, strides, targets, image_sizes, IGNORED, per_cell)  # (2, P)
    assert seen == [[96 * per_cell, 24 * per_cell], [64 * per_cell, 16 * per_cell]]
    middle = centers(anchors)
    assert torch.equal(match[1] == IGNORED, (middle[:, 0] >= 64) | (middle[:, 1] >= 64))
    assert not (match[0] == IGNORED).any()
    own = assign_images(spy, torch.stack([anchors, anchors]), shapes, strides, targets, image_sizes, IGNORED, per_cell)
    assert torch.equal(own, match)

    image, prior = torch.nonzero(match >= 0, as_tuple=True)
    boxes, labels = matched_truth(targets, match, image, prior)
    assert set(labels[image == 0].tolist()) == {3} and set(labels[image == 1].tolist()) <= {5, 7}
    assert torch.equal(boxes[labels == 7], targets[1]["boxes"][1].expand(int((labels == 7).sum()), 4))


# ------------------------------------------------------------------ the rules of the other detectors
@pytest.mark.parametrize("case", [c for c in MAXIOU.text("cases") if not c.startswith("ignored_iof")])
def test_max_iou(case):
    positive, negative, least, _, low_quality = MAXIOU[f"{case}_params"].tolist()
    least = least if low_quality else 2.0  # an overlap that nothing reaches
    match = max_iou(MAXIOU["priors"], MAXIOU[f"{case}_gts"], positive, negative, least)
    assert torch.equal(gt_inds(match), MAXIOU[f"{case}_gt_inds"])


def test_max_iou_by_hand():
    priors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 4.5], [50, 50, 60, 60], [0, 0, 10, 2]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [52, 52, 62, 62]])
    # IoU .9 and 1 with the first box; .45 lies between the thresholds; the second box is content with .47
    assert max_iou(priors, boxes).tolist() == [0, 0, IGNORED, 1, BACKGROUND]
    same = max_iou(priors, boxes[[0, 0]])  # of two equal boxes the later one takes the best prior, the first the others
    assert same.tolist() == [1, 0, IGNORED, BACKGROUND, BACKGROUND]


@pytest.mark.parametrize("case", POINT.text("cases"))
def test_nearest_point(case):
    match = nearest_point(POINT["points"], POINT[f"{case}_gts"], 4.0, int(POINT[f"{case}_pos_num"]))
    assert torch.equal(gt_inds(match), POINT[f"{case}_gt_inds"])


def test_nearest_point_by_hand():
    shapes, strides = [(8, 8), (4, 4)], (8, 16)
    points = torch.cat([pyramid_points(shapes, strides), per_point(strides, shapes)[:, None]], 1)
    small, large = [9.0, 8, 41, 40], [0.0, 0, 64, 64]  # 32 = 4 * 8 pixels: level 3; 64: level 4
    match = nearest_point(points, torch.tensor([small, large]))
    taken = torch.nonzero(match >= 0)[:, 0]
    assert points[taken].tolist() == [[24, 24, 8], [32, 32, 16]] and match[taken].tolist() == [0, 1]
    rivals = nearest_point(points, torch.tensor([[8.0, 8, 40, 44], small, small]))  # all want the point (24, 24)
    assert rivals[rivals >= 0].tolist() == [1]  # the second is nearer than the first, the third no nearer
    huge = nearest_point(points, torch.tensor([[0.0, 0, 4000, 4000]]))  # there is no level for it: the coarsest
    assert points[huge >= 0][0, 2] == 16


@pytest.mark.parametrize("case", FOVEA.text("cases"))
def test_fovea(case):
    strides, ranges = (8, 16, 32, 64, 128), ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))
    shapes, boxes = [tuple(s) for s in FOVEA["sizes"].tolist()], FOVEA[f"{case}_gts"]
    match = fovea(shapes, strides, ranges, boxes)
    positive = match >= 0
    labels = torch.full_like(match, 80)
    labels[positive] = FOVEA[f"{case}_gt_labels"][match[positive]]
    assert torch.equal(labels, FOVEA[f"{case}_labels"])
    assert torch.equal(boxes[match[positive]], FOVEA[f"{case}_box_targets_xyxy"][positive])
    points, edges = pyramid_points(shapes, strides, 0.5), per_point([2 * s for s in strides], shapes)
    ratio = xyxy_to_ltrb(points[positive], boxes[match[positive]]) / edges[positive, None]
    close(ratio.clamp(1 / 16, 16).log(), FOVEA[f"{case}_bbox_targets"][positive], atol=1e-5)


def test_fovea_by_hand():
    match = fovea([(8, 8), (4, 4)], (8, 16), ((1, 64), (32, 128)), torch.tensor([[0.0, 0, 60, 60], [20, 20, 40, 40]]))
    fine = match[:64].view(8, 8)
    assert fine[3, 3] == 1  # the small box, over the large one, whose middle is 18 .. 42 pixels
    assert (fine[2, 2:5] == 0).all() and (fine[:2] == BACKGROUND).all() and (fine >= 0).sum() == 9
    assert (match[64:].view(4, 4)[1:3, 1:3] == 0).all()  # and is learned on two levels
