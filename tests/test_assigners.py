"""Who learns what: the assigners against the authors' code and against cases worked out by hand."""

import pytest
import torch
from recorded import Recording

from vfnet_edu.assigners import atss
from vfnet_edu.boxes import iou
from vfnet_edu.priors import base_anchors, grid_anchors, grid_points

ATSS = Recording("assign_atss")
CASES = [c for c in ATSS.text("cases") if not c.startswith("ignored_iof")]  # no system here uses ignore regions


def gt_inds(match):
    """The recordings count from 1, and 0 is background."""
    return torch.where(match >= 0, match + 1, 0)


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
