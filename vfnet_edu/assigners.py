"""Who learns what.  Each assigner maps priors to ground truth: a gt index per prior, or one of the two marks below."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vfnet_edu.boxes import area, centers, iou, xyxy_to_ltrb
from vfnet_edu.priors import ceil32, grid_points, valid_cells

BACKGROUND = -1  # learn a score of zero here
IGNORED = -2  # learn nothing here

BLOCK = 32  # points of a level that `nearest` rules out together
DISTANCES = 2**20  # that `nearest` holds at once: 4 MB, which still fits a CPU's cache


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
    of all levels together.  A box may end up with no anchor at all: nothing is forced.

    Derived in chapter 6.
    """
    if len(gt_boxes) == 0:
        return anchors.new_full((len(anchors),), BACKGROUND, dtype=torch.int64)
    points = centers(anchors)  # (P, 2)

    # 1. on every level, the k anchors whose centre is nearest to the centre of the box
    candidates, start = [], 0
    for level in points.split(level_sizes):
        candidates.append(nearest(level, centers(gt_boxes), topk) + start)
        start += len(level)
    candidates = torch.cat(candidates)  # (T, G), T = 9 * levels

    # 2. the threshold of a box: mean + standard deviation of its candidates' IoU
    overlap = iou(anchors[candidates], gt_boxes)  # (T, G)
    positive = overlap >= overlap.mean(0) + overlap.std(0)

    # 3. keep those whose centre lies inside the box
    ltrb = xyxy_to_ltrb(points[candidates], gt_boxes)  # (T, G, 4)
    positive &= ltrb.amin(-1) > 0.01

    # 4. an anchor claimed by two boxes goes to the one it overlaps most (equal: the first)
    where, nobody = candidates.flatten(), len(gt_boxes)
    claim = torch.where(positive, overlap, -1.0)  # (T, G)
    best = claim.new_full((len(anchors),), -1.0).scatter_reduce(0, where, claim.flatten(), "amax")  # (P,)
    positive &= overlap == best[candidates]
    owner = torch.where(positive, torch.arange(nobody, device=where.device), nobody)  # (T, G)
    match = torch.full_like(best, nobody, dtype=torch.int64).scatter_reduce(0, where, owner.flatten(), "amin")  # (P,)
    return torch.where(match < nobody, match, BACKGROUND)


@torch.no_grad()
def max_iou(
    priors: Tensor, gt_boxes: Tensor, positive: float = 0.5, negative: float = 0.4, low_quality: float = 0.0
) -> Tensor:
    """The rule of RetinaNet: one threshold for all boxes, and no box is left without a prior.

    Args:
        priors: (P, 4) anchors, or boxes already predicted (RepPoints).
        gt_boxes: (G, 4) ground-truth boxes, pixels.
        positive: a prior with at least this IoU learns the box it overlaps most.
        negative: a prior below this learns the background; one in between learns nothing.
        low_quality: every box that some prior overlaps by at least this IoU also gets the priors that overlap it most.

    Returns:
        (P,) int64, the index of the box that a prior must predict, BACKGROUND, or IGNORED.

    Source: Faster R-CNN (Ren et al. 2015), section 3.1.2, with the thresholds of RetinaNet.  As in the authors' code 0
    is enough for the last rule: a box that overlaps no prior at all claims every prior, since they all tie at 0.
    """
    if len(gt_boxes) == 0:
        return priors.new_full((len(priors),), BACKGROUND, dtype=torch.int64)
    overlap = iou(priors[:, None], gt_boxes)  # (P, G)
    best, match = overlap.max(dim=1)  # (P,), (P,)
    match = match.where(best >= positive, torch.where(best < negative, BACKGROUND, IGNORED))

    best_of_box = overlap.amax(0)  # (G,)
    claimed = (overlap == best_of_box) & (best_of_box >= low_quality)  # (P, G)
    return last_claim(claimed, otherwise=match)


