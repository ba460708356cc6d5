"""Reading and checking the json of a COCO data set: three tables, or one sentence that names the bad record.

Nearly all files are read by `coco_stream`, fast.  What it turns down is read here, with care: repaired where no doubt
is possible (an id written as 7.0 or "7"), or refused with the place of the fault.  That takes twice the memory of
the text plus 66 bytes per object: outlines, often 20 times as large as the rest, are dropped while the json is read.
"""

import gzip
import hashlib
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vfnet_edu.data.coco_stream import RECORD, Tables, stream_tables
from vfnet_edu.runtime.errors import Exit, UserError

_PACK = struct.Struct("<qqq5d??")  # one annotation, laid out as a `RECORD`


def data_error(what: str, remedy: str) -> UserError:
    return UserError(what, remedy=remedy, code=Exit.DATA)


def first_of(errors: Sequence[UserError]) -> UserError:
    """The first of the errors, which says how many more there are and knows them all."""
    first, more = errors[0], len(errors) - 1
    what = first.what + (f"; {more} more record{'s are' if more > 1 else ' is'} wrong" if more else "")
    remedy = first.remedy + ("; vfnet_edu.check lists them all" if more else "")
    records = tuple(map(str, errors)) if more else ()
    return UserError(what, remedy=remedy, code=Exit.DATA, records=records)


