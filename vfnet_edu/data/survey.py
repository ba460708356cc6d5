"""What is in a data set, and what is wrong with it, before a long training run finds out.

Every image is decoded in full: headers alone do not show that a file was cut short. (A JPEG has no checksum, though:
garbage in the middle of one often decodes, to garbage.) No file is ever changed.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from vfnet_edu.data.annotations import read_split
from vfnet_edu.data.coco import CocoIndex, file_fault, never_learned, same_classes
from vfnet_edu.data.images import FORMATS, ORIENTATION, SIDEWAYS, read_image
from vfnet_edu.data.paths import Layout
from vfnet_edu.runtime.errors import UserError

# The limits of COCO's small, medium and large (areas of 32 x 32 and 96 x 96 pixels), and of finer steps between.
SIZES = (0, 8, 16, 32, 64, 96, 128, 256, 512, np.inf)  # square root of the area, pixels
ASPECTS = (0, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, np.inf)  # width / height
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
EXTREME = 20  # an image this many times longer than wide is probably a mistake


@dataclass(frozen=True)
class Finding:
    """One kind of trouble. An error stops training; a warning changes what is learned; a note is just good to know."""

    level: Literal["error", "warning", "note"]
    split: str
    what: str
    examples: tuple[str, ...] = ()  # all records concerned


@dataclass(frozen=True)
class Split:
    """Numbers of one split. Crowds and objects with a fault are counted separately, and left out of all statistics."""

    json: str
    images: int
    images_without_objects: int
    objects: int
    crowds: int
    image_sizes: dict[str, tuple[int, int]]  # smallest, median, largest: (width, height), by area
    per_image: dict[str, float]  # objects per image that has any: mean, median, most
    per_class: dict[str, tuple[int, int]]  # class -> (objects, images)
    coco_sizes: dict[str, int]  # small, medium, large, by the area of the json
    sizes: tuple[int, ...]  # histogram over SIZES
    size_percentiles: dict[str, float]  # of the square root of width x height, pixels
    aspects: tuple[int, ...]  # histogram over ASPECTS
    aspect_percentiles: dict[str, float]  # of width / height


@dataclass(frozen=True)
class Report:
    splits: dict[str, Split]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Nothing would stop training."""
        return not any(finding.level == "error" for finding in self.findings)


def check_dataset(
    layout: Layout,
    workers: int | None = None,
    allow_outside: bool = False,
    progress: Callable[[Iterable, int, str], Iterable] = lambda items, total, what: items,
) -> tuple[Report, dict[str, CocoIndex]]:
    """Read all annotations and decode every image.

    Args:
        workers: threads; the number of cores by default.
        allow_outside: accept symbolic links that lead out of the image folder.
        progress: wraps the stream of images, as tqdm does; gets their number and the name of the split.

    Returns:
        the report, and for each split whose annotations could be read the index of the images that can be used.
    """
    wanted = {"train": layout.train}
    if layout.val:
        wanted["val"] = layout.val
    findings, indices, looks = [], {}, {}
    for split, files in wanted.items():
        try:
            index = read_split(files)
        except UserError as error:
            findings.append(Finding("error", split, str(error), error.records))
            continue
        findings += _about_objects(split, index)
        indices[split] = index
        looks[split] = _look_at_all(split, index, workers, allow_outside, progress)
        findings += _about_images(split, index, looks[split])
    if "val" not in wanted:
        findings.append(Finding("note", "val", "there is no validation set: nothing will be evaluated"))
    if len(indices) == 2:
        findings += _about_both(indices, looks)
    order = ("error", "warning", "note")
    findings.sort(key=lambda finding: order.index(finding.level))
    report = Report({split: _statistics(index) for split, index in indices.items()}, tuple(findings))
    return report, {split: index.select(_usable(looks[split])) for split, index in indices.items()}


# ---- The images ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    """What one image file turned out to be."""

    fault: str = ""  # why it cannot be used; "" when it can
    digest: bytes = b""  # of the file
    oddities: tuple[str, ...] = ()


def _look_at_all(split: str, index: CocoIndex, workers: int | None, allow_outside: bool, progress) -> list[_Look]:
    """Decode every image, in the order of the index; arguments as in :func:`check_dataset`."""
    pool = ThreadPoolExecutor(workers or os.cpu_count())  # Pillow decodes outside of Python's lock
    try:
        looks = pool.map(lambda row: _look(index, row, allow_outside), range(len(index)))
        return list(progress(looks, len(index), split))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for all images


