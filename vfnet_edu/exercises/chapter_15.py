"""Exercises of chapter 15."""

import torch
from torchvision.ops import box_iou, nms

from vfnet_edu.exercises.engine import Exercise


# ---- own NMS -------------------------------------------------------------------------------------------------------
def _greedy(boxes, scores, limit, order=None, meets=None, overlap=box_iou):
    """Positions that stay.  `order` sorts the scores, `meets` compares an overlap with the limit."""
    order = order or (lambda s: s.sort(descending=True, stable=True).indices)
    meets = meets or (lambda shared: shared > limit)
    waiting, kept = order(scores).tolist(), []
    while waiting:
        best = waiting.pop(0)
        kept.append(best)
        waiting = [i for i in waiting if not meets(float(overlap(boxes[i : i + 1], boxes[best : best + 1])))]
    return kept


def _last_tie_first(scores):
    return len(scores) - 1 - scores.flip(0).sort(descending=True, stable=True).indices


def _chained(boxes, scores, limit):
    """Boxes that are gone themselves still suppress others."""
    order = scores.sort(descending=True, stable=True).indices.tolist()
    shared = box_iou(boxes, boxes)
    return [i for n, i in enumerate(order) if not any(shared[i, j] > limit for j in order[:n])]


def _once(boxes, scores, limit):
    """Only the first box suppresses anything."""
    first, *rest = scores.sort(descending=True, stable=True).indices.tolist()
    return [first, *(i for i in rest if box_iou(boxes[first : first + 1], boxes[i : i + 1]) <= limit)]


def _over_smaller(a, b):
    """Shared area over the area of the box that may go."""
    shared = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    return shared / (a[:, 2:] - a[:, :2]).prod(1)


def _ranks(boxes, scores, limit):
    """Places in the sorted list instead of positions in the given one."""
    order = scores.sort(descending=True, stable=True).indices
    return nms(boxes[order], scores[order], limit).tolist()


