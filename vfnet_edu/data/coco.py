"""A data set as COCO describes it, in columns: one numpy row per object, no Python object for each.

It is read from a json here; `yolo` and `voc` make the same of other formats.

Format: COCO "data format", object detection. Which objects may be learned from, and which images are left out of
training, follows the data set class of mmdetection 2.10, with which the published models were trained.
"""

import dataclasses
import functools
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vfnet_edu.boxes import xywh_to_xyxy
from vfnet_edu.data.cache import Columns, cached
from vfnet_edu.data.coco_json import data_error, read_tables
from vfnet_edu.data.coco_stream import RECORD, Tables

MIN_SIDE = 32  # images with a shorter side are left out of training


@dataclass(frozen=True)
class Dropped:
    """What training leaves out: reason -> ids, in the order of the json."""

    images: dict[str, tuple[int, ...]]
    boxes: dict[str, tuple[int, ...]]

    def __str__(self) -> str:
        parts = [
            f"{len(ids)} {one if len(ids) == 1 else many} {reason} (id {_first(ids)})"
            for one, many, groups in (("image", "images", self.images), ("box", "boxes", self.boxes))
            for reason, ids in groups.items()
        ]
        return "left out of training: " + "; ".join(parts) if parts else "nothing is left out of training"


@dataclass(frozen=True)
class CocoIndex:
    """N images, A objects, K classes. Objects are sorted by image; those of image `i` are ``starts[i]:starts[i + 1]``.

    All objects of the json are kept as they are written, so an evaluation on the index equals one on the file; `valid`
    and `crowd` say which of them are learned from. Classes are sorted by category id (for COCO the usual order).
    """

    json_path: Path  # of another format: the file or folder that stands for its annotations
    root: Path  # folder that `file_names` are relative to
    image_ids: np.ndarray  # (N,) int64
    file_names: tuple[str, ...]
    heights: np.ndarray  # (N,) int64
    widths: np.ndarray  # (N,) int64
    starts: np.ndarray  # (N + 1,) int64
    xywh: np.ndarray  # (A, 4) float64: the numbers of the json
    labels: np.ndarray  # (A,) int64, 0 .. K - 1
    crowd: np.ndarray  # (A,) bool
    ignore: np.ndarray  # (A,) bool
    areas: np.ndarray  # (A,) float64, pixels
    annotation_ids: np.ndarray  # (A,) int64, unique, never 0
    classes: tuple[str, ...]
    category_ids: np.ndarray  # (K,) int64
    fingerprint: str = ""  # of the json's bytes
    notes: tuple[str, ...] = ()  # what was repaired on reading
    places: tuple[str, ...] = ()  # (N,) the file that describes each image; () for a json, which describes them all
    lines: np.ndarray | None = None  # (A,) int64: the line of each object in that file, from 1; None for a json

    def __len__(self) -> int:
        return len(self.image_ids)

    @functools.cached_property
    def boxes(self) -> np.ndarray:
        """(A, 4) float32 xyxy, pixels, not clipped."""
        return xywh_to_xyxy(self.xywh).astype(np.float32)

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """(A,) int64: the image of each object."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @functools.cached_property
    def faults(self) -> dict[str, np.ndarray]:
        """Reason -> (A,) bool: objects that nobody should learn from. Each is listed under its first reason."""
        x, y, w, h = self.xywh.T
        inside_w = np.minimum(x + w, self.widths[self.rows]) - np.maximum(x, 0)
        inside_h = np.minimum(y + h, self.heights[self.rows]) - np.maximum(y, 0)
        found, taken = {}, np.zeros(len(x), bool)
        for reason, bad in (
            ("flagged ignore", self.ignore),
            ("narrower or lower than 1 pixel", (w < 1) | (h < 1)),
            ("outside of the image", (inside_w <= 0) | (inside_h <= 0)),
            ("of no area", self.areas <= 0),
        ):
            found[reason] = bad & ~taken
            taken |= bad
        return found

    @functools.cached_property
    def valid(self) -> np.ndarray:
        """(A,) bool: objects without a fault. Crowds can be valid, but are not learned as objects: see `target`."""
        return ~np.logical_or.reduce(list(self.faults.values()))

    def path(self, row: int) -> Path:
        return self.root / self.file_names[row]

    def size(self, row: int) -> tuple[int, int]:
        """(height, width) of image `row`, pixels."""
        return int(self.heights[row]), int(self.widths[row])

    def target(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (G, 4) float32 xyxy, not clipped, and labels (G,) int64 to learn from image `row`; no crowds."""
        these = slice(self.starts[row], self.starts[row + 1])
        keep = self.valid[these] & ~self.crowd[these]
        return self.boxes[these][keep], self.labels[these][keep]

    def select(self, rows: Sequence[int] | np.ndarray) -> "CocoIndex":
        """The index of some of the images, in the order of `rows`."""
        rows = np.asarray(rows, dtype=np.int64)
        counts = np.diff(self.starts)[rows]
        starts = np.concatenate(([0], np.cumsum(counts)))
        objects = np.repeat(self.starts[rows] - starts[:-1], counts) + np.arange(starts[-1])
        per_image = {name: getattr(self, name)[rows] for name in ("image_ids", "heights", "widths")}
        columns = ("xywh", "labels", "crowd", "ignore", "areas", "annotation_ids")
        per_object = {name: getattr(self, name)[objects] for name in columns}
        if self.lines is not None:
            per_object["lines"] = self.lines[objects]
            per_image["places"] = tuple(self.places[row] for row in rows)
        names = tuple(self.file_names[row] for row in rows)
        return dataclasses.replace(self, starts=starts, file_names=names, **per_image, **per_object)

    def where(self, i: int) -> str:
        """Where object `i` is written down: a line of a file, or an annotation of the json."""
        if self.lines is None:
            return f"annotation id {self.annotation_ids[i]}"
        return f"{self.places[self.rows[i]]} line {self.lines[i]}"

    def for_training(self) -> tuple["CocoIndex", Dropped]:
        """The images to learn from, and what was left out: images without a valid object or with a side < 32 pixels.

        Raises:
            UserError: nothing is left.
        """
        learned = np.bincount(self.rows[self.valid & ~self.crowd], minlength=len(self))
        small = np.minimum(self.heights, self.widths) < MIN_SIDE
        reasons = {f"with a side under {MIN_SIDE} pixels": small, "without an object": (learned == 0) & ~small}
        dropped = Dropped(
            images={why: tuple(self.image_ids[bad].tolist()) for why, bad in reasons.items() if bad.any()},
            boxes={why: tuple(self.annotation_ids[bad].tolist()) for why, bad in self.faults.items() if bad.any()},
        )
        kept = np.flatnonzero(~small & (learned > 0))
        if not len(kept):
            raise data_error(f"{self.json_path}: no image to learn from; {dropped}", "is this the training file?")
        return self.select(kept), dropped

    def check_files(self, allow_outside: bool = False) -> None:
        """Look at every image file (its size and place, not its pixels), so that none is missed in the middle of a run.

        Args:
            allow_outside: accept symbolic links that lead out of the image folder.

        Raises:
            UserError: files are missing, empty, not files, or lie outside the image folder; the first ones are named.
        """
        reasons = ((row, file_fault(self.root, name, allow_outside)) for row, name in enumerate(self.file_names))
        bad = [(row, reason) for row, reason in reasons if reason]
        if bad:
            row, reason = bad[0]
            more = f"; so are {len(bad) - 1} more of {len(self)} images" if len(bad) > 1 else ""
            what = f"{self.path(row)} (image id {self.image_ids[row]} of {self.json_path.name}) {reason}{more}"
            raise data_error(what, self.where_else(row))

    def where_else(self, row: int) -> str:
        """A remedy for a missing image: the usual folder or the spelling under which it does exist."""
        if not self.root.is_dir():
            return f"there is no folder {self.root}"
        name, beside = Path(self.file_names[row]), self.json_path.parent
        for other in (self.root.parent, self.root / "images", beside, beside.parent, beside / "images"):
            if (other / name).is_file():
                return f"{other / name} exists: is {other} the image folder?"
        folder = (self.root / name).parent
        for entry in os.scandir(folder) if folder.is_dir() else ():
            if entry.name.casefold() == name.name.casefold():
                return f"there is {entry.name!r}: upper and lower case matter"
        return f"image files are looked for in {self.root}; restore them or remove their records"


