"""Who learns what: the assigners against the authors' code and against cases worked out by hand."""

import pytest
import torch
from recorded import Recording, close

from vfnet_edu.assigners import BACKGROUND, IGNORED, atss, fovea, max_iou, nearest_point
from vfnet_edu.boxes import iou, xyxy_to_ltrb
from vfnet_edu.priors import base_anchors, grid_anchors, grid_points, per_point, pyramid_points

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
    match = atss(priors, sizes, ATSS[f"{case}_gts"], int(ATSS[f"{case}_topk"]))
    assert torch.equal(gt_inds(match), ATSS[f"{case}_gt_inds"])


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
