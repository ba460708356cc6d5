"""Weights in and out of files: our checkpoints, the authors' key names, ImageNet backbones.

Nothing here unpickles code: every file is read with ``weights_only=True`` or as safetensors.
"""

import json
import os
import re
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from vfnet_edu.backbones.resnet import ResNetConfig
from vfnet_edu.build import build
from vfnet_edu.config import from_dict, to_dict
from vfnet_edu.detector import STD, Detector
from vfnet_edu.errors import Exit, UserError
from vfnet_edu.recipes import Recipe

# ------------------------------------------------------------------ the authors' names and ours
# Prefixes, theirs -> ours, one to one.  Backbone names are the same.
NECK = [("neck.lateral_convs.", "neck.lateral.")]
NECK += [(f"neck.fpn_convs.{i}.", f"neck.output.{i}.") for i in range(3)]
NECK += [(f"neck.fpn_convs.{i + 3}.", f"neck.extra.{i}.") for i in range(2)]
NECK += [("neck.downsample_convs.", "neck.down."), ("neck.pafpn_convs.", "neck.last.")]
TOWERS = [("bbox_head.cls_convs.", "head.cls_tower."), ("bbox_head.reg_convs.", "head.reg_tower.")]
HEADS = {  # the key that only this head has -> its names
    "bbox_head.vfnet_cls.weight": [
        ("bbox_head.vfnet_reg_conv.", "head.box_conv."),
        ("bbox_head.vfnet_reg.", "head.box_out."),
        ("bbox_head.scales.", "head.box_gain."),
        ("bbox_head.vfnet_reg_refine_dconv.weight", "head.refine_star"),
        ("bbox_head.vfnet_reg_refine.", "head.refine_out."),
        ("bbox_head.scales_refine.", "head.refine_gain."),
        ("bbox_head.vfnet_cls_dconv.weight", "head.score_star"),
        ("bbox_head.vfnet_cls_conv.", "head.score_conv."),
        ("bbox_head.vfnet_cls.", "head.score_out."),
    ],
}
GAIN = re.compile(r"(head\.\w+_gain)\.(\d+)\.scale")  # one 0-d tensor per level there, one vector here


def from_mmdet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' (mmdet 2.x and 3.x) state dict under our names.

    Raises:
        UserError: a key that no detector of ours has, or a head that is not known.
    """
    state = {k.removeprefix("module."): v for k, v in state.items()}
    # mmcv's first DCNv2 kept its offset predictor beside the convolution, not inside it
    state = {re.sub(r"(conv2|convs\.\d|\.conv)_offset\.(weight|bias)$", r"\1.conv_offset.\2", k): v for k, v in state.items()}
    pairs, ours, gains = _names(state, 0), {}, {}
    for key, value in state.items():
        name = _rename(key, pairs)
        if name is None:
            raise UserError(f"checkpoint key {key!r} has no place in our {_known_heads()} models", code=Exit.CHECKPOINT)
        if level := GAIN.fullmatch(name):
            gains.setdefault(level[1], {})[int(level[2])] = value.reshape(())
        else:
            ours[name.replace(".gn.", ".norm.")] = value
    for name, levels in gains.items():
        ours[name] = torch.stack([levels[i] for i in range(len(levels))])
    return ours


def to_mmdet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`from_mmdet`: what is trained here runs there.

    Raises:
        UserError: a key that the authors' code has no name for.
    """
    pairs, theirs = [(ours, them) for them, ours in _names(state, 1)], {}
    for key, value in state.items():
        levels = list(value.unbind(0)) if key.endswith("_gain") else None
        for i, part in enumerate(levels or [value]):
            name = _rename(f"{key}.{i}.scale" if levels else key, pairs)
            if name is None:
                raise UserError(f"weight {key!r} has no name in the authors' code", code=Exit.CHECKPOINT)
            theirs[name if name.startswith("backbone.") else name.replace(".norm.", ".gn.")] = part
    return theirs


def _names(state: dict[str, Tensor], side: int) -> list[tuple[str, str]]:
    """The pairs that fit the head of `state`; `side` 0: their names, 1: ours."""
    for marker, pairs in HEADS.items():
        if (marker if side == 0 else _rename(marker, pairs)) in state:
            return [("backbone.", "backbone."), *NECK, *TOWERS, *pairs]
    raise UserError(f"these weights belong to no detector of ours (looked for {_known_heads()})", code=Exit.CHECKPOINT)


def _rename(key: str, pairs: list[tuple[str, str]]) -> str | None:
    for old, new in pairs:
        if key.startswith(old):
            return new + key[len(old) :]
    return None


def _known_heads() -> str:
    return ", ".join(marker.split(".")[1] for marker in HEADS)


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
        path: ``best.safetensors``, ``last.pt``, or a run folder (its best, else its last).

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
    """The file itself, or the best checkpoint of a run folder."""
    if path.is_dir():
        for name in ("best.safetensors", "last.pt"):
            if (path / name).exists():
                return path / name
        raise UserError(f"{path}: no best.safetensors and no last.pt in this folder", code=Exit.CHECKPOINT)
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint", remedy="give a file or a run folder", code=Exit.CHECKPOINT)
    return path


