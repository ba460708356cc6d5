"""Exercises of chapter 8."""

import torch
from torch import Tensor

from vfnet_edu.exercises.engine import Exercise

OWN, CLASS, SORTED, BOTH, BOXES = "nothing", "class", "order", "IoU and class", "boxes"


# ---- which bar is how high? -----------------------------------------------------------------------------------------
def _bars():
    return [OWN, CLASS, SORTED, BOTH, BOXES]


bars = Exercise(
    name="bars",
    reference=_bars,
    cases=[()],
    mistakes=[
        (
            lambda: _bars()[::-1],
            "From the highest to the lowest: turn the list around, the lowest AP comes first.",
        ),
        (
            lambda: [OWN, SORTED, CLASS, BOTH, BOXES],
            "Two neighbours change places. To name the class helps a box that had the wrong one; how many have that? "
            "To re-sort helps every object whose best box does not come first. Look at the list above.",
        ),
        (
            lambda: [OWN, CLASS, SORTED, BOXES, BOTH],
            "The last two change places. On COCO that is the order, as the paper's table will show. Here classes are "
            "few and easy; the best box comes first with the true IoU, but it is still not the true box.",
        ),
        (
            lambda: [OWN, SORTED, CLASS, BOXES, BOTH],
            "Two pairs change places. What moves the boxes themselves wins over any score, and the order of the rivals "
            "is worth more than their class.",
        ),
        (
            lambda: [OWN, BOXES, CLASS, SORTED, BOTH],
            "You think that the boxes are good already. Among the rivals of an object there are good ones; but none is "
            "the true box, and with true boxes it matters no longer which rival is kept.",
        ),
        (
            lambda: [OWN, CLASS, BOXES, SORTED, BOTH],
            "You place true boxes too low. With them every rival of an object is the same box, so its order costs "
            "nothing either.",
        ),
        (
            lambda: [OWN, SORTED, BOTH, CLASS, BOXES],
            "IoU and class together tell more than the class alone: they cannot be worth less.",
        ),
        (
            lambda: [CLASS, OWN, SORTED, BOTH, BOXES],
            "To be told the class does not harm: a detector that had nothing replaced is the lowest of the five.",
        ),
        (
            lambda: [SORTED, OWN, CLASS, BOTH, BOXES],
            "Re-sorting moves the highest score of an object to its best box. That cannot be worse than nothing.",
        ),
        (
            lambda: [OWN, CLASS, BOTH, SORTED, BOXES],
            "IoU and class together also put the rivals in the right order: they cannot be worth less than the order.",
        ),
        (
            lambda: [OWN, BOTH, CLASS, SORTED, BOXES],
            "IoU and class together tell the class and give the right order: they cannot be worth less than either.",
        ),
        (
            lambda: [OWN, SORTED, BOXES, CLASS, BOTH],
            "You place true boxes too low and the class too high: with true boxes it does not matter which rival is "
            "kept, and to be told the class is worth less than the order.",
        ),
        (
            lambda: [BOXES, BOTH, CLASS, SORTED, OWN],
            "The highest comes first here: turn the list around. Then ask which of class and order is worth more.",
        ),
    ],
    right="And that is the surprise: a better order of the boxes it has is worth more than knowing every class.",
    hint="Five names, spelled as above, the lowest AP first. To be told two things is worth more than one of them, and "
    "with true boxes it does not matter which rival is kept.",
    describe=lambda case: "your list",
)


# ---- the paper's way to put an oracle into the scores ----------------------------------------------------------------
def _oracle(scores: Tensor, labels: Tensor, ious: Tensor) -> Tensor:
    told = labels >= 0
    new = scores.clone()
    new[told, labels[told]] = ious[told]
    return new


def _into_the_last_class(scores, labels, ious):
    new = scores.clone()
    new[torch.arange(len(labels)), labels] = ious
    return new


def _alone(scores, labels, ious):
    return _oracle(torch.zeros_like(scores), labels, ious)


def _alone_at_positives(scores, labels, ious):
    return torch.where((labels >= 0)[:, None], _alone(scores, labels, ious), scores)


def _silent_background(scores, labels, ious):
    return _oracle(scores, labels, ious) * (labels >= 0)[:, None]


def _at_the_best(scores, labels, ious):
    return _oracle(scores, torch.where(labels >= 0, scores.argmax(1), -1), ious)


def _whole_row(scores, labels, ious):
    return torch.where((labels >= 0)[:, None], ious[:, None].expand_as(scores), scores)


def _all_times_iou(scores, labels, ious):
    return torch.where((labels >= 0)[:, None], scores * ious[:, None], scores)


def _without_class_0(scores, labels, ious):
    return _oracle(scores, torch.where(labels > 0, labels, -1), ious)


def _one_class_off(scores, labels, ious):
    return _oracle(scores, torch.where(labels >= 0, (labels - 1) % scores.shape[1], -1), ious)


def _only_upwards(scores, labels, ious):
    return torch.maximum(scores, _oracle(scores, labels, ious))


def _product(scores, labels, ious):
    return _oracle(scores, labels, ious * scores.gather(1, labels.clamp(min=0)[:, None])[:, 0])


