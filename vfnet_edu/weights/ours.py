"""Our checkpoints: weights into files and back.

Nothing here unpickles code: every file is read with ``weights_only=True`` or as safetensors.  A model by its name, or
from a run folder: `weights.zoo`.
"""

import json
import logging
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from vfnet_edu.models.detector import Detector, build
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime.config import from_dict, to_dict
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.runtime.files import write_atomically

log = logging.getLogger(__name__)


def save(path: Path | str, model: Detector, extra: dict[str, str] | None = None) -> None:
    """Weights as safetensors, with the recipe and the classes in the metadata: the file knows what it is."""
    metadata = {
        "format": "vfnet_edu 1",
        "recipe": json.dumps(to_dict(model.recipe)),
        "classes": json.dumps(list(model.classes)),
        **(extra or {}),
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    write_atomically(Path(path), safetensors_bytes(tensors, metadata))


def load_file(path: Path | str, device: torch.device | str = "cpu") -> tuple[Recipe, Detector]:
    """One of our files (``best.safetensors``, ``last.pt``) -> its recipe and its detector, in evaluation mode.

    Raises:
        UserError: no such file, a broken file, or one that is not ours.
    """
    path = Path(path)
    plain, classes, state = read(path)
    try:
        recipe = from_dict(Recipe, plain)
    except (UserError, TypeError) as error:
        what = f"{path}: the recipe inside cannot be read: {getattr(error, 'what', error)}"
        remedy = getattr(error, "remedy", "") or "it was written by another version of vfnet_edu, or is damaged"
        raise UserError(what, remedy=remedy, code=Exit.CHECKPOINT) from error
    model = build(recipe, classes)
    load_state(model, state, path)
    return recipe, model.to(device).eval()


def read(path: Path) -> tuple[dict, tuple[str, ...], dict[str, Tensor]]:
    """(recipe as plain dict, classes, state dict) of one of our checkpoints.

    Raises:
        UserError: no such file, a broken file, or one that is not ours.
    """
    try:
        if path.suffix == ".safetensors":
            state, metadata = read_safetensors(path)
            plain, classes = (json.loads(metadata[key]) for key in ("recipe", "classes"))
        else:
            content = read_pickle(path)
            plain, classes, state = (content[key] for key in ("recipe", "classes", "model"))
        classes = tuple(map(str, classes))
    except (KeyError, IndexError, TypeError, ValueError) as error:  # a list, a bare state dict, broken JSON, ...
        raise _not_ours(path, "no recipe inside") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise _not_ours(path, "no weights inside")
    return plain, classes, state


def _not_ours(path: Path, why: str) -> UserError:
    return UserError(
        f"{path}: {why}: not a checkpoint of vfnet_edu",
        remedy="weights of the authors or of mmdetection go through `python -m vfnet_edu.convert`",
        code=Exit.CHECKPOINT,
    )


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata); whatever goes wrong is a `UserError` of one line."""
    try:
        with safe_open(path, "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file: {error}", code=Exit.CHECKPOINT) from error


def read_pickle(path: Path, allowed: Sequence = ()):
    """The content of a .pt or .pth file, always with ``weights_only=True``.

    Args:
        path: of the file.
        allowed: harmless types that may be inside besides tensors and plain Python (``torch.serialization``).

    Raises:
        UserError: whatever goes wrong, in one line.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(512).lstrip().lower()
        if start.startswith((b"<!doctype", b"<html", b"<?xml")):
            raise UserError(
                f"{path}: this is a web page, not a checkpoint", remedy="download it again", code=Exit.CHECKPOINT
            )
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file", code=Exit.CHECKPOINT) from error
    except Exception as error:  # torch raises EOFError, RuntimeError, UnpicklingError, ... for broken files
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch's own message advises switching the protection off
            reason = "it is not a PyTorch file, or holds objects other than tensors and plain values"
        size = path.stat().st_size if path.exists() else 0
        raise UserError(
            f"{path} ({size} bytes) is broken, or holds more than weights: {reason}",
            remedy="copy or download it again; code inside a checkpoint is never run",
            code=Exit.CHECKPOINT,
        ) from error


def load_state(
    model: nn.Module, state: dict[str, Tensor], source: Path | str, new_classes: bool = False, made_with: str = ""
) -> list[str]:
    """Put `state` into `model`, every key accounted for.

    Args:
        model: receives the weights.
        state: under our names.
        source: named in the message when it does not fit.
        new_classes: leave the last layers of the classes at their fresh start where only their class count differs.
        made_with: the recipe that the weights come from, named in the remedy where that is not the model's.

    Returns:
        the names that were left at their fresh start.

    Raises:
        UserError: missing, unexpected or misshapen keys, or values that are not finite.
    """
    mine, state = model.state_dict(), dict(state)
    for key in mine:  # counters of BatchNorm: some tools do not write them, and nothing reads them here
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, mine[key])
    missing, unexpected, misshapen = differences(mine, state)
    fresh = [k for k in misshapen if new_classes and mine[k].shape[1:] == state[k].shape[1:] and "_out." in k]
    misshapen = [k for k in misshapen if k not in fresh]
    if missing or unexpected or misshapen:
        known = f"it was made with {made_with}: use that recipe" if made_with else "use the recipe it was made with"
        raise UserError(
            f"{source} does not fit this model: {report(mine, state)}",
            remedy=f"{known}; `vf.load` rebuilds it from the file",
            code=Exit.CHECKPOINT,
        )
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            what = f"{source}: {key} holds NaN or infinity"
            raise UserError(what, remedy="use another checkpoint", code=Exit.CHECKPOINT)
    model.load_state_dict({k: v for k, v in state.items() if k not in fresh}, strict=not fresh)
    return fresh


def change_classes(model: Detector, classes: tuple[str, ...]) -> Detector:
    """A copy for other classes: where their number differs the last layers start fresh, and that is logged."""
    changed = build(model.recipe, tuple(classes))
    fresh = load_state(changed, model.state_dict(), f"the {len(model.classes)}-class model", new_classes=True)
    if fresh:
        log.warning("%d classes instead of %d: %s start fresh", len(classes), len(model.classes), ", ".join(fresh))
    return changed.train(model.training)


def differences(mine: dict[str, Tensor], state: dict[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Keys of `state` against those of a model: (missing, unexpected, of another shape)."""
    misshapen = [k for k in mine.keys() & state.keys() if mine[k].shape != state[k].shape]
    return sorted(mine.keys() - state.keys()), sorted(state.keys() - mine.keys()), sorted(misshapen)


def report(mine: dict[str, Tensor], state: dict[str, Tensor], most: int = 4) -> str:
    """:func:`differences` in words."""
    missing, unexpected, misshapen = differences(mine, state)
    misshapen = [f"{k} {tuple(state[k].shape)} for {tuple(mine[k].shape)}" for k in misshapen]
    lines = []
    for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)):
        if keys:
            more = f", and {len(keys) - most} more" if len(keys) > most else ""
            lines.append(f"keys {what} ({len(keys)}): {', '.join(keys[:most])}{more}")
    return "; ".join(lines)
