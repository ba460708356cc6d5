"""A large json is read once: its columns are kept in the user's cache folder, where the next start finds them.

An entry is good for a file of the same path, size, time of change, and first and last 64 kB.  A change in
the middle of a file whose time is then set back goes unnoticed: that is the price of not reading it all.
"""

import contextlib
import hashlib
import io
import json
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vfnet_edu.runtime.errors import UserError
from vfnet_edu.runtime.files import cache_folder, locked, write_atomically

FORMAT = 1  # raise it when columns are added, renamed, or computed differently: older entries are then rebuilt
SMALLEST = 1_000_000  # bytes of json; reading less takes no time
EDGE = 1 << 16  # bytes at the head and at the tail that are compared
MAX_ENTRIES = 32
MAX_BYTES = 2 * 1024**3  # of all entries; train2017 takes 60 MB

Columns = dict[str, Any]  # of arrays, tuples of str, and str


def cached(path: Path, read: Callable[[], Columns]) -> Columns:
    """The columns of the json at `path`: from the cache, else from `read`, which then fills the cache.

    Of several processes one reads, the others wait for the entry.  Where no entry can be written each reads for itself,
    with one warning.  A damaged entry is rebuilt.

    Raises:
        UserError: from `read`.
    """
    stamp = _stamp(path)
    if not stamp:
        return read()
    with contextlib.ExitStack() as held:
        try:
            entry = _entry(path)
            if found := _load(entry, stamp):
                return found
            entry.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(entry.with_suffix(".lock")))
        except (OSError, RuntimeError) as error:  # RuntimeError: no home folder, or a file system without locks
            _go_without(error)
            return read()
        if found := _load(entry, stamp):  # made by another process while this one waited
            return found
        columns = read()
        _save(entry, stamp, columns)
    return columns


def _stamp(path: Path) -> str:
    """What tells one state of a file from another; "" where the file is small, or not a file: no entry is made."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size < SMALLEST:
            return ""
        with open(path, "rb") as file:
            edges = hashlib.sha256(file.read(EDGE))
            file.seek(-EDGE, os.SEEK_END)
            edges.update(file.read())
    except OSError:  # reading the file will say why
        return ""
    return f"{FORMAT} {os.path.realpath(path)} {status.st_size} {status.st_mtime_ns} {edges.hexdigest()}"


def _entry(path: Path) -> Path:
    """One entry for each path: a file that changes replaces its own."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()
    return cache_folder() / "coco" / f"{path.stem[:40]}-{digest[:16]}.npz"


def _load(entry: Path, stamp: str) -> Columns | None:
    """The columns, or None where there is no entry, or one of another state of the file, or a damaged one."""
    try:
        with open(entry, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            text = json.loads(arrays["text"].tobytes())
            if text.pop("stamp") != stamp:
                return None
            columns = {name: arrays[name] for name in text.pop("arrays")}  # reading an array checks its CRC
    except Exception:  # a damaged file can hold anything: zipfile, numpy and json raise a dozen kinds of errors
        return None
    return columns | {name: tuple(value) if isinstance(value, list) else value for name, value in text.items()}


def _save(entry: Path, stamp: str, columns: Columns) -> None:
    """All text goes into one array, as json: arrays of Python objects would need pickle."""
    arrays: dict[str, Any] = {name: column for name, column in columns.items() if isinstance(column, np.ndarray)}
    text = {name: column for name, column in columns.items() if name not in arrays}
    file = io.BytesIO()
    packed = np.frombuffer(json.dumps({"stamp": stamp, "arrays": list(arrays)} | text).encode(), np.uint8)
    np.savez(file, text=packed, **arrays)
    try:
        write_atomically(entry, file.getvalue())
    except UserError as error:
        _go_without(error.__cause__ or error)
    _bound(entry.parent)


def _bound(folder: Path) -> None:
    """Delete the oldest entries, and what killed processes left behind, beyond `MAX_ENTRIES` or `MAX_BYTES`."""
    with contextlib.suppress(OSError):  # another process may be doing the same
        files = [(p.stat().st_mtime_ns, p.stat().st_size, p) for p in folder.iterdir() if p.suffix != ".lock"]
        total = 0
        for i, (_, size, file) in enumerate(sorted(files, reverse=True)):
            total += size
            if i and (i >= MAX_ENTRIES or total > MAX_BYTES):
                file.unlink(missing_ok=True)
                file.with_suffix(".lock").unlink(missing_ok=True)  # whoever holds it makes an entry all the same


def _go_without(error: BaseException) -> None:
    why = f"{cache_folder()}: {error.strerror}" if isinstance(error, OSError) else error
    remedy = "set VFNET_EDU_CACHE to a folder that can be written"
    warnings.warn(f"no cache for data sets, each process reads them again ({why}); {remedy}", stacklevel=2)
