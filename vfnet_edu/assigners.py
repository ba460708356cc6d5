"""Who learns what.  Each assigner maps priors to ground truth: a gt index per prior, or one of the two marks below."""

import torch
from torch import Tensor

from vfnet_edu.boxes import centers, iou, xyxy_to_ltrb

BACKGROUND = -1  # learn a score of zero here
IGNORED = -2  # learn nothing here


@torch.no_grad()
def atss(anchors: Tensor, level_sizes: list[int], gt_boxes: Tensor, topk: int = 9) -> Tensor:
    """Adaptive training sample selection: every box chooses its own IoU threshold.

    Args:
        anchors: (P, 4) one square per point, level by level.
        level_sizes: number of anchors of each level; sums to P.
        gt_boxes: (G, 4) ground-truth boxes, pixels.
        topk: candidates per level and box.

    Returns:
        (P,) int64, the index of the box that an anchor must predict, or BACKGROUND.

    Source: Zhang et al. 2020 (ATSS), algorithm 1.  The standard deviation is the unbiased one, over the candidates
    of all levels together.  A box may end with no anchor at all: nothing is forced.
    """
    if len(gt_boxes) == 0:
        return anchors.new_full((len(anchors),), BACKGROUND, dtype=torch.int64)
    overlap = iou(anchors[:, None], gt_boxes)  # (P, G)
    offset = centers(anchors)[:, None] - centers(gt_boxes)  # (P, G, 2)
    distance = offset.square().sum(-1).sqrt()  # (P, G)

    # 1. on every level, the k anchors whose centre is nearest to the centre of the box
    candidates, start = [], 0
    for d in distance.split(level_sizes):
        candidates.append(d.topk(min(topk, len(d)), dim=0, largest=False).indices + start)
        start += len(d)
    candidates = torch.cat(candidates)  # (T, G), T = 9 * levels

    # 2. the threshold of a box: mean + standard deviation of its candidates' IoU
    candidate_iou = overlap.gather(0, candidates)  # (T, G)
    positive = candidate_iou >= candidate_iou.mean(0) + candidate_iou.std(0)

    # 3. keep those whose centre lies inside the box
    ltrb = xyxy_to_ltrb(centers(anchors)[candidates], gt_boxes)  # (T, G, 4)
    positive &= ltrb.amin(-1) > 0.01

    # 4. an anchor claimed by two boxes goes to the one it overlaps most (equal: the first)
    claim = torch.full_like(overlap, -1.0)
    claim.scatter_(0, candidates, torch.where(positive, candidate_iou, -1.0))
    best, match = claim.max(dim=1)  # (P,), (P,)
    return torch.where(best >= 0, match, BACKGROUND)
