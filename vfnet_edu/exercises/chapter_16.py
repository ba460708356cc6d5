"""Exercises of chapter 16."""

from vfnet_edu.evaluation.average_precision import average_precision
from vfnet_edu.exercises.engine import Exercise

# ---- twelve detections by hand ---------------------------------------------------------------------------------------
# best IoU with an object of the predicted class; is that object found already, by a better score?; best IoU with others
TWELVE = (
    (0.82, False, 0.00),
    (0.31, False, 0.00),
    (0.00, False, 0.90),
    (0.74, True, 0.05),
    (0.02, False, 0.08),
    (0.00, False, 0.34),
    (0.50, False, 0.12),
    (0.22, False, 0.71),
    (0.61, True, 0.55),
    (0.10, True, 0.00),
    (0.05, False, 0.50),
    (0.45, True, 0.00),
)


def _kind(own: float, taken: bool, other: float) -> str:
    if own >= 0.5 and not taken:
        return "right"
    if 0.1 <= own < 0.5:
        return "place"
    if other >= 0.5:
        return "class"
    if own >= 0.5:
        return "duplicate"
    return "background" if max(own, other) <= 0.1 else "both"


def _class_first(own, taken, other):
    kind = _kind(own, taken, other)
    return "class" if other >= 0.5 and kind == "place" else kind


def _duplicate_first(own, taken, other):
    return "duplicate" if own >= 0.5 and taken else _kind(own, taken, other)


def _nothing_is_taken(own, taken, other):
    return _kind(own, False, other)


def _taken_is_duplicate(own, taken, other):
    return "duplicate" if taken else _kind(own, taken, other)


def _strictly(own, taken, other):
    return _kind(own - 1e-9, taken, other - 1e-9)


def _background_below_half(own, taken, other):
    kind = _kind(own, taken, other)
    return "background" if kind == "both" else kind


def _both_is_class(own, taken, other):
    kind = _kind(own, taken, other)
    return "class" if kind == "both" else kind


def _both_is_two_faults(own, taken, other):
    """A box that is too far from its class and close to another's has two faults, one might think."""
    kind = _kind(own, taken, other)
    return "both" if kind == "place" and other >= 0.5 else kind


def _twelve(rule):
    return lambda: [rule(*row) for row in TWELVE]


twelve = Exercise(
    name="twelve",
    reference=_twelve(_kind),
    cases=[()],
    mistakes=[
        (
            _twelve(_class_first),
            "One overlaps an object of its class by 0.22 and another's by 0.71. You blame its class; the test for the "
            "place comes first.",
        ),
        (
            _twelve(_both_is_two_faults),
            "One overlaps an object of its class by 0.22 and another's by 0.71. It has two faults, but each detection "
            "gets one kind, and the test for the place comes first. Both is what is left over at the end.",
        ),
        (
            _twelve(_duplicate_first),
            "Number 9 stands on a taken object of its class and on one of another class. You call it a duplicate; the "
            "test for the class comes before.",
        ),
        (
            _twelve(_nothing_is_taken),
            "You call a box right although a better score has found its object already. An object counts once.",
        ),
        (
            _twelve(_taken_is_duplicate),
            "A duplicate is a box that would be right, were the object still free: it needs an IoU of 0.5. With less "
            "it is a matter of place, taken or not.",
        ),
        (_twelve(_strictly), "An IoU of exactly 0.5 is enough: at least, not more than."),
        (
            _twelve(_background_below_half),
            "Background is where no object is touched by more than 0.1. A box that overlaps another class by 0.34 is "
            "on an object, too loosely and with the wrong class: both.",
        ),
        (
            _twelve(_both_is_class),
            "A class error would be right with another class, so it needs an IoU of 0.5 with that object. With 0.34 it "
            "is wrong in class and place: both.",
        ),
    ],
    right="Twelve of twelve. Each has one kind, and the order of the tests decides where two would fit.",
    hint="Go through the tests in their order, and stop at the first that holds: right, place, class, duplicate, "
    "background, both. Return a list of twelve names, each one of these six words.",
)


# ---- fix one kind ----------------------------------------------------------------------------------------------------
def _fix(found, kind):
    taken = {thing for name, thing in found if name == "right"}
    hits = []
    for name, thing in found:
        if name != kind:
            hits.append(name == "right")
        elif name in ("class", "place") and thing not in taken:
            taken.add(thing)
            hits.append(True)
    return hits


def _all_become_right(found, kind):
    curable = kind in ("class", "place")
    return [name in ("right", kind) for name, _ in found if curable or name != kind]


def _looks_up_only(found, kind):
    """An object counts as taken only from the place of its right box on."""
    taken, hits = set(), []
    for name, thing in found:
        cured = name == kind and name in ("class", "place") and thing not in taken
        if name != kind or cured:
            hits.append(name == "right" or cured)
        if name == "right" or cured:
            taken.add(thing)
    return hits


def _once_per_object_only(found, kind):
    """Cured once, but also where a right box has found the object."""
    taken, hits = set(), []
    for name, thing in found:
        cured = name == kind and name in ("class", "place") and thing not in taken
        taken |= {thing} if cured else set()
        if name != kind or cured:
            hits.append(name == "right" or cured)
    return hits


def _keeps_the_others(found, kind):
    taken = {thing for name, thing in found if name == "right"}
    hits = []
    for name, thing in found:
        cured = name == kind and name in ("class", "place") and thing not in taken
        taken |= {thing} if cured else set()
        hits.append(name == "right" or cured)
    return hits