def read_coco(json_path: str | Path, image_root: str | Path) -> CocoIndex:
    """Read and check the json of a COCO data set (plain or .gz).

    A large one is parsed once: see :mod:`vfnet_edu.data.cache`.

    Raises:
        UserError: unreadable, or not a COCO data set; the message names the record, as ``annotations[17].bbox``.
    """
    path = Path(json_path)
    return CocoIndex(json_path=path, root=Path(image_root), **cached(path, functools.partial(_read_columns, path)))


@dataclass(frozen=True)
class Marked:
    """An object as it is written in another format, in pixels."""

    line: int  # of its file, from 1
    category: int
    xywh: tuple[float, float, float, float]
    crowd: bool = False


@dataclass(frozen=True)
class Described:
    """An image as another format describes it."""

    file_name: str  # relative to the image folder
    size: tuple[int, int]  # height, width
    place: str  # the file that describes it
    objects: Sequence[Marked]


def index_of(
    source: Path, root: Path, categories: Sequence[tuple[int, str]], images: Sequence[Described], notes: Sequence[str]
) -> CocoIndex:
    """What another format describes, as COCO would: ids are counted from 1, the area is width x height.

    Args:
        source: the file or folder that stands for the annotations.
        root: folder of the images.
        categories: (id, name).
        images: in the order to keep.
        notes: what the reader should be told.
    """
    found = [(number, marked) for number, image in enumerate(images, 1) for marked in image.objects]
    records = np.zeros(len(found), RECORD)
    for row, (number, marked) in enumerate(found):
        _, _, w, h = marked.xywh
        records[row] = (row + 1, number, marked.category, marked.xywh, w * h, marked.crowd, False)
    table = [(number, image.file_name, *image.size) for number, image in enumerate(images, 1)]
    fingerprint = hashlib.sha256(repr((table, categories)).encode() + records.tobytes()).hexdigest()[:16]
    columns = _columns(source, (table, list(categories), records, fingerprint))
    columns["notes"] += tuple(notes)
    return CocoIndex(
        json_path=source,
        root=root,
        **columns,
        places=tuple(image.place for image in images),
        lines=np.array([marked.line for _, marked in found], np.int64),
    )