suppress = Exercise(
    name="suppress",
    reference=_greedy,
    cases=[
        (  # a chain of three, a tie of copies, a small box inside a large one, an IoU of exactly 0.5
            torch.tensor(
                [
                    [60.0, 60, 70, 70],
                    [0, 0, 10, 10],
                    [3, 0, 13, 10],
                    [6, 0, 16, 10],
                    [40, 0, 50, 10],
                    [40, 0, 50, 9],
                    [0, 30, 40, 70],
                    [10, 40, 30, 60],
                    [60, 60, 70, 65],
                    [41, 0, 50, 10],
                ]
            ),
            torch.tensor([0.6, 0.9, 0.8, 0.7, 0.5, 0.5, 0.95, 0.3, 0.2, 0.5]),
            0.5,
        ),
        (
            torch.tensor(
                [
                    [0.0, 0, 8, 8],
                    [0, 0, 8, 8],
                    [0, 2, 8, 10],
                    [20, 0, 30, 10],
                    [22, 0, 32, 10],
                    [24, 0, 34, 10],
                    [20, 0, 30, 4],
                ]
            ),
            torch.tensor([0.25, 0.75, 0.75, 0.5, 0.6, 0.55, 0.4]),
            0.25,
        ),
    ],
    mistakes=[
        (
            lambda boxes, scores, limit: _greedy(boxes, scores, limit, lambda s: torch.arange(len(s))),
            "You go through the boxes as they come. The highest score is taken first: sort them.",
        ),
        (
            lambda boxes, scores, limit: _greedy(boxes, scores, limit, lambda s: s.sort(stable=True).indices),
            "You start with the lowest score. Sort in descending order.",
        ),
        (
            lambda boxes, scores, limit: _greedy(boxes, scores, limit, _last_tie_first),
            "Among equal scores you take the last box. Take the first: sort with `stable=True` and `descending=True`, "
            "and do not sort upwards and flip.",
        ),
        (
            lambda boxes, scores, limit: _greedy(boxes, scores, limit, meets=lambda shared: shared >= limit),
            "A box whose IoU is exactly the limit goes with you. It stays: only *more* than the limit suppresses.",
        ),
        (
            lambda boxes, scores, limit: _greedy(boxes, scores, limit, meets=lambda shared: shared < limit),
            "You drop what overlaps *less* than the limit. Copies overlap more.",
        ),
        (
            lambda boxes, scores, limit: _greedy(boxes, scores, limit, meets=lambda shared: shared > 0),
            "Whatever touches the best box goes with you. Compare the IoU with the limit.",
        ),
        (
            _chained,
            "A box that is gone goes on suppressing with you. Compare only with boxes that stay.",
        ),
        (_once, "Only the very first box suppresses with you. Repeat it for the best of what is left, until none is."),
        (
            lambda boxes, scores, limit: _greedy(boxes, scores, limit, overlap=_over_smaller),
            "You divide by the area of the box that may go, not by the union: a small box inside a large one "
            "would always go. Take the IoU.",
        ),
        (_ranks, "These are places in your sorted list. Return positions in the list you were given."),
        (
            lambda boxes, scores, limit: sorted(_greedy(boxes, scores, limit)),
            "The right boxes stay, but in the order in which they came. Best first is asked for.",
        ),
        (
            lambda boxes, scores, limit: [i for i in range(len(scores)) if i not in _greedy(boxes, scores, limit)],
            "These are the boxes that go. Return those that stay.",
        ),
        (
            lambda boxes, scores, limit: [int(i in _greedy(boxes, scores, limit)) for i in range(len(scores))],
            "This says of each box whether it stays. Return the positions of those that do, best first.",
        ),
        (
            lambda boxes, scores, limit: scores[_greedy(boxes, scores, limit)],
            "These are the scores of the boxes that stay. Return their positions.",
        ),
        (
            lambda boxes, scores, limit: boxes[_greedy(boxes, scores, limit)],
            "These are the boxes that stay. Return their positions in the list.",
        ),
    ],
    right="Greedy, and exact about ties: the first of equal scores, and only *more* than the limit suppresses.",
    hint="Take the highest score, the first of equal ones. Drop what overlaps it by more than the limit. Repeat.",
    describe=lambda case: f"{len(case[0])} boxes, limit {case[2]}",
)


# ---- class by class in one call ------------------------------------------------------------------------------------
def _class_by_class(boxes, scores, labels, limit):
    """The truth, without any trick: a box meets only boxes of its class."""
    order, kept = scores.sort(descending=True, stable=True).indices.tolist(), []
    shared = box_iou(boxes, boxes)
    for i in order:
        if not any(labels[i] == labels[j] and shared[i, j] > limit for j in kept):
            kept.append(i)
    return kept


def _moved(step):
    """One call after each box is moved by `step(boxes, labels)`, which returns (N, 1) or (N, 4)."""

    def answer(boxes, scores, labels, limit):
        return nms(boxes + step(boxes, labels[:, None]), scores, limit).tolist()

    return answer


def _by_loop(boxes, scores, labels, limit):
    """Class after class, glued together without sorting."""
    kept = []
    for label in labels.unique():
        mine = (labels == label).nonzero()[:, 0]
        kept += mine[nms(boxes[mine], scores[mine], limit)].tolist()
    return kept


def _by_loop_inside(boxes, scores, labels, limit):
    """The same loop with positions inside each class."""
    return [
        i for label in labels.unique() for i in nms(boxes[labels == label], scores[labels == label], limit).tolist()
    ]


def _far_corner(boxes, labels):
    """Only the second corner moves: boxes grow."""
    return labels * (boxes.max() - boxes.min() + 1) * torch.tensor([0.0, 0, 1, 1])