oracle = Exercise(
    name="oracle",
    reference=_oracle,
    cases=[
        (torch.tensor([[0.1, 0.3, 0.6], [0.2, 0.1, 0.1]]), torch.tensor([2, -1]), torch.tensor([0.8, 0.0])),
        (
            torch.tensor([[0.7, 0.4], [0.1, 0.9], [0.05, 0.02], [0.5, 0.6]]),
            torch.tensor([1, 1, -1, 0]),
            torch.tensor([0.9, 0.55, 0.3, 0.7]),
        ),
    ],
    mistakes=[
        (
            _into_the_last_class,
            "A label of -1 counts from the end in Python: background wrote into the last class. Leave those rows out.",
        ),
        (
            _alone,
            "All other scores became 0. The table replaces one score of a positive and leaves every other as it is.",
        ),
        (
            _alone_at_positives,
            "The other classes of the positives became 0. That tells the detector its class as well: leave them.",
        ),
        (
            _silent_background,
            "The background rows became 0. That removes false alarms, which is another oracle: leave them.",
        ),
        (_at_the_best, "You replaced the highest score. The oracle replaces the score of the true class."),
        (_whole_row, "Every class of the row got the IoU. Only the true class does."),
        (_product, "That is the score times the IoU. Replaced means: the score of the true class is the IoU itself."),
        (
            lambda scores, labels, ious: _oracle(scores, labels, torch.ones_like(ious)),
            "You wrote 1. That is the row gt_cls of the table; the exercise asks for gt_cls_iou.",
        ),
        (
            lambda scores, labels, ious: scores,
            "Nothing is replaced yet. If you did write something: `new[rows][columns] = ...` writes into a copy.",
        ),
        (_without_class_0, "Class 0 is a class, too: a row is background where its label is -1, not where it is 0."),
        (_one_class_off, "You wrote one column too far to the left: classes count from 0, as columns do."),
        (
            _only_upwards,
            "You kept the score where it was higher than the IoU. Replace it there, too: a score can be too sure.",
        ),
        (
            _all_times_iou,
            "You multiplied every score by the IoU. Only that of the true class changes, and it becomes the IoU.",
        ),
        (
            lambda scores, labels, ious: scores * ious[:, None],
            "You multiplied every row by its IoU, background too. Write the IoU at the true class of the positives.",
        ),
    ],
    right="That is the row gt_cls_iou of table 1, in three lines. All that is not a positive keeps what it said.",
    hint="Copy the scores. In every row with a label, write the IoU in the column of the label.",
    describe=lambda case: f"labels {case[1].tolist()}",
)


# ---- ties ------------------------------------------------------------------------------------------------------------
def _kept(scores: list[float], ious: list[float]) -> float:
    top = [iou for score, iou in zip(scores, ious, strict=True) if score == max(scores)]
    return sum(top) / len(top)


def _first(scores, ious):
    return ious[scores.index(max(scores))]


def _last(scores, ious):
    return ious[len(scores) - 1 - scores[::-1].index(max(scores))]


def _tied(scores, ious):
    return [iou for score, iou in zip(scores, ious, strict=True) if score == max(scores)]


def _middle(scores, ious):
    return float(torch.tensor(_tied(scores, ious), dtype=torch.float64).quantile(0.5))


kept = Exercise(
    name="kept",
    reference=_kept,
    cases=[
        ([1.0, 1.0, 1.0, 1.0], [0.6, 0.9, 0.5, 0.7]),
        ([0.4, 0.8, 0.8, 0.3], [0.95, 0.55, 0.85, 0.6]),
        ([0.9, 0.2, 0.3], [0.7, 0.8, 0.9]),
        ([0.5, 0.7, 0.7, 0.7, 0.1], [0.5, 0.8, 0.62, 0.9, 0.98]),
    ],
    mistakes=[
        (_first, "You keep the first of the tied ones. It is first in memory only; each of them is as likely."),
        (_last, "You keep the last of the tied ones. Each of them is as likely to come first."),
        (
            lambda s, i: max(i),
            "That is the best box of all. Nobody knows which it is: only the scores decide who comes first.",
        ),
        (
            lambda s, i: max(_tied(s, i)),
            "That is the best of the tied boxes. Chance does not know the best: take the mean of them.",
        ),
        (
            lambda s, i: min(_tied(s, i)),
            "That is the worst that can happen. What happens on average?",
        ),
        (
            lambda s, i: sum(i) / len(i),
            "That is the mean over all boxes. A box with a lower score never comes first: take the tied ones only.",
        ),
        (
            lambda s, i: sum(a * b for a, b in zip(s, i, strict=True)) / sum(s),
            "You weigh by the score. A sort takes the highest, and nothing of the others.",
        ),
        (
            lambda s, i: sum(_tied(s, i)) / len(i),
            "You divide by the number of all boxes. The mean is over those with the highest score.",
        ),
        (
            _middle,
            "That is the median of the tied boxes. To expect is to take the mean: each comes first equally often.",
        ),
        (
            lambda s, i: len(_tied(s, i)),
            "That is how many are tied. What is asked is the mean of their IoUs.",
        ),
        (lambda s, i: sum(_tied(s, i)), "You add up the tied boxes. Divide by how many they are."),
        (lambda s, i: min(i), "That is the worst box of all. What comes first on average, among the highest scores?"),
        (lambda s, i: s.index(max(s)), "That is the place of the kept box in the list. What is asked is its IoU."),
        (lambda s, i: max(s), "That is the highest score. What is asked is the IoU of the box that has it."),
        (lambda s, i: _kept(i, s), "Scores and IoUs have changed places: the scores decide, the IoUs are averaged."),
    ],
    right="With all scores equal, the sort knows nothing: you get an average rival, whatever the best one is worth.",
    hint="Which boxes share the highest score? Each of them comes first equally often: take the mean of their IoUs.",
    describe=lambda case: f"scores {case[0]}, IoUs {case[1]}",
)
