"""One file from the internet: whole and as it was published, or not at all."""

import contextlib
import errno
import hashlib
import os
import re
import ssl
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.runtime.files import cache_folder, locked

MAX_BYTES = 2 * 1024**3  # the largest published checkpoint is 0.4 GB
CHUNK = 1 << 20
WEB_PAGE = re.compile(rb"\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)


def digest_in(name: str) -> str:
    """The first digits of the SHA-256 that publishers put at the end of a name, as in ``resnet50-0676ba61.pth``."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    return found[1] if found else ""


def fetch(url: str) -> Path:
    """The file behind `url`, in the cache.  Its name ends with the first digits of its SHA-256, which are verified.

    An interrupted download resumes where it stopped.

    Raises:
        UserError: no network, interrupted, a web page or another file instead, or nowhere to write.
    """
    target = cache_folder() / url.rsplit("/", 1)[-1]
    with alone(target), _place(target):
        if not (target.exists() and sha256(target).startswith(digest_in(target.name))):
            _download(url, target)
    return target


def _download(url: str, target: Path) -> None:
    part = target.with_name(target.name + ".part")
    try:
        _append(url, part)
    except HTTPError as error:
        raise _error(f"the server answered {error.code} {error.reason} for {url}", target) from error
    except (URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        reason = getattr(error, "reason", error)
        so_far = f" after {part.stat().st_size / 1e6:.1f} MB; try again to go on from there" if part.exists() else ""
        raise _error(f"could not download {url}: {reason}{so_far}", target) from error
    with open(part, "rb") as file:
        web_page = WEB_PAGE.match(file.read(512))
    found, wanted = sha256(part), digest_in(target.name)
    if web_page or not found.startswith(wanted):
        part.unlink()
        if web_page:
            raise _error(f"{url} is a web page, not a checkpoint", target)
        raise _error(f"{url} is not the published file: its SHA-256 begins {found[:8]}, not {wanted}", target)
    os.replace(part, target)


def _append(url: str, part: Path) -> None:
    """Complete `part`; what it already holds is not sent again if the server supports that."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        answer = urlopen(Request(url, headers=headers), timeout=60)  # noqa: S310 (addresses of this package)
    except HTTPError as error:
        if error.code != 416:  # nothing beyond what we have: complete, or another file; its hash will tell
            raise
        return
    with answer:
        start = start if answer.status == 206 else 0
        size = start + int(answer.headers.get("Content-Length") or 0)
        if size > MAX_BYTES:
            raise _too_large(f"is {size / 1e9:.1f} GB, more", url, part)
        with (
            open(part, "ab" if start else "wb") as file,
            tqdm(desc=part.stem, total=size or None, initial=start, unit="B", unit_scale=True, delay=2) as bar,
        ):
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > MAX_BYTES:
                    raise _too_large("sends more", url, part)
            file.flush()
            os.fsync(file.fileno())
    if part.stat().st_size < size:
        raise ConnectionError("the connection was cut")


def _too_large(what: str, url: str, part: Path) -> UserError:
    return _error(f"{url} {what} than the limit of {MAX_BYTES / 1e9:.1f} GB", part.with_suffix(""))


def _error(what: str, target: Path) -> UserError:
    return UserError(what, remedy=f"or fetch the file elsewhere and put it at {target}", code=Exit.CHECKPOINT)


def sha256(path: Path) -> str:
    """64 hex digits"""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def alone(target: Path) -> Iterator[None]:
    """Of several processes that want the same file, one makes it while the others wait."""
    with contextlib.ExitStack() as held:
        with _place(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(target.with_name(target.name + ".lock")))
        yield


@contextlib.contextmanager
def _place(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"could not write {target}: {error.strerror or error}"
        full = "free some space, or " if error.errno == errno.ENOSPC else ""
        raise UserError(what, remedy=f"{full}set VFNET_EDU_CACHE to another folder", code=Exit.STORAGE) from error