offsets = Exercise(
    name="offsets",
    reference=_class_by_class,
    cases=[
        (  # copies of other classes
            torch.tensor(
                [
                    [0.0, 0, 40, 30],
                    [1, 0, 41, 30],
                    [0, 0, 40, 31],
                    [100, 80, 120, 100],
                    [101, 80, 121, 100],
                    [102, 81, 122, 101],
                    [60, 10, 64, 14],
                    [61, 10, 65, 14],
                    [10, 60, 26, 66],
                    [10, 61, 26, 68],
                ]
            ),
            torch.tensor([0.5, 0.9, 0.8, 0.6, 0.7, 0.4, 0.3, 0.2, 0.35, 0.25]),
            torch.tensor([0, 1, 0, 2, 2, 7, 3, 4, 6, 6]),
            0.5,
        ),
        (  # boxes beyond the left and upper border
            torch.tensor(
                [
                    [90.0, 90, 110, 110],
                    [-20, -20, 0, 0],
                    [-21, -20, -1, 0],
                    [88, 90, 109, 110],
                    [-21, -21, 0, 0],
                    [30, -8, 60, 10],
                    [30, -8, 60, 11],
                    [90, 90, 111, 111],
                ]
            ),
            torch.tensor([0.7, 0.6, 0.5, 0.65, 0.9, 0.3, 0.35, 0.1]),
            torch.tensor([0, 1, 1, 0, 1, 2, 1, 0]),
            0.4,
        ),
    ],
    mistakes=[
        (
            lambda boxes, scores, labels, limit: nms(boxes, scores, limit).tolist(),
            "A box of one class suppresses those of others: move every class away first.",
        ),
        (
            _moved(lambda boxes, labels: labels),
            "One pixel per class is not enough: moved so little, boxes of two classes still overlap. The step from "
            "class to class must be larger than the whole picture.",
        ),
        (
            _moved(lambda boxes, labels: labels * (boxes.max() + 1)),
            "This is the library's step. It is too small here: some boxes reach beyond the border, to coordinates "
            "below 0, and land on the class before. From where to where do the coordinates reach?",
        ),
        (
            _moved(lambda boxes, labels: labels * (boxes.amax(1, keepdim=True) - boxes.min() + 1)),
            "Every box has a step of its own with you, so boxes of one class move apart. The step must be one number "
            "for all.",
        ),
        (
            _moved(_far_corner),
            "You move the second corner alone, so that the boxes grow. Add the offset to all four coordinates.",
        ),
        (_by_loop, "The right boxes stay, but class after class. Best first is asked for, over all classes."),
        (
            _by_loop_inside,
            "These are positions inside each class. Return positions in the whole list, best first.",
        ),
        (
            lambda boxes, scores, labels, limit: sorted(_class_by_class(boxes, scores, labels, limit)),
            "The right boxes stay, but in the order in which they came. Best first is asked for.",
        ),
        (
            lambda boxes, scores, labels, limit: nms(boxes, scores + labels * 10, limit).tolist(),
            "You add to the scores. It is the boxes of different classes that must not meet: move the boxes.",
        ),
        (
            lambda boxes, scores, labels, limit: boxes[_class_by_class(boxes, scores, labels, limit)],
            "These are the boxes that stay. Return their positions in the list.",
        ),
        (
            lambda boxes, scores, labels, limit: labels[_class_by_class(boxes, scores, labels, limit)],
            "These are the labels of the boxes that stay. Return their positions in the list.",
        ),
    ],
    right="A step of the whole range of the coordinates and one more: no class can land on another.",
    hint="Move the boxes of class k by k times a step that is larger than any box can reach, then call nms once.",
    describe=lambda case: f"{len(case[0])} boxes of the classes {case[2].tolist()}, limit {case[3]}",
)


# ---- a threshold for people ----------------------------------------------------------------------------------------
def _scored(scores, hits, objects):
    """The list best first, and precision, recall and F1 of each beginning of it."""
    order = scores.sort(descending=True, stable=True).indices
    right = hits[order].double().cumsum(0)
    shown = torch.arange(1, len(scores) + 1)
    return scores[order], right / shown, right / objects, 2 * right / (shown + objects)


def _ends(values):
    """Only where the score changes can a threshold cut."""
    return torch.cat([values[1:] != values[:-1], torch.tensor([True])])