def _read_columns(path: Path) -> Columns:
    return _columns(path, read_tables(path))


def _columns(path: Path, tables: Tables) -> Columns:
    """All fields of a :class:`CocoIndex` that come out of its tables."""
    images, categories, records, fingerprint = tables
    image_ids, names, heights, widths = zip(*images, strict=True)
    category_ids, classes = zip(*sorted(categories), strict=True)
    labels = _look_up(path, records["category"], category_ids, "category_id", "category")
    rows = _look_up(path, records["image"], image_ids, "image_id", "image")
    order = np.argsort(rows, kind="stable")
    records, labels, rows = records[order], labels[order], rows[order]
    areas, annotation_ids, notes = _repair(records)
    return {
        "image_ids": np.array(image_ids, np.int64),
        "file_names": names,
        "heights": np.array(heights, np.int64),
        "widths": np.array(widths, np.int64),
        "starts": np.searchsorted(rows, np.arange(len(images) + 1)),
        "xywh": records["xywh"].copy(),
        "labels": labels,
        "crowd": records["crowd"].copy(),
        "ignore": records["ignore"].copy(),
        "areas": areas,
        "annotation_ids": annotation_ids,
        "classes": classes,
        "category_ids": np.array(category_ids, np.int64),
        "fingerprint": fingerprint,
        "notes": notes,
    }


