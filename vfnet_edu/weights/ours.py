"""Weights in and out of files: our checkpoints and ImageNet backbones (the authors' checkpoints: `weights.mmdet`).

Nothing here unpickles code: every file is read with ``weights_only=True`` or as safetensors.
"""

import json
import logging
import pickle
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, ResNet101_Weights

from vfnet_edu.models.backbones.res2net import Res2NetConfig
from vfnet_edu.models.backbones.resnet import ResNetConfig
from vfnet_edu.models.builder import build
from vfnet_edu.models.detector import STD, Detector
from vfnet_edu.recipes import Recipe
from vfnet_edu.runtime.config import from_dict, to_dict
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.weights.download import fetch

SHIPPED = Path(__file__).parent / "shipped"  # small trained models, loaded by their name

log = logging.getLogger(__name__)


# ------------------------------------------------------------------ our checkpoints
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


def load(path: Path | str, device: torch.device | str = "cpu") -> tuple[Recipe, Detector]:
    """A checkpoint of ours -> its recipe and its detector, in evaluation mode.

    Args:
        path: ``best.safetensors``, ``last.pt``, a run folder (its best, else its last), or the name of a small model
            that comes with the package (``"vfnet_tiny"``, ``"vfnet_tiny_focal"``).

    Raises:
        UserError: no such file, a broken file, or one that is not ours.
    """
    path = find_checkpoint(Path(path))
    plain, classes, state = read(path)
    recipe = from_dict(Recipe, plain)
    model = build(recipe, classes)
    load_state(model, state, path)
    return recipe, model.to(device).eval()


def find_checkpoint(path: Path) -> Path:
    """The file itself, the best checkpoint of a run folder, or a model that comes with the package."""
    if path.is_dir():
        for name in ("best.safetensors", "last.pt"):
            if (path / name).exists():
                return path / name
        raise UserError(f"{path}: no best.safetensors and no last.pt in this folder", code=Exit.CHECKPOINT)
    if not path.exists() and (shipped := SHIPPED / f"{path}.safetensors").exists():
        return shipped
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint", remedy="give a file or a run folder", code=Exit.CHECKPOINT)
    return path


def read(path: Path) -> tuple[dict, tuple[str, ...], dict[str, Tensor]]:
    """(recipe as plain dict, classes, state dict) of a checkpoint of ours."""
    if path.suffix == ".safetensors":
        state, metadata = read_safetensors(path)
        if "recipe" not in metadata:
            raise UserError(f"{path}: no recipe inside: not a checkpoint of vfnet_edu", code=Exit.CHECKPOINT)
        return json.loads(metadata["recipe"]), tuple(json.loads(metadata["classes"])), state
    content = read_pickle(path)
    if not isinstance(content, dict) or "recipe" not in content:
        raise UserError(
            f"{path}: no recipe inside: not a checkpoint of vfnet_edu",
            remedy="weights of the authors or of mmdet go through `python -m vfnet_edu.convert`",
            code=Exit.CHECKPOINT,
        )
    return content["recipe"], tuple(content["classes"]), content["model"]


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata); what can go wrong becomes one line."""
    try:
        with safe_open(path, "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file: {error}", code=Exit.CHECKPOINT) from error


def read_pickle(path: Path, allowed: Sequence = ()):
    """A .pt or .pth file, ``weights_only=True``, always; what can go wrong becomes one line.

    `allowed`: harmless types that may stand inside beside tensors and plain Python (``torch.serialization``).
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
        if isinstance(error, pickle.UnpicklingError):  # torch's own words advise to switch the protection off
            reason = "it is no PyTorch file, or holds objects other than tensors and plain values"
        size = path.stat().st_size if path.exists() else 0
        raise UserError(
            f"{path} ({size} bytes) is broken, or holds more than weights: {reason}",
            remedy="copy or download it again; code inside a checkpoint is never run",
            code=Exit.CHECKPOINT,
        ) from error


def load_state(model: nn.Module, state: dict[str, Tensor], source: Path | str, new_classes: bool = False) -> list[str]:
    """Put `state` into `model`, every key accounted for.

    Args:
        model: receives the weights.
        state: under our names.
        source: named in the message when it does not fit.
        new_classes: leave the last layers of the classes at their fresh start where only their class count differs.

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
        raise UserError(
            f"{source} does not fit this model: {report(mine, state)}",
            remedy="use the recipe the checkpoint was made with; `vf.load` rebuilds it from the file",
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


# ------------------------------------------------------------------ ImageNet backbones
OPENMMLAB = "https://download.openmmlab.com/pretrain/third_party/"
IMAGENET = {  # what the authors started from
    ResNetConfig((3, 4, 6, 3)): ResNet50_Weights.IMAGENET1K_V1.url,
    ResNetConfig((3, 4, 23, 3)): ResNet101_Weights.IMAGENET1K_V1.url,
    ResNetConfig((3, 4, 23, 3), groups=32, group_width=4): OPENMMLAB + "resnext101_32x4d-a5af3160.pth",
    ResNetConfig((3, 4, 23, 3), groups=64, group_width=4): OPENMMLAB + "resnext101_64x4d-ee2c6f71.pth",
    Res2NetConfig(): OPENMMLAB + "res2net101_v1d_26w_4s_mmdetv2-f0a600f9.pth",  # v1b, in spite of its name
}


def load_backbone(model: Detector, source: str) -> None:
    """ImageNet weights into the backbone.

    Args:
        model: the detector.
        source: ``"imagenet"`` downloads the weights that the authors started from, ``"none"`` keeps the fresh start,
            else a file (``.pth``, ``.safetensors``) with torchvision's key names, or for Res2Net those of its authors,
            mmdetection or timm.  ``style="caffe"`` files expect RGB minus the mean, not divided: their first filters
            are scaled by the standard deviation, so that they take our input.

    Raises:
        UserError: no such file, no network, or keys that do not fit.
    """
    if source == "none":
        return
    config = model.recipe.backbone
    path = fetch(_imagenet_url(config)) if source == "imagenet" else Path(source)
    state = _read_backbone(path)
    if isinstance(config, Res2NetConfig):  # the deep stem of its authors: `conv1` is six modules, `bn1` the seventh
        state = {re.sub(r"^conv1\.(?=\d)", "stem.", re.sub(r"^bn1\.", "stem.7.", k)): v for k, v in state.items()}
    elif config.style == "caffe":
        state["conv1.weight"] = state["conv1.weight"] * torch.tensor(STD).view(1, 3, 1, 1)
    own = model.backbone.state_dict()
    state |= {k: v for k, v in own.items() if ".conv_offset." in k}  # ImageNet knows no offsets: they start at 0
    load_state(model.backbone, state, path)


def _read_backbone(path: Path) -> dict[str, Tensor]:
    content = read_safetensors(path)[0] if path.suffix == ".safetensors" else read_pickle(path)
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    state = {k: v for k, v in content.items() if isinstance(v, Tensor) and not k.startswith("fc.")}
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _imagenet_url(config: ResNetConfig | Res2NetConfig) -> str:
    plain = type(config)()
    key = replace(config, dcn=False, frozen_stages=plain.frozen_stages, frozen_norm=plain.frozen_norm)
    if key not in IMAGENET:
        raise UserError(
            "no published ImageNet weights for this backbone", remedy="give --backbone-weights FILE, or none"
        )
    return IMAGENET[key]