def _best(measure):
    def answer(scores, hits, objects):
        values, precision, recall, f1 = _scored(scores, hits, objects)
        goal = measure(precision, recall, f1).where(_ends(values), -1)
        return float(values[goal.argmax()])

    return answer


def _without_misses(scores, hits, objects):
    """Recall over what was found at all, not over all objects."""
    return _best(lambda p, r, f: f)(scores, hits, int(hits.sum()))


def _inside_ties(scores, hits, objects):
    values, *_, f1 = _scored(scores, hits, objects)
    return float(values[f1.argmax()])


def _height(scores, hits, objects):
    values, *_, f1 = _scored(scores, hits, objects)
    return float(f1.where(_ends(values), -1).max())


def _place(scores, hits, objects):
    values, *_, f1 = _scored(scores, hits, objects)
    return int(f1.where(_ends(values), -1).argmax())


def _unsorted(scores, hits, objects):
    right = hits.double().cumsum(0)
    return float(scores[(2 * right / (torch.arange(1, len(scores) + 1) + objects)).argmax()])


def _next_lower(scores, hits, objects):
    best = _best(lambda p, r, f: f)(scores, hits, objects)
    lower = scores[scores < best]
    return float(lower.max()) if len(lower) else 0.0


threshold = Exercise(
    name="threshold",
    reference=_best(lambda p, r, f: f),
    cases=[
        (
            torch.tensor([0.30, 0.90, 0.80, 0.55, 0.50, 0.20, 0.70, 0.10, 0.60]),
            torch.tensor([0, 1, 1, 1, 0, 1, 0, 0, 1], dtype=torch.bool),
            6,
        ),
        (
            torch.tensor([0.40, 0.95, 0.60, 0.60, 0.85, 0.15, 0.60, 0.10, 0.05]),
            torch.tensor([1, 1, 1, 0, 1, 0, 0, 0, 0], dtype=torch.bool),
            5,
        ),
        (
            torch.tensor([0.20, 0.50, 0.40, 0.45, 0.60, 0.35, 0.10, 0.70, 0.25, 0.15]),
            torch.tensor([1, 0, 1, 1, 1, 0, 0, 1, 0, 0], dtype=torch.bool),
            20,
        ),
    ],
    mistakes=[
        (
            _best(lambda p, r, f: p),
            "This is best for precision alone: it shows hardly anything, and nothing wrong. F1 asks for recall, too.",
        ),
        (
            _best(lambda p, r, f: r),
            "This is best for recall alone, and shows much that is wrong. F1 asks for precision, too.",
        ),
        (
            _best(lambda p, r, f: -(p - r).abs()),
            "Here precision and recall are as equal as can be. That is not where F1 is highest.",
        ),
        (_without_misses, "You count only the objects that some box found. An object without any box is missed, too."),
        (
            _inside_ties,
            "You stop in the middle of boxes with the same score. A threshold shows all of them or none: count with "
            "`scores >= t`.",
        ),
        (_height, "This is the highest F1 itself. Return the score at which it is reached."),
        (_place, "This is a place in the sorted list. Return the score of the box there."),
        (_unsorted, "Sort the boxes by score first: a threshold keeps the beginning of the *sorted* list."),
        (
            _next_lower,
            "You return the next lower score, which would let one more box in. Boxes *at* the threshold are shown.",
        ),
        (
            lambda scores, hits, objects: 0.5,
            "Half is a number like any other. Try each score as the threshold and measure F1.",
        ),
        (
            lambda scores, hits, objects: float(scores[hits].mean()),
            "The mean score of what is right knows nothing of what is wrong. Try each score and measure F1.",
        ),
        (
            lambda scores, hits, objects: float(scores[~hits].max()),
            "The highest score that is wrong is one more candidate. Try each score as the threshold and measure F1.",
        ),
    ],
    right="It belongs to this list. Another model, other scenes or a costlier mistake give another one.",
    hint="For each score t: shown are the boxes with a score of at least t; F1 = 2 right / (shown + objects).",
    describe=lambda case: f"scores {case[0].tolist()}, hits {case[1].int().tolist()}, {case[2]} objects",
)
