"""Everything a run needs to go on as if nothing had happened, in one file that is never half written."""

import io
import zipfile
from pathlib import Path

import torch

from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.weights.ours import read_pickle

LAST, PREVIOUS = "last.pt", "previous.pt"
TABLES = ("model", "optimizer", "recipe")  # what every state has, besides counters and lists


def save(folder: Path, state: dict) -> None:
    """Write ``last.pt``; the one before stays as ``previous.pt``.

    `state` holds tensors, numbers, strings and containers of them: the file is read with ``weights_only=True``.
    It is serialised to memory first, so that a full disk is reported as such, and leaves the old file alone.
    """
    content = io.BytesIO()
    torch.save(state, content)
    new = folder / f".{LAST}.new"
    write_atomically(new, content.getvalue())
    if (folder / LAST).exists():
        (folder / LAST).replace(folder / PREVIOUS)
    new.replace(folder / LAST)


def load(folder: Path) -> tuple[dict, str]:
    """The newest state of a run that is whole.

    A file that cannot be read, whatever is wrong with it, is passed over for the one before.

    Returns:
        the state, and a note when an older one had to be taken ("" otherwise).

    Raises:
        UserError: there is none.
    """
    reasons = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            if not is_whole(path):
                raise UserError(f"{path}: checksum wrong", code=Exit.CHECKPOINT)
            state = read_pickle(path)
            if not isinstance(state, dict) or not all(isinstance(state.get(key), dict) for key in TABLES):
                raise UserError(f"{path}: not the state of a run", code=Exit.CHECKPOINT)
            return state, "; ".join([*reasons, f"resuming from {name}"]) if reasons else ""
        except UserError as error:
            reasons.append(str(error))
    raise UserError(
        f"{folder}: nothing to resume from" + (f" ({'; '.join(reasons)})" if reasons else f", no {LAST}"),
        remedy="start again without --resume and with another --out, or with --overwrite",
        code=Exit.CHECKPOINT,
    )


def is_whole(path: Path) -> bool:
    """Whether every record has the checksum it was written with; PyTorch itself does not look."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except Exception:  # BadZipFile, UnicodeDecodeError, EOFError, ...: zipfile trusts the bytes it reads
        return False


def sweep(folder: Path) -> None:
    """Remove what a killed run left half written."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
    unfinished = folder / f".{LAST}.new"
    if unfinished.exists() and not (folder / LAST).exists() and is_whole(unfinished):
        unfinished.replace(folder / LAST)  # killed between the two renames: it is complete, only its name is not
    unfinished.unlink(missing_ok=True)
