"""Files that are whole or not there at all, files that belong to one process at a time, and the cache folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from vfnet_edu.runtime.errors import Exit, UserError


def cache_folder() -> Path:
    """``$VFNET_EDU_CACHE``, else ``$XDG_CACHE_HOME/vfnet_edu``, else ``~/.cache/vfnet_edu``.

    Raises:
        RuntimeError: none of them is set, and the system knows no home folder.
    """
    if own := os.environ.get("VFNET_EDU_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vfnet_edu"


def write_atomically(path: Path, content: bytes | str, remedy: str = "free space or give another --out") -> None:
    """Write, flush to disk, rename: a reader sees the old file or the new one, never half of one.

    Args:
        path: of the file.
        content: bytes, or text that is written as UTF-8.
        remedy: what to do where the disk refuses.

    Raises:
        UserError: no space, or no permission; the old file is untouched.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        what = f"{path}: could not write {len(data) / 1e6:.1f} MB: {error.strerror}"
        raise UserError(what, remedy=remedy, code=Exit.STORAGE) from error


def append_line(path: Path, line: str) -> None:
    """Add a line to a diary in one write, and flush it to disk.

    A kill in the middle may leave a torn last line, which readers leave out; whole lines are never lost.

    Raises:
        UserError: no space, or no permission.
    """
    try:
        with open(path, "ab") as file:
            file.write(line.encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        what = f"{path}: could not write: {error.strerror}"
        raise UserError(what, remedy="free space or give another --out", code=Exit.STORAGE) from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Of several processes that want to make one thing, one is inside and the others wait.

    Args:
        path: of the lock file, which stays.  The system releases the lock should the process die.

    Raises:
        OSError: the lock file cannot be made.
    """
    with FileLock(path):
        yield


def try_lock(path: Path) -> FileLock | None:
    """Hold the lock file at `path` until ``release()`` or the end of the process; None where another process holds it.

    Child processes do not inherit it: a data-loading worker that outlives its killed parent must not block a restart.

    Raises:
        OSError: the lock file cannot be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