@torch.no_grad()
def nearest_point(points: Tensor, gt_boxes: Tensor, scale: float = 4.0, topk: int = 1) -> Tensor:
    """The rule of RepPoints' first stage: the point nearest to a box's centre, on the one level that fits its size.

    Args:
        points: (P, 3) as (x, y, stride of the level), pixels.
        gt_boxes: (G, 4) ground-truth boxes, pixels.
        scale: a box of `scale` strides belongs to that level.
        topk: points per box.

    Returns:
        (P,) int64, the index of the box that a point must predict, or BACKGROUND.

    Source: Yang et al. 2019 (RepPoints), section 4.2.  Distances are in widths and heights of the box; a point that
    two boxes want goes to the nearer (equal: the first).
    """
    if len(gt_boxes) == 0:
        return points.new_full((len(points),), BACKGROUND, dtype=torch.int64)
    wh = (gt_boxes[:, 2:] - gt_boxes[:, :2]).clamp(min=1e-6)  # (G, 2)
    level = points[:, 2].log2()  # (P,) 3 .. 7
    wanted = ((wh / scale).log2().sum(1) / 2).trunc().clamp(level.min(), level.max())  # (G,)
    distance = ((points[:, None, :2] - centers(gt_boxes)) / wh).norm(dim=-1)  # (P, G)
    distance = distance.where(level[:, None] == wanted, torch.inf)

    near = distance.topk(min(topk, len(points)), dim=0, largest=False)
    claim = torch.full_like(distance, torch.inf).scatter_(0, near.indices, near.values)
    best, match = claim.min(dim=1)  # (P,), (P,)
    return match.where(best.isfinite(), BACKGROUND)


@torch.no_grad()
def fovea(
    level_shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    scale_ranges: Sequence[tuple[float, float]],
    gt_boxes: Tensor,
    shrink: float = 0.4,
) -> Tensor:
    """The rule of FoveaBox: every cell whose centre lies in the middle of a box, on each level that fits its size.

    Args:
        level_shapes: (H, W) of each level.
        strides: of each level.
        scale_ranges: smallest and largest sqrt(width * height) of each level, pixels; they overlap, so a box may be
            learned on two levels.
        gt_boxes: (G, 4) ground-truth boxes, pixels.
        shrink: the middle is this share of the box's width and height.

    Returns:
        (P,) int64, the index of the box that a cell must predict, or BACKGROUND.

    Source: Kong et al. 2019 (FoveaBox), section 3.3.  Where boxes overlap, the smaller wins.
    """
    cells = sum(h * w for h, w in level_shapes)
    if len(gt_boxes) == 0:
        return gt_boxes.new_full((cells,), BACKGROUND, dtype=torch.int64)
    order = area(gt_boxes).sort(descending=True, stable=True).indices
    boxes = gt_boxes[order]  # large ones first
    size = area(boxes).sqrt()  # (G,)
    matches = []
    for (h, w), stride, (smallest, largest) in zip(level_shapes, strides, scale_ranges, strict=True):
        corner, half = boxes[:, :2] / stride, (boxes[:, 2:] - boxes[:, :2]) / stride / 2  # (G, 2), (G, 2) in cells
        edge = corner.new_tensor([w - 1, h - 1])
        first = (corner + (1 - shrink) * half - 0.5).ceil().clamp(min=0).minimum(edge)  # (G, 2) as (column, row)
        last = (corner + (1 + shrink) * half - 0.5).floor().clamp(min=0).minimum(edge)
        cell = grid_points((h, w), 1, device=boxes.device)[:, None]  # (H*W, 1, 2)
        inside = ((cell >= first) & (cell <= last)).all(-1)  # (H*W, G)
        fits = (size >= smallest) & (size <= largest)
        winner = last_claim(inside & fits, otherwise=torch.full_like(cell[:, 0, 0], BACKGROUND, dtype=torch.int64))
        matches.append(torch.where(winner >= 0, order[winner], BACKGROUND))
    return torch.cat(matches)


def last_claim(claimed: Tensor, otherwise: Tensor) -> Tensor:
    """The last of the boxes that claim a prior: later boxes overwrite earlier ones.  (P, G) bool, (P,) -> (P,)"""
    rank = torch.arange(1, claimed.shape[1] + 1, dtype=torch.int32, device=claimed.device)
    last = (claimed * rank).amax(1).long()  # 0: nobody
    return torch.where(last > 0, last - 1, otherwise)