def _look(index: CocoIndex, row: int, allow_outside: bool) -> _Look:
    name, path, size = index.file_names[row], index.path(row), index.size(row)
    fault = file_fault(index.root, name, allow_outside)
    if fault:
        return _Look(f"{path} {fault}")
    try:
        digest = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
        height, width = read_image(path, size).shape[:2]
        with Image.open(path, formats=FORMATS) as image:
            mode, stored = image.mode, (image.height, image.width)
            orientation = image.getexif().get(ORIENTATION, 1)
            film = getattr(image, "is_animated", False) and image.format != "MPO"
    except UserError as error:
        return _Look(error.what)
    except OSError as error:
        return _Look(f"{path} cannot be read: {error}")
    sideways = orientation in SIDEWAYS and height != width  # only then does the size in the json tell what is meant
    odd = {
        "16-bit pictures, scaled to 8 bits": mode.startswith("I;16"),
        "animations or many pages: only the first is taken": film,
        "turned as the camera says (EXIF); the annotations do not show whether its boxes are, too": not (
            orientation == 1 or sideways
        ),
        "not turned as the camera says (EXIF): the annotations have the sizes as stored": sideways
        and stored == (height, width),
        f"more than {EXTREME} times as long as wide": max(size) > EXTREME * min(size),
    }
    return _Look("", digest, tuple(what for what, true in odd.items() if true))


def _usable(looks: list[_Look]) -> list[int]:
    """Numbers of the images without a fault."""
    return [row for row, look in enumerate(looks) if not look.fault]


def _about_images(split: str, index: CocoIndex, looks: list[_Look]) -> list[Finding]:
    findings, same, odd = [], defaultdict(list), defaultdict(list)
    bad = [row for row, look in enumerate(looks) if look.fault]
    if bad:
        records = tuple(f"image id {index.image_ids[row]}: {looks[row].fault}" for row in bad)
        missing = next((row for row in bad if not index.path(row).exists()), None)
        remedy = f" ({index.where_else(missing)})" if missing is not None else ""
        findings.append(Finding("error", split, f"{_count(bad, 'image')} cannot be used{remedy}", records))
    for row in _usable(looks):
        same[looks[row].digest].append(index.file_names[row])
        for what in looks[row].oddities:
            odd[what].append(f"image id {index.image_ids[row]}: {index.file_names[row]}")
    twins = tuple(" = ".join(names) for names in same.values() if len(names) > 1)
    if twins:
        findings.append(Finding("warning", split, f"{_count(twins, 'picture')} stored more than once", twins))
    for what, records in odd.items():
        findings.append(Finding("note", split, f"{_count(records, 'image')}: {what}", tuple(records)))
    return findings


# ---- The objects -----------------------------------------------------------------------------------------------------


def _about_objects(split: str, index: CocoIndex) -> list[Finding]:
    findings = [Finding("note", split, note) for note in index.notes]
    fate = "not learned" if split == "train" else "evaluated by COCO's rules"
    for reason, bad in index.faults.items():
        if bad.any():
            records = tuple(_object(index, i) for i in np.flatnonzero(bad).tolist())
            findings.append(Finding("warning", split, f"{_count(records, 'box', 'boxes')} {reason}: {fate}", records))
    if split == "train":
        findings += _about_training(index)
    elif not len(_learned(index)):
        findings.append(Finding("warning", split, "no object to find: the average precision is not defined"))

    x1, y1, x2, y2 = index.boxes.T
    width, height = index.widths[index.rows], index.heights[index.rows]
    # Annotation tools round: what sticks out by a pixel is not a mistake.
    out = index.valid & ((x1 < -1) | (y1 < -1) | (x2 > width + 1) | (y2 > height + 1))
    if out.any():
        records = tuple(_object(index, i) for i in np.flatnonzero(out).tolist())
        what = f"{_count(records, 'box', 'boxes')} more than a pixel out of the image: clipped"
        findings.append(Finding("warning", split, what, records))
    keys = np.column_stack((index.rows, index.labels, index.xywh))[index.valid]
    _, first = np.unique(keys, axis=0, return_index=True)
    twice = np.setdiff1d(np.arange(len(keys)), first)
    if len(twice):
        records = tuple(_object(index, i) for i in np.flatnonzero(index.valid)[twice].tolist())
        what = f"{_count(records, 'object')} annotated twice (same class, same box)"
        findings.append(Finding("warning", split, what, records))
    if len(set(index.classes)) < len(index.classes):
        findings.append(Finding("warning", split, "several categories have the same name", index.classes))
    elif alike := [name for name, count in Counter(map(str.casefold, index.classes)).items() if count > 1]:
        names = tuple(name for name in index.classes if name.casefold() in alike)
        findings.append(Finding("warning", split, "classes that differ only in upper and lower case", names))
    return findings


