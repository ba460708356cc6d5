"""Exercises of chapter 14: two functions of the detector to mend, and one that finds what is wrong with a third."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from vfnet_edu.exercises.engine import Exercise
from vfnet_edu.losses import quality_focal_loss, varifocal_loss


# ---- the classification loss ----------------------------------------------------------------------------------------
def _positives(q):
    return (q > 0).sum().clamp(min=1)


def _score_loss(logits, q):
    return varifocal_loss(logits, q).sum() / _positives(q)


def _bce(logits, q):
    return F.binary_cross_entropy_with_logits(logits, q, reduction="none")


def _weighted(logits, q, weight):
    """The loss with another weight for the background."""
    return (torch.where(q > 0, q, weight) * _bce(logits, q)).sum() / _positives(q)


def _lesson(seed: int, taught: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Logits and targets; the first `taught` rows have an object."""
    draw = torch.Generator().manual_seed(seed)
    logits, q = 2 * torch.randn(*shape, generator=draw), torch.zeros(*shape)
    q.view(-1, shape[-1])[:taught, 0] = 0.3 + 0.6 * torch.rand(taught, generator=draw)
    return logits, q


score_loss = Exercise(
    name="score_loss",
    reference=_score_loss,
    cases=[_lesson(0, 3, 8, 4), _lesson(1, 1, 5, 2), _lesson(2, 0, 6, 3), _lesson(3, 4, 2, 7, 3)],
    mistakes=[
        (
            lambda logits, q: _score_loss(logits.sigmoid(), q),
            "This is the broken one: the sigmoid is taken twice. A score of 0 becomes 0.5, and no score gets below.",
        ),
        (
            lambda logits, q: (
                (torch.where(q > 0, q, 0.75 * logits.sigmoid() ** 2) * _bce(logits.sigmoid(), q)).sum() / _positives(q)
            ),
            "The weight is right now. The cross-entropy still takes a second sigmoid: give it logits.",
        ),
        (
            lambda logits, q: _weighted(logits, q, 0.75 * logits.sigmoid().sigmoid() ** 2),
            "The cross-entropy is right now. The weight of the background still takes the sigmoid twice.",
        ),
        (
            lambda logits, q: _weighted(logits, q, 0.75 * logits**2),
            "Now the weight takes no sigmoid at all: p is a score between 0 and 1, not a logit.",
        ),
        (
            lambda logits, q: _score_loss(logits, q) * _positives(q) / q.numel(),
            "You divide by the number of all scores. Nearly all are background: divide by the number of positives.",
        ),
        (
            lambda logits, q: varifocal_loss(logits, q).sum(),
            "You add up and do not divide: an image with many objects would push harder than one with few.",
        ),
        (
            lambda logits, q: varifocal_loss(logits, q).sum() / (q > 0).sum(),
            "Right where there are objects. Without one you divide by 0: count at least 1.",
        ),
        (
            lambda logits, q: varifocal_loss(logits, q).sum() / q.sum().clamp(min=1),
            "You divide by the sum of the targets. The two box losses do that; this one divides by the number of "
            "positives.",
        ),
        (
            lambda logits, q: _bce(logits, q).sum() / _positives(q),
            "This is plain cross-entropy: where are the weights, q at a positive and 0.75 p² at background?",
        ),
        (
            lambda logits, q: _weighted(logits, q, 0.75 * logits.sigmoid()),
            "The square is lost: background weighs 0.75 p², so that what is easy falls silent.",
        ),
        (
            lambda logits, q: _weighted(logits, q, 0.75 * torch.ones_like(q)),
            "Background weighs 0.75 here, however small its score is. The weight is 0.75 p².",
        ),
        (
            lambda logits, q: _weighted(logits, q, logits.sigmoid() ** 2),
            "The 0.75 is lost: background weighs 0.75 p².",
        ),
        (
            lambda logits, q: _weighted(logits, q, 0.25 * logits.sigmoid() ** 2),
            "Background weighs 0.25 p² here. In this loss it is 0.75 p².",
        ),
        (
            lambda logits, q: (0.75 * logits.sigmoid() ** 2 * _bce(logits, q)).sum() / _positives(q),
            "Positives weigh 0.75 p² here, as background does. They weigh q, their target.",
        ),
        (
            lambda logits, q: (
                (torch.where(q > 0, torch.ones_like(q), 0.75 * logits.sigmoid() ** 2) * _bce(logits, q)).sum()
                / _positives(q)
            ),
            "Every positive weighs 1 here. It weighs q: the better its box, the more.",
        ),
        (
            lambda logits, q: (
                (torch.where(q > 0, q, 0.75 * logits.sigmoid() ** 2) * _bce(logits, (q > 0).to(q))).sum()
                / _positives(q)
            ),
            "You ask the positives for 1. The cross-entropy asks them for q.",
        ),
        (
            lambda logits, q: (
                (torch.where(q > 0, q, 0.75 * logits.sigmoid() ** 2) * _bce(logits, q).mean()).sum() / _positives(q)
            ),
            'The cross-entropy is averaged before it is weighed: `reduction="none"` keeps one value per score.',
        ),
        (
            lambda logits, q: (q * _bce(logits, q)).sum() / _positives(q),
            "Background costs nothing here. Then nobody learns to be silent: give it the weight 0.75 p².",
        ),
        (
            lambda logits, q: varifocal_loss(logits, q).sum() / len(q),
            "You divide by the length of the first axis. Divide by the number of positives, `(q > 0).sum()`.",
        ),
        (
            lambda logits, q: varifocal_loss(logits, q).sum() / ((q > 0).sum() + 1),
            "You count one positive too many. The 1 is only for pictures without any: `clamp(min=1)`.",
        ),
        (
            lambda logits, q: quality_focal_loss(logits, q).sum() / _positives(q),
            "This is the quality focal loss: it weighs by (p - q)² everywhere. Here a positive weighs q.",
        ),
        (varifocal_loss, "You return the loss of every score. Add them up, and divide by the number of positives."),
    ],
    right="The loss gets logits and takes the sigmoid itself, once. Now background can become silent.",
    hint="Varifocal loss of the logits, added up, divided by the number of positives, at least 1.",
    describe=lambda case: f"{tuple(case[0].shape)} logits with {int((case[1] > 0).sum())} positives",
)