def _any_kind_becomes_right(found, kind):
    taken = {thing for name, thing in found if name == "right"}
    hits = []
    for name, thing in found:
        if name != kind:
            hits.append(name == "right")
        elif thing is not None and thing not in taken:
            taken.add(thing)
            hits.append(True)
    return hits


def _last_wins(found, kind):
    return _fix(found[::-1], kind)[::-1]


FOUND = [("right", 0), ("class", 1), ("class", 1), ("background", None), ("place", 2), ("class", 0)]
fix = Exercise(
    name="fix",
    reference=_fix,
    cases=[
        (FOUND, "class"),
        (FOUND, "place"),
        (FOUND, "background"),
        ([("class", 3), ("right", 3), ("duplicate", 3)], "class"),
        ([("both", 1), ("right", 0), ("duplicate", 0)], "duplicate"),
        ([("both", 1), ("right", 0)], "both"),
        ([("class", 4), ("background", None), ("class", 4), ("right", 5)], "class"),
    ],
    mistakes=[
        (
            _all_become_right,
            "Every class and place error becomes right here. An object counts once: the first one that finds it is "
            "right, the others are removed.",
        ),
        (
            _once_per_object_only,
            "An error becomes right here although a right box has found the object. Then there is nothing left to "
            "find, and it is removed.",
        ),
        (
            _looks_up_only,
            "You look for right boxes further up only. An object that is found further down is found as well, and "
            "its class errors find nothing new.",
        ),
        (
            _keeps_the_others,
            "Fixed errors that find nothing stay in your list as wrong ones. They are removed, so the list gets "
            "shorter.",
        ),
        (
            _any_kind_becomes_right,
            "A box that is wrong in class and place becomes right here. Only a class or a place error does; the "
            "other kinds are removed.",
        ),
        (
            lambda found, kind: [name == "right" for name, _ in found if name != kind],
            "You remove every error of the kind. A class or place error at an object that nobody finds becomes right.",
        ),
        (_last_wins, "Of two errors at one object the last becomes right here. The first has the higher score."),
        (
            lambda found, kind: [name == "right" for name, _ in found],
            "Nothing is fixed here: `kind` is never used.",
        ),
        (
            lambda found, kind: [int(hit) for hit in _fix(found, kind)],
            "The zeros and ones are right. Return True and False instead.",
        ),
    ],
    right="A fix never takes a hit away, so AP cannot fall. What is removed only makes room.",
    hint="First collect the objects that right boxes find. Then go down the list: another kind stays as it is; an "
    "error of this kind becomes True if it is class or place and its object is still free, and disappears if not.",
)


# ---- two fixes, and their sum ----------------------------------------------------------------------------------------
def _ap(found, objects, without=()):
    return average_precision([name == "right" for name in found if name not in without], objects)


def _gains(found, objects):
    now = _ap(found, objects)
    both = _ap(found, objects, ("duplicate", "background"))
    return [
        _ap(found, objects, ("duplicate",)) - now,
        _ap(found, objects, ("background",)) - now,
        both - now,
    ]


def _one_after_the_other(found, objects):
    first, _, both = _gains(found, objects)
    return [first, both - first, both]


def _sum_for_both(found, objects):
    first, second, _ = _gains(found, objects)
    return [first, second, first + second]


def _without_subtracting(found, objects):
    return [gain + _ap(found, objects) for gain in _gains(found, objects)]


def _made_right(found, objects):
    def gain(kinds):
        return average_precision([name == "right" or name in kinds for name in found], objects) - _ap(found, objects)

    return [gain(("duplicate",)), gain(("background",)), gain(("duplicate", "background"))]


def _right_boxes_for_objects(found, objects):
    return _gains(found, max(sum(name == "right" for name in found), 1))


gains = Exercise(
    name="gains",
    reference=_gains,
    cases=[
        (["background", "duplicate", "right"], 1),
        (["right", "duplicate", "background", "right"], 2),
        (["right", "duplicate", "right", "background", "right"], 4),
        (["duplicate", "background", "right", "background", "right", "duplicate", "right"], 5),
    ],
    mistakes=[
        (
            _one_after_the_other,
            "Your second gain is measured after the first fix. Each is measured alone, from the list as it is.",
        ),
        (_sum_for_both, "Your third number is the sum of the first two. Remove both kinds, and compute AP again."),
        (_without_subtracting, "These are the APs after each fix. A gain is what has been added: subtract the AP of "
            "the list as it is."),
        (
            lambda found, objects: [100 * gain for gain in _gains(found, objects)],
            "The gains are right, in percent. Leave them between 0 and 1.",
        ),
        (
            lambda found, objects: [_gains(found, objects)[i] for i in (1, 0, 2)],
            "The first two are exchanged: duplicates first, then background.",
        ),
        (
            _made_right,
            "You make the errors right. A duplicate and a box on background are removed: there is no object for them.",
        ),
        (
            _right_boxes_for_objects,
            "You count the right boxes as objects. Some objects are never found; use the number that is given.",
        ),
        (
            lambda found, objects: _gains(found, objects)[:2],
            "The first two are right. The third is missing: both kinds removed together.",
        ),
    ],
    right="Alone, the first fix of [background, duplicate, right] adds 1/6 and so does the second; together they add "
    "2/3. Each error hides behind the other.",
    hint="Write a small function that drops some kinds from the list, turns the rest into True and False and computes "
    "`average_precision(hits, objects)`; call it four times, and subtract.",
)  # fmt: skip