# ------------------------------------------------------------------ a batch of images
def assign_images(
    assign: Callable[[Tensor, list[int], Tensor, Tensor], Tensor],
    priors: Tensor,
    level_shapes: list[tuple[int, int]],
    strides: Sequence[int],
    targets: list[dict[str, Tensor]],
    image_sizes: list[tuple[int, int]],
    unmapped: int,
    per_cell: int = 1,
) -> Tensor:
    """Run an assigner image by image on the priors that lie on the image.  -> (B, P) int64

    Args:
        assign: (priors (V, ·), level sizes, gt boxes (G, 4), gt labels (G,)) -> match (V,).
        priors: (P, ·) of all levels, shared by the images, or (B, P, ·) of each image.
        level_shapes: (H, W) of each level.
        strides: of each level.
        targets: per image ``{"boxes": (G, 4), "labels": (G,)}``.
        image_sizes: (height, width) of each image without padding.
        unmapped: the mark of a prior on batch padding.
        per_cell: priors per cell.
    """
    matches = []
    for i, (target, size) in enumerate(zip(targets, image_sizes, strict=True)):
        padded = (ceil32(size[0]), ceil32(size[1]))
        levels = [  # on the CPU, where counting them waits for no GPU
            valid_cells(hw, s, padded).repeat_interleave(per_cell) for hw, s in zip(level_shapes, strides, strict=True)
        ]
        valid = torch.cat(levels).nonzero()[:, 0].to(priors.device, non_blocking=True)  # (V,)
        own = priors if priors.dim() == 2 else priors[i]  # (P, ·)
        match = torch.full_like(own[:, 0], unmapped, dtype=torch.int64)
        match[valid] = assign(own[valid], [int(v.sum()) for v in levels], target["boxes"], target["labels"])
        matches.append(match)
    return torch.stack(matches)


def matched_truth(targets: list[dict[str, Tensor]], match: Tensor, image: Tensor, prior: Tensor):
    """The box and the class that each of N positives must predict.  -> (N, 4), (N,)

    match (B, P) holds gt indices within their image; (image, prior) name the positives.
    """
    counts = torch.tensor([0] + [len(t["labels"]) for t in targets[:-1]]).to(match.device, non_blocking=True)
    row = match[image, prior] + counts.cumsum(0)[image]
    return torch.cat([t["boxes"] for t in targets])[row], torch.cat([t["labels"] for t in targets])[row]


# ------------------------------------------------------------------ the nearest points
def nearest(points: Tensor, to: Tensor, k: int) -> Tensor:
    """The k points of a level nearest to each of G others, the nearest first; all, if there are fewer.

    Args:
        points: (n, 2) of one level, row by row.
        to: (G, 2).
        k: how many.

    Returns:
        (min(k, n), G) int64, the indices that ``topk`` finds among all distances, even where distances are equal.

    On a CPU a large level is searched by blocks of points that follow each other, and so lie close together: the
    rectangle that a block fills says how near its points can be, and only the k + 8 most promising blocks are opened.
    Where that does not settle the order (a point as near as another, a block as near as the last point) all points are
    compared.  A GPU always does that: it is fast enough, and the host need not wait to find out what is settled.
    """
    opened = k + 8
    if points.device.type != "cpu" or len(points) < 2 * opened * BLOCK:
        return nearest_of_all(points, to, min(k, len(points))).T
    blocks = F.pad(points, (0, 0, 0, -len(points) % BLOCK), value=torch.inf).unflatten(0, (-1, BLOCK))  # (n/32, 32, 2)
    closest = to[:, None].clamp(blocks.amin(1), blocks.amax(1))  # (G, n/32, 2) in the rectangle of each block
    bound, block = squared_distance(to, closest).topk(opened + 1, largest=False)  # (G, k + 9) each
    square, index = squared_distance(to, blocks[block[:, :-1]].flatten(1, 2)).topk(k + 1, largest=False)  # (G, k + 1)
    found = block.gather(1, index // BLOCK) * BLOCK + index % BLOCK  # (G, k + 1)

    distance, beyond = square.sqrt(), bound[:, -1].sqrt()  # rounding the roots makes some distances equal
    settled = (distance.diff() > 0).all(1) & (distance[:, -1] < beyond)  # (G,)
    found[~settled, :k] = nearest_of_all(points, to[~settled], k)
    return found[:, :k].T


def nearest_of_all(points: Tensor, to: Tensor, k: int) -> Tensor:
    """The same by comparing all distances, never more than DISTANCES at once.  (n, 2), (G, 2) -> (G, k)"""
    at_once = max(1, DISTANCES // max(1, len(points)))
    found = [squared_distance(some, points).sqrt_().topk(k, largest=False).indices for some in to.split(at_once)]
    return torch.cat(found)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """From each of G points to all of N, or to N of its own.  (G, 2), (N, 2) or (G, N, 2) -> (G, N)"""
    return (a[:, :1] - b[..., 0]).square_().add_((a[:, 1:] - b[..., 1]).square_())