# ---- suppression ----------------------------------------------------------------------------------------------------
def _keep(boxes, scores, labels, same=0.6, most=100):
    apart = boxes + labels[:, None] * (boxes.max() + 1)
    return nms(apart, scores, same)[:most]


def _suppress(boxes, scores, labels):
    keep = _keep(boxes, scores, labels)
    return boxes[keep], scores[keep], labels[keep]


def _first_rows_of(which: str):
    """Only some of the three are put in order; the others are merely cut to the same length."""

    def answer(boxes, scores, labels):
        keep = _keep(boxes, scores, labels)
        three = {"boxes": boxes, "scores": scores, "labels": labels}
        return tuple(x[: len(keep)] if name in which else x[keep] for name, x in three.items())

    return answer


def _with_keep(choose):
    """`choose`: another way to say which rows stay."""

    def answer(boxes, scores, labels):
        keep = choose(boxes, scores, labels)
        return boxes[keep], scores[keep], labels[keep]

    return answer


def _far_apart(boxes, scores, labels):
    keep = _keep(boxes, scores, labels)
    return (boxes + labels[:, None] * (boxes.max() + 1))[keep], scores[keep], labels[keep]


def _crowd(seed: int, objects: int, each: int, size: float) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes of three classes in heaps around some places, with scores and labels."""
    draw = torch.Generator().manual_seed(seed)
    middle = (size * torch.rand(objects, 2, generator=draw)).repeat_interleave(each, 0)
    middle = middle + 3 * torch.randn(len(middle), 2, generator=draw)
    half = 8 + 12 * torch.rand(len(middle), 2, generator=draw)
    labels = torch.randint(3, (len(middle),), generator=draw)
    return torch.cat([middle - half, middle + half], 1), torch.rand(len(middle), generator=draw), labels


def _swapped(boxes, scores, labels):
    keep = _keep(boxes, scores, labels)
    return boxes[keep], labels[keep], scores[keep]


def _sorted_labels(boxes, scores, labels):
    keep = _keep(boxes, scores, labels)
    return boxes[keep], scores[keep], labels[keep].sort().values


def _class_by_class(boxes, scores, labels):
    rows = [(labels == k).nonzero()[:, 0] for k in labels.unique()]
    return torch.cat([r[nms(boxes[r], scores[r], 0.6)] for r in rows])[:100]


def _first_100(boxes, scores, labels):
    best = scores.argsort(descending=True)[:100]
    return best[_keep(boxes[best], scores[best], labels[best])]


suppress = Exercise(
    name="suppress",
    reference=_suppress,
    cases=[_crowd(0, 2, 9, 60), _crowd(1, 5, 8, 120), _crowd(2, 180, 2, 900)],
    mistakes=[
        (
            _first_rows_of("labels"),
            "This is the broken one: boxes and scores are in the order of `keep`, the labels are not.",
        ),
        (_first_rows_of("scores"), "The labels are right, but the scores are no longer those of their boxes."),
        (_first_rows_of("boxes"), "Scores and labels are in the order of `keep`, the boxes are not."),
        (
            _first_rows_of("boxes scores labels"),
            "You keep the first rows, as many as survive. Which ones survive is in `keep`: index all three with it.",
        ),
        (
            lambda *case: _keep(*case),
            "You return the numbers of the rows. Wanted are the boxes, scores and labels in these rows.",
        ),
        (
            _with_keep(lambda boxes, scores, labels: nms(boxes, scores, 0.6)[:100]),
            "Classes suppress each other here: a heart in front of a star must not delete it. Move classes apart.",
        ),
        (
            _with_keep(lambda boxes, scores, labels: nms(boxes + labels[:, None], scores, 0.6)[:100]),
            "The classes are moved apart by one pixel only. Move them so far that no two boxes can meet.",
        ),
        (
            _far_apart,
            "You return the boxes that were moved apart. They were only for NMS: take the rows of `boxes`.",
        ),
        (
            _with_keep(lambda *case: _keep(*case, most=10_000)),
            "More than 100 can survive. COCO's rules look at the first 100 of an image.",
        ),
        (
            _with_keep(lambda *case: _keep(*case).flip(0)),
            "The worst comes first. `nms` returns the best first: leave its order alone.",
        ),
        (
            _with_keep(lambda *case: _keep(*case).sort().values),
            "The right boxes in the order of their rows. `nms` returns the best first: leave its order alone.",
        ),
        (
            _with_keep(lambda *case: _keep(*case, same=0.5)),
            "The overlap at which two boxes are taken for the same object is 0.6 here, not 0.5.",
        ),
        (
            _with_keep(lambda boxes, scores, labels: scores.argsort(descending=True)[:100]),
            "Sorted, but nothing is suppressed: where is `nms`?",
        ),
        (lambda *case: case, "You return what you were given: where is `nms`?"),
        (_swapped, "Scores and labels have changed places: boxes, scores, labels is the order."),
        (_sorted_labels, "You sorted the labels by themselves. Each belongs to a box: index them with `keep`."),
        (
            _with_keep(_class_by_class),
            "Class by class suppresses the right boxes. But now they stand by class: the best of all must come first.",
        ),
        (
            _with_keep(_first_100),
            "You take the best 100 before `nms`. Many of those are suppressed: take 100 of what survives.",
        ),
        (
            _with_keep(lambda boxes, scores, labels: nms(boxes, scores, 0.6)),
            "Classes suppress each other here, and nothing stops at 100. Move classes apart, then cut.",
        ),
    ],
    right="One index for all three. What belongs together travels together.",
    hint="Move the classes apart, ask `nms` which rows stay, keep the first 100, index all three with them.",
    describe=lambda case: f"{len(case[0])} boxes",
)


# ---- where grid_sample reads --------------------------------------------------------------------------------------
def _cell(x, w):
    return ((x + 1) * w - 1) / 2


cell = Exercise(
    name="cell",
    reference=_cell,
    cases=[(-0.75, 4), (0.75, 4), (-0.6, 8), (0.25, 16), (-1.125, 16), (0.1, 10)],
    mistakes=[
        (
            lambda x, w: (x + 1) * w / 2,
            "This counts from the left edge of the map. Cell 0 has its middle half a cell to the right of it.",
        ),
        (
            lambda x, w: (x + 1) * (w - 1) / 2,
            "This is the rule of align_corners=True, where -1 and 1 are the middles of the first and last cell. "
            "Here they are the edges of the map.",
        ),
        (
            lambda x, w: ((x + 1) * w + 1) / 2,
            "Half a cell to the wrong side: from the edge to the middle of cell 0 is half a cell, so take it away.",
        ),
        (
            lambda x, w: (x + 1) * w / 2 - 1,
            "You take a whole cell away. From the left edge to the middle of cell 0 is half of one.",
        ),
        (lambda x, w: (x * w - 1) / 2, "The left edge is -1: add 1 first, so that the way begins at 0."),
        (lambda x, w: x * w / 2, "This counts cells from the middle of the map. Cell 0 is at its left."),
        (
            lambda x, w: (x + 1) * w - 1 / 2,
            "From edge to edge are 2 units and w cells, so a unit is w / 2 cells, not w.",
        ),
        (lambda x, w: (x + 1) * w - 1, "Twice too many cells: from edge to edge are 2 units, not 1."),
        (
            lambda x, w: (2 * x + 1) / w - 1,
            "That is the other direction, from a cell to what `grid_sample` is told. Solve it for the cell.",
        ),
        (
            lambda x, w: ((x + 1) * (w - 1) - 1) / 2,
            "Half a cell is there. But from edge to edge are w cells, not w - 1.",
        ),
        (lambda x, w: (x + 1) / 2, "This is the share of the map to the left of x. Wanted is a cell: there are w."),
        (lambda x, w: (x + 1) * w / 2 - 1 / w, "Half a cell, counted in cells, is 0.5, whatever w is."),
        (lambda x, w: x + 1 * w / 2 - 0.5, "Brackets: the sum x + 1 is multiplied, not the 1 alone."),
        (
            lambda x, w: round(_cell(x, w)),
            "You round to a whole cell. `grid_sample` reads between cells, and mixes its neighbours.",
        ),
        (
            lambda x, w: math.floor((x + 1) * w / 2),
            "That is the cell in which x lies. Wanted is the place, also between two middles.",
        ),
        (
            lambda x, w: max(0.0, min(w - 1.0, _cell(x, w))),
            "Do not hold it inside the map: a place outside reads 0 there, and should.",
        ),
        (lambda x, w: ((1 - x) * w - 1) / 2, "Left and right are exchanged: -1 is the left edge."),
        (lambda x, w: 0.0, "That is the value of the example. It depends on x and w."),
    ],
    right="Put the broken line into it: it reads at u - 1/2. Then put the healthy one into it.",
    hint="How far is x from the left edge, in cells? A cell is 2 / w wide; half of one leads to the middle of cell 0.",
    describe=lambda case: f"x = {case[0]:g}, {case[1]} cells",
)
