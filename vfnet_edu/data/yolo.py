"""YOLO's annotations as they are: a text file per image, a line per object.

A line is the number of a class, then the centre, width and height of a box as fractions of the image's sides::

    labels/train/street.txt:    3 0.512 0.430 0.100 0.250

or an outline, ``class x1 y1 x2 y2 x3 y3 ...``, of which the box around it is taken.  ``data.yaml`` names the classes
and, for each split, folders of images or lists of them; the labels lie in ``labels/`` where the images lie in
``images/``, else beside them (https://docs.ultralytics.com/datasets/detect).  An image without a label file shows no
object.  Instead of ``data.yaml`` there may be a ``classes.txt``, as annotation tools write it.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vfnet_edu.data.coco import CocoIndex, Described, Marked, index_of
from vfnet_edu.data.coco_json import data_error, first_of, read_text
from vfnet_edu.data.images import SUFFIXES, image_size
from vfnet_edu.runtime.errors import UserError

KEYS = {"train": ("train",), "val": ("val", "valid", "validation")}  # of data.yaml
FOLDERS = {"train": ("train", ""), "val": ("val", "valid")}  # where there is no data.yaml; "": all images
SLACK = 0.01  # by so much a fraction may leave [0, 1]: exporters round


class YoloFiles(NamedTuple):
    """The files of one split."""

    source: Path  # data.yaml or classes.txt
    root: Path  # the folder that all images are in
    entries: tuple[Path, ...]  # folders of images, and lists of them
    names: tuple[tuple[int, str], ...]  # number in the label files, and name
    keypoints: int = 0  # numbers after the box that belong to key points


# ---- Finding ---------------------------------------------------------------------------------------------------------


def find_yolo(place: Path, split: str, images: Path | None = None) -> YoloFiles | None:
    """The files of one split, or None where this is no YOLO data set or has no such split.

    Args:
        place: the folder of the data set, or its yaml file.
        split: train or val.
        images: take the images of this folder instead of those that data.yaml names.

    Raises:
        UserError: code DATA where data.yaml cannot be read, or leads nowhere.
    """
    source = place if place.is_file() else _source(place)
    if source is None:
        return None
    if source.name == "classes.txt":
        names = [line.strip() for line in read_text(source).splitlines() if line.strip()]
        described: dict[str, Any] = {"names": names}
        usual = [place / "images" / name for name in FOLDERS[split]]
        folder = next((path for path in usual if path.is_dir()), place if split == "train" else None)
        entries = (folder,) if folder else ()
    else:
        described = _read_yaml(source)
        entries = () if images else _entries(source, described, split)
    entries = (images,) if images else entries
    if not entries:
        return None
    return YoloFiles(source, images or source.parent, entries, _names(source, described), _keypoints(source, described))


def _source(folder: Path) -> Path | None:
    """The file that makes a folder a YOLO data set."""
    for name in ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "labels/classes.txt"):
        if (folder / name).is_file():
            return folder / name if name != "labels/classes.txt" else folder / "labels" / "classes.txt"
    others = [file for end in ("*.yaml", "*.yml") for file in sorted(folder.glob(end)) if _is_description(file)]
    if len(others) > 1:
        names = ", ".join(file.name for file in others)
        raise data_error(f"{folder} describes several data sets: {names}", f"name one: --data {others[0]}")
    return others[0] if others else None


def _is_description(file: Path) -> bool:
    text = file.read_bytes().decode("utf-8", errors="replace")  # a yaml file can be about anything
    return all(re.search(rf"^{key}\s*:", text, re.MULTILINE) for key in ("names", "train"))


def _read_yaml(source: Path) -> dict[str, Any]:
    try:
        described = yaml.safe_load(read_text(source))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark, why = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "nested too deeply"
        line = f" line {mark.line + 1}" if mark else ""
        raise data_error(f"{source}{line}: not valid yaml: {why}", "correct this line") from None
    if not isinstance(described, dict):
        raise data_error(f"{source} holds no table of names and folders", "it needs train:, val: and names:")
    return described


def _at(source: Path, key: str) -> str:
    """The place of a key of data.yaml, for messages."""
    lines = read_text(source).splitlines()
    line = next((f" line {n}" for n, text in enumerate(lines, 1) if re.match(rf"['\"]?{key}['\"]?\s*:", text)), "")
    return f"{source}{line}: {key}"


def _names(source: Path, described: dict[str, Any]) -> tuple[tuple[int, str], ...]:
    names = described.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise data_error(f"{source} names no classes", "add a list, as in names: [cat, dog]")
    where = _at(source, "names") if source.suffix != ".txt" else str(source)
    for number, name in names.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise data_error(f"{where}: {_short(number)} is not the number of a class", "number them 0, 1, 2, ...")
        if isinstance(name, bool) or not isinstance(name, str | int | float):  # yaml takes no, off and null for values
            what = f"{where}: class {number} is {_short(name)}, not a name"
            raise data_error(what, "put the name in quotes: yaml reads words like no, yes, on and null as values")
    count = described.get("nc")
    if isinstance(count, int) and count != len(names):
        raise data_error(f"{_at(source, 'nc')} says {count} classes, but there are {len(names)} names", "correct one")
    return tuple((number, str(names[number])) for number in sorted(names))


def _short(value: object) -> str:
    """A value of yaml, for a message; what contains others can be huge, as aliases multiply."""
    return f"{value!r:.60}" if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _keypoints(source: Path, described: dict[str, Any]) -> int:
    match described.get("kpt_shape"):
        case None:
            return 0
        case [int(points), int(numbers)] if points > 0 and numbers in (2, 3):
            return points * numbers
    raise data_error(f"{_at(source, 'kpt_shape')} should be [points, 2 or 3]", "correct it, or remove it")


def _entries(source: Path, described: dict[str, Any], split: str) -> tuple[Path, ...]:
    """The folders and lists that data.yaml names for a split."""
    key = next((key for key in KEYS[split] if described.get(key)), None)
    if key is None and split == "train":
        raise data_error(f"{source} names no training images", "add train: and the folder of the images")
    if key is None:
        return ()
    path = described.get("path")
    base = source.parent / path if isinstance(path, str) else source.parent
    values = described[key] if isinstance(described[key], list) else [described[key]]
    return tuple(_entry(source, key, base, value) for value in values)


def _entry(source: Path, key: str, base: Path, value: object) -> Path:
    """One of them: relative to `base`, or to data.yaml.  "../train/images" is often meant for "train/images"."""
    if not isinstance(value, str):
        raise data_error(f"{_at(source, key)} is {_short(value)}, not a path", "name a folder of images")
    home = Path(os.path.abspath(source.parent))
    texts = [base / value, source.parent / value, *([source.parent / value[3:]] if value.startswith("../") else [])]
    there = [path for path in (Path(os.path.abspath(text)) for text in texts) if path.exists()]
    inside = [path for path in there if path.is_relative_to(home)]
    if inside:
        return source.parent / inside[0].relative_to(home)
    option = f"name the folder: --{'train' if key == 'train' else 'val'}-images FOLDER"
    if there:  # a stranger's data.yaml could pull any picture of this machine into a report
        raise data_error(f"{_at(source, key)}: {value} leads out of {source.parent}", option)
    near = [home.joinpath(*Path(value).parts[-n:]) for n in (3, 2, 1)]
    hint = next(
        (f"write {key}: {path.relative_to(home).as_posix()}, which exists" for path in near if path.exists()), ""
    )
    looked = "" if Path(value).is_absolute() else f" in {base}"
    raise data_error(f"{_at(source, key)}: {value} does not exist{looked}", hint or option)


# ---- Reading ---------------------------------------------------------------------------------------------------------


def read_yolo(files: YoloFiles) -> CocoIndex:
    """Read and check the labels of one split.

    Raises:
        UserError: no images or no labels at all, or wrong lines: the first is named by file and line, all of them are
            in its `records`.
    """
    errors: list[UserError] = []
    paths = [path for entry in files.entries for path in _images(entry, files.root, errors)]
    unique = list(dict.fromkeys(paths))
    if not unique and not errors:
        raise data_error(f"{files.entries[0]} has no images", f"looked for {', '.join(SUFFIXES)}")
    images, bare = [], []
    for path in unique:
        label = _label(path)
        if label is None:
            bare.append(path)
        try:
            size = image_size(path)
            objects = _read_label(label, size, files, errors) if label else []
        except UserError as error:  # a file that cannot be read at all
            errors.append(error)
            continue
        images.append(Described(path.relative_to(files.root).as_posix(), size, str(label or path), objects))
    if errors:
        raise first_of(errors)
    if len(bare) == len(unique):
        what = f"none of the {len(bare)} images of {files.entries[0]} has a label file"
        raise data_error(what, f"looked for {_mapped(bare[0])} and {bare[0].with_suffix('.txt')}")
    return index_of(files.source, files.root, [(number + 1, name) for number, name in files.names], images, [
        *([f"images without a label file, and so without an object: {len(bare)}, as {bare[0].name}"] if bare else []),
        *([f"images listed more than once: {len(paths) - len(unique)}"] if len(paths) > len(unique) else []),
        *_orphans(files.entries, unique),
    ])  # fmt: skip


def _images(entry: Path, root: Path, errors: list[UserError]) -> list[Path]:
    """The images of a folder, in order of their names, or of a list, in its order."""
    if entry.is_dir():
        found = (path for path in entry.rglob("*") if path.suffix.lower() in SUFFIXES)
        return sorted(path for path in found if not path.name.startswith("."))
    images, home = [], Path(os.path.abspath(root))
    for number, line in enumerate(read_text(entry).splitlines(), 1):
        if not (text := line.strip()):
            continue
        tries = [Path(os.path.abspath(folder / text)) for folder in (entry.parent, root)]
        path = next((path for path in tries if path.exists()), None)
        if path is None:
            errors.append(data_error(f"{entry} line {number}: there is no {text}", "correct the path, or remove it"))
        elif not path.is_relative_to(home):
            errors.append(data_error(f"{entry} line {number}: {text} leads out of {root}", "move it inside"))
        else:
            images.append(root / path.relative_to(home))
    return images


def _mapped(image: Path) -> Path:
    """The label file of an image: in labels/ for images/ (the last of that name), else beside it."""
    parts = list(image.parts)
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _label(image: Path) -> Path | None:
    return next((path for path in (_mapped(image), image.with_suffix(".txt")) if path.is_file()), None)


def _orphans(entries: Sequence[Path], images: list[Path]) -> list[str]:
    """A note about labels whose images are gone: their objects would be lost without a word."""
    whole = [path for path in images if any(entry in path.parents for entry in entries)]  # not those of a list
    folders = {_mapped(path).parent for path in whole if _mapped(path).parent != path.parent}
    known = {_mapped(path) for path in images}
    lost = sorted(p for folder in folders for p in folder.glob("*.txt") if p not in known and p.name != "classes.txt")
    return [f"label files without an image, and so left out: {len(lost)}, as {lost[0].name}"] if lost else []


def _read_label(label: Path, size: tuple[int, int], files: YoloFiles, errors: list[UserError]) -> list[Marked]:
    """The objects of one label file; `errors` receives what is wrong."""
    height, width = size
    objects, known = [], dict(files.names)
    for number, line in enumerate(read_text(label).splitlines(), 1):
        if not (words := line.split()):
            continue
        try:
            category, (x, y, w, h) = _parse(words, known, files.keypoints)
        except ValueError as error:
            what, remedy = error.args
            errors.append(data_error(f"{label} line {number}: {what}", remedy))
            continue
        box = (x - w / 2) * width, (y - h / 2) * height, w * width, h * height
        objects.append(Marked(number, category + 1, box))
    return objects


def _parse(words: list[str], known: dict[int, str], keypoints: int) -> tuple[int, tuple[float, float, float, float]]:
    """The class and the box (centre x, y, width, height; fractions) of a line.

    Raises:
        ValueError: (what is wrong, a remedy).
    """
    try:
        first, *numbers = map(float, words)
    except ValueError:
        what = f"{' '.join(words)!r:.60} is not a row of numbers"
        raise ValueError(what, "a line is the number of a class, then x, y, width, height") from None
    if keypoints and len(numbers) == 4 + keypoints:
        numbers = numbers[:4]
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        what = f"{len(words)} numbers, where a box has five and an outline seven, nine, ..."
        raise ValueError(what, "a line is a class, then x, y, width, height, or the x and y of every corner")
    if first not in known:
        few = f"{len(known)} classes, {min(known)} to {max(known)}"
        raise ValueError(f"class {words[0]:.30}, but there are {few}", "correct it, or give the class a name")
    for word, value in zip(words[1:], numbers, strict=False):
        if not -SLACK <= value <= 1 + SLACK:  # nan, too
            what = f"{word:.30} is not between 0 and 1"
            raise ValueError(what, "numbers are fractions of the image's width and height, not pixels")
    if len(numbers) == 4:
        x, y, w, h = numbers
        return int(first), (x, y, w, h)
    xs, ys = numbers[::2], numbers[1::2]
    x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    return int(first), ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