def _about_training(index: CocoIndex) -> list[Finding]:
    try:
        _, dropped = index.for_training()
    except UserError as error:
        return [Finding("error", "train", str(error))]
    findings = []
    for reason, ids in dropped.images.items():
        level = "note" if reason == "without an object" else "warning"
        records = tuple(f"image id {i}" for i in ids)
        findings.append(Finding(level, "train", f"{_count(ids, 'image')} {reason}: not learned from", records))
    counts = np.bincount(_learned(index), minlength=len(index.classes))
    unused = tuple(name for name, count in zip(index.classes, counts, strict=True) if not count)
    if unused:
        what = f"{_count(unused, 'class', 'classes')} without an object"
        findings.append(Finding("warning", "train", what, unused))
    return findings


def _about_both(indices: dict[str, CocoIndex], looks: dict[str, list[_Look]]) -> list[Finding]:
    train, val = indices["train"], indices["val"]
    findings = []
    try:
        same_classes(train, val)
    except UserError as error:
        findings.append(Finding("error", "both", str(error)))
    else:
        findings += _about_classes(train, val)
    learned, judged = (
        {looks[split][row].digest: index.file_names[row] for row in _usable(looks[split])}
        for split, index in indices.items()
    )
    leaked = tuple(sorted(f"train {learned[d]} = val {judged[d]}" for d in learned.keys() & judged.keys()))
    if leaked:
        what = f"{_count(leaked, 'picture')} of val also in train: the scores will be flattering"
        findings.append(Finding("warning", "both", what, leaked))
    return findings


def _about_classes(train: CocoIndex, val: CocoIndex) -> list[Finding]:
    strangers = never_learned(train, val)
    if not strangers:
        return []
    examples = []
    for name in strangers:
        i = int(np.argmax(val.labels == val.classes.index(name)))
        examples.append(f"{name}: {_object(val, i)}")
    what = f"{_count(strangers, 'class', 'classes')} with objects in val but none in train: cannot be learned"
    return [Finding("warning", "both", what, tuple(examples))]


def _object(index: CocoIndex, i: int) -> str:
    row = index.rows[i]
    box = ", ".join(f"{v:g}" for v in index.xywh[i])
    size = f"{index.widths[row]} x {index.heights[row]}"
    return f"{index.where(i)}: [{box}] in {index.file_names[row]} ({size})"


def _count(items: Sized, one: str, many: str = "") -> str:
    return f"{len(items)} {one if len(items) == 1 else many or one + 's'}"


def _learned(index: CocoIndex) -> np.ndarray:
    """Labels of the objects to learn."""
    return index.labels[index.valid & ~index.crowd]


# ---- Statistics ------------------------------------------------------------------------------------------------------


def _statistics(index: CocoIndex) -> Split:
    these = index.valid & ~index.crowd
    labels, rows, areas, (_, _, w, h) = index.labels[these], index.rows[these], index.areas[these], index.xywh[these].T
    size, aspect = np.sqrt(w * h), w / h
    objects = np.bincount(labels, minlength=len(index.classes))
    pairs = np.unique(np.column_stack((labels, rows)), axis=0)
    images = np.bincount(pairs[:, 0], minlength=len(index.classes))
    per_image = np.bincount(rows, minlength=len(index))
    some = per_image[per_image > 0] if len(rows) else np.zeros(1)
    by_area = np.argsort(index.heights * index.widths, kind="stable")
    places = {"smallest": by_area[0], "median": by_area[len(index) // 2], "largest": by_area[-1]}
    coco = np.digitize(areas, (32**2, 96**2), right=True)
    return Split(
        json=str(index.json_path),
        images=len(index),
        images_without_objects=int((per_image == 0).sum()),
        objects=int(these.sum()),
        crowds=int((index.valid & index.crowd).sum()),
        image_sizes={what: (int(index.widths[row]), int(index.heights[row])) for what, row in places.items()},
        per_image={"mean": float(some.mean()), "median": float(np.median(some)), "most": int(some.max())},
        per_class={name: (int(o), int(i)) for name, o, i in zip(index.classes, objects, images, strict=True)},
        coco_sizes={name: int((coco == i).sum()) for i, name in enumerate(("small", "medium", "large"))},
        sizes=tuple(np.histogram(size, SIZES)[0].tolist()),
        size_percentiles=_percentiles(size),
        aspects=tuple(np.histogram(aspect, ASPECTS)[0].tolist()),
        aspect_percentiles=_percentiles(aspect),
    )


def _percentiles(values: np.ndarray) -> dict[str, float]:
    return (
        {str(p): float(v) for p, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}
        if len(values)
        else {}
    )
