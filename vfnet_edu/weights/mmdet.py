"""The checkpoints of the authors and of mmdetection 2.x and 3.x: reading them, and their key names, there and back."""

import functools
import logging
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vfnet_edu import recipes
from vfnet_edu.models.detector import Detector, build
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.weights.download import digest_in, sha256
from vfnet_edu.weights.mmdet_config import disagreements, read_config
from vfnet_edu.weights.ours import differences, load_state, read_pickle, report

log = logging.getLogger(__name__)

# ---- Names -----------------------------------------------------------------------------------------------------------
# Prefixes, theirs -> ours, one to one.  Backbone names are the same.

NECK = [("neck.lateral_convs.", "neck.lateral.")]
NECK += [(f"neck.fpn_convs.{i}.", f"neck.output.{i}.") for i in range(3)]
NECK += [(f"neck.fpn_convs.{i + 3}.", f"neck.extra.{i}.") for i in range(2)]
NECK += [("neck.downsample_convs.", "neck.down."), ("neck.pafpn_convs.", "neck.last.")]
TOWERS = [("bbox_head.cls_convs.", "head.cls_tower."), ("bbox_head.reg_convs.", "head.reg_tower.")]
HEADS = {  # a key that identifies a head, under both names -> its names
    "bbox_head.vfnet_reg.weight": [
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
    "bbox_head.atss_centerness.weight": [
        ("bbox_head.atss_cls.", "head.score_out."),
        ("bbox_head.atss_reg.", "head.delta_out."),
        ("bbox_head.atss_centerness.", "head.center_out."),
        ("bbox_head.scales.", "head.box_gain."),
    ],
    "bbox_head.reppoints_pts_init_out.weight": [
        ("bbox_head.moment_transfer", "head.log_spread"),
        ("bbox_head.reppoints_cls_conv.weight", "head.score_points"),
        ("bbox_head.reppoints_cls_out.", "head.score_out."),
        ("bbox_head.reppoints_pts_init_conv.", "head.points_conv."),
        ("bbox_head.reppoints_pts_init_out.", "head.points_out."),
        ("bbox_head.reppoints_pts_refine_conv.weight", "head.refine_points"),
        ("bbox_head.reppoints_pts_refine_out.", "head.refine_out."),
    ],
    "bbox_head.conv_reg.weight": [
        ("bbox_head.conv_cls.", "head.score_out."),
        ("bbox_head.conv_reg.", "head.side_out."),
    ],
    "bbox_head.retina_reg.weight": [
        ("bbox_head.retina_cls.", "head.score_out."),
        ("bbox_head.retina_reg.", "head.delta_out."),
    ],
}
OLD = [  # names that later versions dropped -> the later names
    (re.compile(r"^module\."), ""),
    (re.compile(r"^(backbone\..*(?:conv2|convs\.\d))_offset\."), r"\1.conv_offset."),  # the first DCNv2 of mmcv ...
    (re.compile(r"^((?:neck|bbox_head)\.\w+\.\d+)\.conv_offset\."), r"\1.conv.conv_offset."),  # ... beside its conv
    (re.compile(r"^bbox_head\.fovea_(cls|reg)\."), r"bbox_head.conv_\1."),
]
GAIN = re.compile(r"(head\.\w+_gain)\.(\d+)\.scale")  # one 0-d tensor per level there, one vector here


def from_mmdet(state: dict[str, Tensor], source: Path | str = "the checkpoint") -> dict[str, Tensor]:
    """Their state dict under our names; `source` is named where it does not fit.

    Raises:
        UserError: a key that none of our detectors has, or an unknown head.
    """
    for old, new in OLD:
        state = {old.sub(new, k): v for k, v in state.items()}
    pairs, ours, gains = _names(state, 0, source), {}, {}
    for key, value in state.items():
        name = _rename(key, pairs)
        if name is None:
            raise UserError(f"{source}: key {key!r} has no place in any of our detectors", code=Exit.CHECKPOINT)
        if level := GAIN.fullmatch(name):
            gains.setdefault(level[1], {})[int(level[2])] = value.reshape(())  # some tools write 1-d scalars
        else:
            ours[name.replace(".gn.", ".norm.")] = value
    for name, levels in gains.items():
        ours[name] = torch.stack([levels[i] for i in sorted(levels)])
    return ours


def to_mmdet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`from_mmdet`: what is trained here runs there.

    Raises:
        UserError: a key that the authors' code has no name for.
    """
    pairs, theirs = [(ours, them) for them, ours in _names(state, 1, "the model")], {}
    for key, value in state.items():
        levels = list(value.unbind(0)) if key.endswith("_gain") else None
        for i, part in enumerate(levels or [value]):
            name = _rename(f"{key}.{i}.scale" if levels else key, pairs)
            if name is None:
                raise UserError(f"weight {key!r} has no name in the authors' code", code=Exit.CHECKPOINT)
            theirs[name if name.startswith("backbone.") else name.replace(".norm.", ".gn.")] = part
    return theirs


def _names(state: dict[str, Tensor], side: int, source: Path | str) -> list[tuple[str, str]]:
    """The pairs that fit the head of `state`; `side` 0: their names, 1: ours."""
    if marker := _head(state, side):
        return [("backbone.", "backbone."), *NECK, *TOWERS, *HEADS[marker]]
    heads = ", ".join(marker.split(".")[1] for marker in HEADS)
    raise UserError(f"{source} holds no head that we know (looked for {heads})", code=Exit.CHECKPOINT)


def _head(state: dict[str, Tensor], side: int) -> str:
    """The key that identifies the head of `state`, always under their name; "" where we know none."""
    found = (m for m, pairs in HEADS.items() if (m if side == 0 else _rename(m, pairs)) in state)
    return next(found, "")


def _rename(key: str, pairs: list[tuple[str, str]]) -> str | None:
    for old, new in pairs:
        if key.startswith(old):
            return new + key[len(old) :]
    return None


# fmt: off
COCO = (  # in the order of the published weights
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator",
    "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on


# ---- Files -----------------------------------------------------------------------------------------------------------


class _Unread:
    """Takes the place of a foreign object in a file: takes everything, keeps nothing, runs nothing."""

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


# Everything besides tensors and plain Python that their files may hold (best scores, loss curves); no code among it.
ALLOWED = [type(np.dtype(t)) for t in "?bhilqBHILQefd"] + [np.dtype, np.ndarray]
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1 and 2
    ALLOWED += [(np.float64(0).__reduce__()[0], f"{_module}.scalar")]
    ALLOWED += [(np.zeros(0).__reduce__()[0], f"{_module}._reconstruct")]
ALLOWED += [(_Unread, "mmengine.logging.history_buffer.HistoryBuffer"), (_Unread, "builtins.getattr")]


def read_mmdet(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...] | None, dict[str, object]]:
    """One of their ``.pth`` files -> its state dict under their names, its classes where it names them, and its config.

    The second set of weights that version 2's EMA hook leaves is dropped, and that is logged.

    Raises:
        UserError: no such file, broken, code inside, or no weights.
    """
    content = read_pickle(path, ALLOWED)
    state = content
    if isinstance(content, dict):
        state = content.get("state_dict", content.get("model", content))
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path}: no state dict inside ({found})", code=Exit.CHECKPOINT)
    meta = _table(content, "meta")
    dataset = {str(k).lower(): v for k, v in _table(meta, "dataset_meta").items()}  # mmdetection 3
    classes = meta.get("CLASSES") or dataset.get("classes")
    classes = tuple(map(str, classes)) if isinstance(classes, (tuple, list)) else None
    told = _table(_table(content, "message_hub"), "runtime_info")
    texts = [text for text in (meta.get("cfg"), told.get("cfg"), meta.get("config")) if isinstance(text, str)]
    return _without_second_set(state, path), classes, read_config(texts[0]) if texts else {}


def _without_second_set(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """`state` without the buffers of version 2's EMA hook, as ``ema_backbone_conv1_weight``.

    The hook swaps the two sets before a checkpoint is written: the averages are under the usual names, which is what
    mmdetection tests, and the weights as they were trained are in these buffers.
    """
    plain = {key: key.removeprefix("module.") for key in state}
    second = {f"ema_{name.replace('.', '_')}" for name in plain.values()}
    kept = {key: value for key, value in state.items() if plain[key] not in second}
    if dropped := len(state) - len(kept):
        said = "%s: %d keys of an EMA hook (ema_backbone_...) dropped; the weights under the usual names are used"
        log.warning(f"{said}, as mmdetection does", path, dropped)
    return kept


def _table(content: dict, key: str) -> dict:
    found = content.get(key)
    return found if isinstance(found, dict) else {}


def load_mmdet(path: Path | str, name: str = "") -> tuple[Detector, list[str]]:
    """One of their checkpoints as one of our detectors.

    Args:
        path: of the ``.pth``.
        name: of the recipe; by default the published file's own, else the first that fits.

    Returns:
        the detector, in evaluation mode, and the names of all recipes that fit if it had to choose.

    Raises:
        UserError: what :func:`read_mmdet` and :func:`from_mmdet` raise; or no recipe fits, or not the one named (the
            message gives the keys that differ, and the command that works, if there is one); or the config inside is
            of a model that no recipe represents, though the keys fit.
    """
    path = Path(path)
    theirs, classes, config = read_mmdet(path)
    state = from_mmdet(theirs, path)
    published = [r for r in map(recipes.by_name, recipes.names()) if path.name == r.published.checkpoint]
    names = [name] if name else [r.name for r in published] or [n for n in recipes.names() if fits(n, state)]
    if not names or not fits(names[0], state):
        raise _misfit(path, names, state)
    if published and not sha256(path).startswith(digest_in(path.name)):
        what = f"{path} is not the published file: its SHA-256 begins {sha256(path)[:8]}"
        raise UserError(what, remedy="download it again, or rename it if it is your own", code=Exit.CHECKPOINT)
    recipe = recipes.by_name(names[0])
    if not published and (found := disagreements(config, recipe)):
        what = f"{path} has the keys and shapes of {recipe.name}, but {'; '.join(found)}"
        raise UserError(what, remedy="no recipe represents this model", code=Exit.CHECKPOINT)
    model = build(recipe, class_names(classes, state))
    load_state(model, state, path)
    return model.eval(), names


def fits(name: str, state: dict[str, Tensor]) -> bool:
    """Whether a recipe has these keys and shapes, whatever the number of classes."""
    return not any(differences(*_comparable(name, state)))


def class_names(named: tuple[str, ...] | None, state: dict[str, Tensor]) -> tuple[str, ...]:
    """The classes that the file names if they are as many as its last layer tells apart, else COCO's, else numbers."""
    if "head.score_out.bias" not in state:
        return COCO
    anchors = len(state["head.delta_out.bias"]) // 4 if "head.delta_out.bias" in state else 1  # RetinaNet: 9
    count = len(state["head.score_out.bias"]) // anchors
    for names in (named, COCO):
        if names and len(names) == count:
            return names
    return tuple(f"class {i}" for i in range(count))


def _comparable(name: str, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(state of the recipe, on no device; `state` without the counters that some tools leave out)"""
    mine = _blueprint(name, class_names(None, state))
    mine, theirs = ({k: v for k, v in s.items() if not k.endswith("num_batches_tracked")} for s in (mine, state))
    return mine, theirs


@functools.lru_cache
def _blueprint(name: str, classes: tuple[str, ...]) -> dict[str, Tensor]:
    with torch.device("meta"):
        return build(recipes.by_name(name), classes).state_dict()


def _misfit(path: Path, names: list[str], state: dict[str, Tensor]) -> UserError:
    fitting = [n for n in recipes.names() if fits(n, state)]
    pairs = {n: _comparable(n, state) for n in (names or recipes.names())}
    head = _head(state, 1)  # the same head first: a deep backbone alone has more keys than any head

    def distance(name: str) -> tuple[bool, int]:
        return _head(pairs[name][0], 1) != head, sum(map(len, differences(*pairs[name])))

    nearest = min(pairs, key=distance)
    what = f"{path} does not fit the {'' if names else 'nearest '}recipe {nearest}: {report(*pairs[nearest])}"
    command = f"python -m vfnet_edu.convert {path} --recipe {fitting[0]}" if fitting else ""
    return UserError(what, remedy=command or "no recipe has these keys and shapes", code=Exit.CHECKPOINT)