def read(path: Path) -> tuple[dict, tuple[str, ...], dict[str, Tensor]]:
    """(recipe as plain dict, classes, state dict) of a checkpoint of ours."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a readable safetensors file: {error}", code=Exit.CHECKPOINT) from error
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


def read_pickle(path: Path):
    """A .pt or .pth file, ``weights_only=True``, always; what can go wrong becomes one line."""
    try:
        with open(path, "rb") as file:
            start = file.read(512).lstrip().lower()
        if start.startswith((b"<!doctype", b"<html", b"<?xml")):
            raise UserError(f"{path}: this is a web page, not a checkpoint", "download it again", code=Exit.CHECKPOINT)
        return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file", code=Exit.CHECKPOINT) from error
    except Exception as error:  # torch raises EOFError, RuntimeError, UnpicklingError, ... for broken files
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
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
    mine = model.state_dict()
    state = {k: v for k, v in state.items()}
    for key in mine:  # counters of BatchNorm: some tools do not write them, and nothing reads them here
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, mine[key])
    missing, unexpected = sorted(mine.keys() - state.keys()), sorted(state.keys() - mine.keys())
    shapes = [k for k in mine.keys() & state.keys() if mine[k].shape != state[k].shape]
    fresh = [k for k in sorted(shapes) if new_classes and mine[k].shape[1:] == state[k].shape[1:] and "_out." in k]
    shapes = sorted(set(shapes) - set(fresh))
    if missing or unexpected or shapes:
        report = [f"{len(keys)} {what}: {_few(keys)}" for what, keys in
                  (("missing", missing), ("unexpected", unexpected),
                   ("of another shape", [f"{k} {tuple(state[k].shape)} for {tuple(mine[k].shape)}" for k in shapes]))
                  if keys]  # fmt: skip
        raise UserError(
            f"{source} does not fit this model; keys " + "; ".join(report),
            remedy="use the recipe the checkpoint was made with; `vf.load` rebuilds it from the file",
            code=Exit.CHECKPOINT,
        )
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{source}: {key} holds NaN or infinity", "use another checkpoint", code=Exit.CHECKPOINT)
    model.load_state_dict({k: v for k, v in state.items() if k not in fresh}, strict=not fresh)
    return fresh


def _few(keys: list[str], most: int = 4) -> str:
    return ", ".join(keys[:most]) + (f", and {len(keys) - most} more" if len(keys) > most else "")


# ------------------------------------------------------------------ ImageNet backbones
def load_backbone(model: Detector, source: str) -> None:
    """ImageNet weights into the backbone.

    Args:
        model: the detector.
        source: ``"imagenet"`` downloads the weights that the authors started from, ``"none"`` keeps the fresh start,
            else a file with torchvision's key names.  ``style="caffe"`` files expect RGB minus the mean, not divided:
            their first filters are scaled by the standard deviation, so that they take our input.

    Raises:
        UserError: no such file, no network, or keys that do not fit.
    """
    if source == "none":
        return
    config = model.recipe.backbone
    path = source if source != "imagenet" else _imagenet_url(config)
    state = _download(path) if source == "imagenet" else read_pickle(Path(source))
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items() if not k.startswith("fc.")}
    if getattr(config, "style", "pytorch") == "caffe":
        state["conv1.weight"] = state["conv1.weight"] * torch.tensor(STD).view(1, 3, 1, 1)
    own = model.backbone.state_dict()
    state |= {k: v for k, v in own.items() if ".conv_offset." in k}  # ImageNet knows no offsets: they start at 0
    load_state(model.backbone, state, path)


def _imagenet_url(config) -> str:
    from torchvision.models import ResNet50_Weights, ResNet101_Weights

    known = {
        ((3, 4, 6, 3), 1): ResNet50_Weights.IMAGENET1K_V1,
        ((3, 4, 23, 3), 1): ResNet101_Weights.IMAGENET1K_V1,
    }
    key = (config.blocks, getattr(config, "groups", 0))
    plain = isinstance(config, ResNetConfig) and config.style == "pytorch" and config.width == 64
    if not plain or key not in known:
        raise UserError(
            "no published ImageNet weights for this backbone", remedy="give --backbone-weights FILE, or none"
        )
    return known[key].url


def _download(url: str) -> dict[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"could not download {url}: {error}",
            remedy="fetch it elsewhere and give --backbone-weights FILE, or none to start from scratch",
            code=Exit.CHECKPOINT,
        ) from error


# ------------------------------------------------------------------ files
def write_atomically(path: Path, content: bytes) -> None:
    """Write, flush to disk, rename: a reader sees the old file or the new one, never half of one.

    Raises:
        UserError: no space, or no permission; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"{path}: could not write {len(content) / 1e6:.1f} MB: {error.strerror}",
            remedy="free space or give another --out",
            code=Exit.STORAGE,
        ) from error
