"""The three tables of a COCO json, read in one pass by msgspec: a few MB of text are in memory at a time.

This reads what nearly all files are.  On anything else it declines, and `coco_json` decides and says what is wrong.
"""

import gzip
import hashlib
import itertools
import os
import re
import zlib
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

BLOCK = 1 << 22  # bytes read at a time
RECORD = np.dtype(  # one annotation
    [
        ("id", "<i8"),  # 0: none given
        ("image", "<i8"),
        ("category", "<i8"),
        ("xywh", "<f8", 4),
        ("area", "<f8"),  # nan: none given
        ("crowd", "?"),
        ("ignore", "?"),
    ]
)
Tables = tuple[list[tuple[int, str, int, int]], list[tuple[int, str]], np.ndarray, str]

# Where the text may be cut.  A wrong guess, as in nested lists, leaves a bracket or a quote open, and msgspec refuses.
START = re.compile(rb'"annotations"\s*:\s*\[')
BETWEEN = re.compile(rb"\}\s*,\s*\{")
END = re.compile(rb"\}\s*\]")

Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Flag = bool | int | None


class _Image(msgspec.Struct, gc=False):
    id: Whole
    file_name: Annotated[str, msgspec.Meta(min_length=1)]
    height: Pixels
    width: Pixels


class _Category(msgspec.Struct, gc=False):
    id: Whole
    name: str


class _Annotation(msgspec.Struct, gc=False):
    """The fields of `RECORD` under their names in the json.  Whatever is not listed, outlines above all, is skipped."""

    image: Whole = msgspec.field(name="image_id")
    category: Whole = msgspec.field(name="category_id")
    xywh: tuple[float, float, float, float] = msgspec.field(name="bbox")
    id: Whole = 0
    area: float | None = None
    crowd: Flag = msgspec.field(name="iscrowd", default=None)
    ignore: Flag = None


class _Shell(msgspec.Struct):
    """The file without its annotations: one null takes their place, and proves that the right list was cut out."""

    images: Annotated[list[_Image], msgspec.Meta(min_length=1)]
    annotations: Annotated[list[None], msgspec.Meta(min_length=1, max_length=1)]
    categories: Annotated[list[_Category], msgspec.Meta(min_length=1)]


_ANNOTATIONS = msgspec.json.Decoder(list[_Annotation])
_SHELL = msgspec.json.Decoder(_Shell)


def stream_tables(path: Path) -> Tables | None:
    """Read a COCO json, plain or .gz, as :func:`vfnet_edu.data.coco_json.read_tables` does.

    Returns:
        images (id, file name, height, width), categories (id, name), annotations (A,) of `RECORD`, all in the order of
        the file, and the fingerprint; None where the file has anything unusual or wrong in it.
    """
    if not path.is_file():  # a pipe can be read only once
        return None
    digest, shell = hashlib.sha256(), bytearray()
    try:
        batches = [_table(_ANNOTATIONS.decode(text)) for text in _split(_blocks(path, digest.update), shell)]
        records, tables = np.concatenate(batches), _SHELL.decode(shell)
    except (msgspec.MsgspecError, OverflowError, RecursionError, ValueError, OSError, EOFError, zlib.error):
        return None
    images = [msgspec.structs.astuple(image) for image in tables.images]
    categories = [msgspec.structs.astuple(category) for category in tables.categories]
    names = {image[1] for image in images}
    unique = len(names) == len({image[0] for image in images}) == len(images)
    if not unique or len(dict(categories)) < len(categories) or any(map(_suspect, names)):
        return None
    return images, categories, records, digest.hexdigest()[:16]


def _blocks(path: Path, note: Callable[[bytes], None]) -> Iterator[bytes]:
    """The text, unpacked, in blocks; each is shown to `note` first."""
    with open(path, "rb") as file:
        text = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file
        while block := text.read(BLOCK):
            note(block)
            yield block


def _split(blocks: Iterator[bytes], shell: bytearray) -> Iterator[bytes]:
    """Cut the list of annotations into lists of some thousand; what surrounds it is added to `shell`."""
    start = None
    while not start:
        if not (block := next(blocks, b"")):
            return
        seam = max(0, len(shell) - 100)
        shell += block
        start = START.search(shell, seam)
    rest, end = bytes(shell[start.end() :]), None
    shell[start.end() :] = b"null"
    while not end:
        between = BETWEEN.search(rest, len(rest) // 2)
        end = END.search(rest, 0, between.start() + 1 if between else len(rest))
        cut = end or between
        if cut:
            yield b"".join((b"[", memoryview(rest)[: cut.start() + 1], b"]"))
            rest = rest[cut.end() - 1 :]
        block = next(blocks, b"")
        if not cut and not block:
            return
        rest = rest + block
    shell += rest
    for block in blocks:
        shell += block


def _table(batch: list[_Annotation]) -> np.ndarray:
    """Objects -> a structured array (A,) of `RECORD`."""
    table = np.empty(len(batch), RECORD)
    numbers = itertools.chain.from_iterable(map(attrgetter("xywh"), batch))
    table["xywh"] = np.fromiter(numbers, np.float64, 4 * len(batch)).reshape(-1, 4)
    for name in ("id", "image", "category", "area", "crowd", "ignore"):
        table[name] = np.fromiter(map(attrgetter(name), batch), RECORD[name], len(batch))  # None: nan, or False
    return table


def _suspect(name: str) -> bool:
    """Whether a file name may lead out of the image folder, or is not a name at all."""
    return ".." in name or "\0" in name or os.path.isabs(name)