def read_text(file: Path) -> str:
    """The text of a small file, UTF-8 with or without a byte order mark.

    Raises:
        UserError: it cannot be read, or is something else.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise data_error(f"{file}: byte {error.start} is not UTF-8 text", "save it as UTF-8") from None
    except OSError as error:
        raise data_error(f"{file} cannot be read: {error.strerror}", "check the path and its permissions") from None


def read_tables(path: Path) -> Tables:
    """Read a COCO json, plain or .gz.

    Returns:
        images (id, file name, height, width), categories (id, name), annotations (A,) of `RECORD`, all in the order of
        the file, and a fingerprint of the text. References between the tables are not followed here.

    Raises:
        UserError: unreadable, or not a COCO data set; the message names the record, as ``annotations[17].bbox``.
    """
    return stream_tables(path) or _read_with_care(path)


def _read_with_care(path: Path) -> Tables:
    raw = _read_bytes(path)
    content = _parse(path, raw)
    fingerprint = hashlib.sha256(raw).hexdigest()[:16]
    del raw
    if not isinstance(content, dict):
        raise data_error(f"{path} holds a {type(content).__name__}, not a COCO data set", "is it a file of detections?")
    for key, remedy in (
        ("images", "give a json that has images"),
        ("annotations", "is it the json of a test set?"),
        ("categories", "a COCO data set names its classes there"),
    ):
        if not isinstance(content.get(key), list):
            raise data_error(f'{path} has no list "{key}"', remedy)
        if not content[key] and key != "annotations":
            raise data_error(f'{path}: the list "{key}" is empty', remedy)
    images = [_image(path, i, record) for i, record in enumerate(content["images"])]
    categories = [_category(path, i, record) for i, record in enumerate(content["categories"])]
    _unique(path, "images", "id", [image[0] for image in images])
    _unique(path, "images", "file_name", [image[1] for image in images])
    _unique(path, "categories", "id", [category[0] for category in categories])
    return images, categories, _records(path, content["annotations"]), fingerprint


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except FileNotFoundError:
        raise data_error(f"there is no file {path}", "check the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise data_error(f"{path} is a damaged gzip file: {error}", "copy or download it again") from None
    except OSError as error:
        raise data_error(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None


def _parse(path: Path, raw: bytes) -> object:
    try:
        return json.loads(raw, object_hook=_slim)  # detects UTF-8, -16, -32 and byte order marks by itself
    except json.JSONDecodeError as error:
        begins = f", it begins with {raw[:30]!r}" if error.pos == 0 else ""
        cut = "the file ends too early: " if error.pos >= len(error.doc.rstrip()) - 1 or "Unterm" in error.msg else ""
        where = f"line {error.lineno} column {error.colno}"
        what = f"{path} is not valid json: {cut}{error.msg} at {where} of {len(raw)} bytes{begins}"
    except UnicodeDecodeError as error:
        what = f"{path} is not valid json: byte {error.start} is not {error.encoding} text"
    except RecursionError:
        what = f"{path} is nested too deeply to be a COCO data set"
    raise data_error(what, "copy or download it again")


def _slim(record: dict) -> object:
    """Called by the json reader on every object: packs a well-formed annotation, drops outlines of all others."""
    if "image_id" in record:
        try:
            area = record.get("area")
            x, y, w, h = record["bbox"]
            return _PACK.pack(
                _integer(record["id"]) if "id" in record else 0,
                _integer(record["image_id"]),
                _integer(record["category_id"]),
                x, y, w, h,
                float("nan") if area is None else area,
                int(record.get("iscrowd") or 0) != 0,
                int(record.get("ignore") or 0) != 0,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError, struct.error):
            record.pop("segmentation", None)  # stays a dict: `_blame` will say what is wrong, and where
    return record


def _integer(value: object) -> int:
    """An id: a whole number, also written as 7.0 or "7"."""
    if isinstance(value, str) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError
    return value


def _records(path: Path, packed: list) -> np.ndarray:
    """The list of annotations -> a structured array (A,)."""
    for i, record in enumerate(packed):
        if not isinstance(record, bytes):
            _blame(path, i, record)
    records = np.frombuffer(b"".join(packed), RECORD)
    finite = np.isfinite(records["xywh"]).all(axis=1)
    if not finite.all():
        i = int(np.argmin(finite))
        box, more = records["xywh"][i].tolist(), int((~finite).sum()) - 1
        what = f"{path}: annotations[{i}].bbox is {box}: not finite" + f" (and {more} more)" * (more > 0)
        raise data_error(what, "correct or remove these boxes")
    return records


def _blame(path: Path, i: int, record: object) -> None:
    """Say which part of an annotation is wrong."""
    where = f"{path}: annotations[{i}]"
    if not isinstance(record, dict):
        raise data_error(f"{where} is {record!r:.60}", "an annotation is an object with image_id, category_id and bbox")
    for key in ("image_id", "category_id", "bbox"):
        if key not in record:
            raise data_error(f"{where} has no {key}", "add it, or remove the annotation")
    box = record["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, (int, float)) for v in box):
        raise data_error(f"{where}.bbox is {box!r:.60}", "a box is four numbers: x, y, width, height")
    for key in ("id", "image_id", "category_id"):
        try:
            _integer(record.get(key, 0))
        except (TypeError, ValueError):
            raise data_error(f"{where}.{key} is {record[key]!r:.60}", "an id is a whole number") from None
    rest = {key: record.get(key) for key in ("area", "iscrowd", "ignore")}
    raise data_error(f"{where} has a value that is not a number: {rest}", "correct it, or remove the annotation")


def _image(path: Path, i: int, record: object) -> tuple[int, str, int, int]:
    """(id, file name, height, width) of one record of images."""
    where = f"{path}: images[{i}]"
    if not isinstance(record, dict):
        raise data_error(f"{where} is {record!r:.60}", "an image is an object with id, file_name, width and height")
    numbers = []
    for key in ("id", "height", "width"):
        try:
            numbers.append(_integer(record[key]))
        except KeyError:
            raise data_error(f"{where} has no {key}", "add it, or remove the image") from None
        except (TypeError, ValueError):
            raise data_error(f"{where}.{key} is {record[key]!r:.60}", "it has to be a whole number") from None
    number, height, width = numbers
    if height < 1 or width < 1:
        raise data_error(f"{where} (id {number}) is {width} x {height} pixels", "correct its width and height")
    name = record.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        raise data_error(f"{where}.file_name is {name!r:.60}", "it has to be a path relative to the image folder")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise data_error(f"{where}.file_name {name!r:.60} leads out of the image folder", "make it relative to it")
    return number, name, height, width


def _category(path: Path, i: int, record: Any) -> tuple[int, str]:
    """(id, name) of one record of categories."""
    try:
        return _integer(record["id"]), str(record["name"])
    except (KeyError, TypeError, ValueError):
        what = f"{path}: categories[{i}] is {record!r:.80}"
        raise data_error(what, "a category has an id, a whole number, and a name") from None


def _unique(path: Path, table: str, key: str, values: Sequence) -> None:
    if len(set(values)) == len(values):
        return
    first = {}
    for i, value in enumerate(values):
        if value in first:
            what = f"{path}: {table}[{first[value]}] and {table}[{i}] have the same {key} {value!r}"
            raise data_error(what, "merge the two records, or remove one")
        first[value] = i