def same_classes(train: CocoIndex, val: CocoIndex) -> None:
    """Raise UserError, naming the difference, unless both files have the same classes in the same order."""
    if train.classes == val.classes:
        return
    only_train = [name for name in train.classes if name not in val.classes]
    only_val = [name for name in val.classes if name not in train.classes]
    parts = [f"only {t} has {_some(names)}" for t, names in (("train", only_train), ("val", only_val)) if names]
    first = next((i for i, pair in enumerate(zip(train.classes, val.classes, strict=False)) if pair[0] != pair[1]), 0)
    order = f"class {first} is {train.classes[first]!r} in train and {val.classes[first]!r} in val"
    raise data_error(
        f"{train.json_path} and {val.json_path} do not have the same classes: {'; '.join(parts) or order}",
        "give both files the same list of categories, with the same ids",
    )


def never_learned(train: CocoIndex, val: CocoIndex) -> tuple[str, ...]:
    """Classes of which only the validation set shows an object; both sets have the same list of them."""
    learned, judged = (np.bincount(i.labels[i.valid & ~i.crowd], minlength=len(i.classes)) for i in (train, val))
    lost = (learned == 0) & (judged > 0) & learned.any()
    return tuple(name for name, never in zip(train.classes, lost, strict=True) if never)


def file_fault(root: Path, name: str, allow_outside: bool = False) -> str:
    """What is wrong with an image file, seen from outside; "" when nothing is."""
    root = _real(root.absolute())
    path = root / name
    try:
        status = path.stat()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be reached: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "is not a file"
    if not status.st_size:
        return "is empty (0 bytes)"
    # A link inside the folder is fine; one that leaves it could pull any picture of this machine into a report.
    if not allow_outside and (path.is_symlink() or _real(path.parent) != path.parent):
        if not Path(os.path.realpath(path)).is_relative_to(root):
            return "is a link that leaves the image folder"
    return ""


@functools.lru_cache(maxsize=4096)
def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def _some(names: Sequence[object]) -> str:
    return ", ".join(map(repr, names[:5])) + f" and {len(names) - 5} more" * (len(names) > 5)


def _first(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:3])) + ", ..." * (len(ids) > 3)


def _look_up(path: Path, wanted: np.ndarray, known: Sequence[int], key: str, thing: str) -> np.ndarray:
    """Position in `known` of each id in `wanted`."""
    ids = np.asarray(known, np.int64)
    order = np.argsort(ids)
    place = np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)
    found = order[place]
    lost = np.flatnonzero(ids[found] != wanted)
    if len(lost):
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        what = f"{path}: annotations[{lost[0]}].{key} is {wanted[lost[0]]}, but no {thing} has this id{more}"
        raise data_error(what, f"restore the {thing}, or remove its annotations")
    return found


def _repair(records: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Areas and annotation ids, filled in where the json has none or unusable ones, and notes about it."""
    notes, areas, ids = [], records["area"].copy(), records["id"].copy()
    unknown = ~np.isfinite(areas)
    if unknown.any():
        areas[unknown] = records["xywh"][unknown, 2] * records["xywh"][unknown, 3]
        notes.append(f"no area is given for {int(unknown.sum())} of {len(areas)} objects: width x height is used")
    ordered = np.sort(ids)  # several times as fast as numpy's unique
    if (ordered[1:] == ordered[:-1]).any() or (ids == 0).any():
        # COCO evaluation counts an object with id 0, or the second one of an id, as never found.
        ids = np.arange(1, len(ids) + 1)
        notes.append("annotation ids are missing, 0 or not unique: renumbered from 1")
    return areas, ids, tuple(notes)
