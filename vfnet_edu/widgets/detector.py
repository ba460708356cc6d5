"""The live detector of chapter 0: compose a scene, and VarifocalNet looks at it while you drag, inside the page.

``vfnet.js`` is the network, ``scene.js`` the scene, ``detector.js`` what is shown of them.  This file packs what they
need: the weights, and objects that :mod:`vfnet_edu.data.shapes` has drawn.
"""

import math
import zlib
from typing import NamedTuple

import anywidget
import numpy as np
import torch
import traitlets
from PIL import Image
from torch import Tensor

from vfnet_edu.boxes import iou
from vfnet_edu.data.shapes import CLASSES, LEAST_AREA, Sprite, draw_ground, draw_object
from vfnet_edu.models.detector import Detector
from vfnet_edu.models.fold import fold_norms
from vfnet_edu.models.heads.vfnet import VFNetConfig
from vfnet_edu.postprocess import Detections, pool, suppress
from vfnet_edu.runtime.errors import UserError
from vfnet_edu.viz.drawing import render
from vfnet_edu.widgets.front_end import STYLE, data_url, script

SIZE = 128  # pixels along the side of the picture
PALETTE = 3  # pleasant to look at, and the ground is light
GROUNDS = ("wood", "squared", "linen")
RADIUS = 0.17  # of every sprite at size 1
LOOKS = dict(zip(CLASSES, (10, 5, 1, 3, 0, 2, 1, 8), strict=True))  # class -> what it wears; chosen by eye
NEAR = 0.1  # least IoU with an object for a box to be about it

# Scenes placed by hand, each with its surprise: a ground, and objects (class, x, y, degrees, size) from back to front.
SCENES: dict[str, tuple[str, list[tuple[str, float, float, float, float]]]] = {
    "second best": ("wood", [("triangle", 54, 30, 0, 1.3), ("ellipse", 46, 86, 0, 1.0)]),
    "covered": ("linen", [("star", 56, 64, 0, 1.2), ("rectangle", 104, 64, 0, 1.0)]),
    "twins": ("squared", [("star", 54, 60, 0, 1.0), ("star", 62, 64, 0, 1.0)]),
    "on its corner": ("squared", [("rectangle", 64, 64, 45, 1.2)]),
}


class Item(NamedTuple):
    """One object of a composed scene."""

    sprite: int  # which, of the list of sprites
    x: float  # of its middle, pixels
    y: float
    turn: float = 0.0  # degrees, clockwise
    size: float = 1.0  # 1: as it was drawn
    z: int = 0  # the higher is in front


# ---- The network, small enough to travel ----------------------------------------------------------------------------


def eight_bits(model: Detector) -> Detector:
    """A copy of `model` whose kernels have at most 255 values per output channel: what the page computes with.

    BatchNorms are folded first.  Biases, norms and gains stay float32.
    """
    model = fold_norms(model).cpu().float()
    for kernel in model.parameters():
        if kernel.ndim == 4:
            codes, scale = _codes(kernel.detach())
            kernel.copy_(codes * scale.view(-1, 1, 1, 1))
    return model


def _codes(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """(out, in, kh, kw) -> int8 of the same shape and a scale (out,): kernel = code * scale, nearly."""
    scale = kernel.abs().amax(dim=(1, 2, 3)).clamp(min=1e-12) / 127
    return (kernel / scale.view(-1, 1, 1, 1)).round().to(torch.int8), scale


def packed(model: Detector) -> tuple[dict, bytes]:
    """What ``new Vfnet(manifest, buffer)`` takes, deflated: all float32 first, then all int8.

    Raises:
        UserError: the model is not a VFNet of the kind that ``vfnet.js`` computes.
    """
    head, detect = model.recipe.head, model.recipe.detect
    if not isinstance(head, VFNetConfig) or head.depth != 1 or head.dcn or not (head.star and head.refine):
        what = f"the page cannot compute {model.recipe.name}"
        raise UserError(what, remedy="give it vfnet_tiny, or one trained from it")
    settings = {"classes": list(model.classes), "strides": list(head.strides), "boxUnit": head.box_unit}
    settings |= {"minScore": detect.min_score, "nmsIou": detect.nms_iou, "maxDetections": detect.max_detections}
    settings |= {name: model.get_buffer(name).flatten().tolist() for name in ("mean", "std")}

    folded = fold_norms(model).cpu().float()
    tensors, floats, codes = {}, b"", b""
    for name, value in folded.named_parameters():
        value = value.detach()
        tensors[name] = {"shape": list(value.shape), "floats": len(floats)}
        if value.ndim == 4:
            code, value = _codes(value)
            code = code.permute(0, 2, 3, 1)  # (out, kh, kw, in): a row per output channel, for channels-last maps
            tensors[name] |= {"shape": list(code.shape), "codes": len(codes)}
            codes += code.contiguous().numpy().tobytes()
        floats += value.numpy().astype("<f4").tobytes()
    for tensor in tensors.values():
        if "codes" in tensor:
            tensor["codes"] += len(floats)
    return settings | {"tensors": tensors}, zlib.compress(floats + codes, 9)


# ---- Scenes ---------------------------------------------------------------------------------------------------------


def sprites() -> list[Sprite]:
    """One object of every class, in the order of CLASSES."""
    return [draw_object(name, PALETTE, LOOKS[name], RADIUS, size=SIZE) for name in CLASSES]


def packed_pictures() -> tuple[dict, bytes]:
    """Grounds and sprites, deflated, and where each of them lies: pixels as (h, w, 3), masks as (h, w)."""
    content, sheet = b"", {"size": SIZE, "grounds": [], "sprites": []}
    for name in GROUNDS:
        sheet["grounds"].append(len(content))
        content += draw_ground(name, PALETTE, SIZE).permute(1, 2, 0).contiguous().numpy().tobytes()
    for label, sprite in enumerate(sprites()):
        h, w = sprite.inside.shape
        starts = [len(content), len(content) + 3 * h * w, len(content) + 6 * h * w]
        sheet["sprites"].append({"label": label, "h": h, "w": w, "starts": starts})
        for part in (sprite.light, sprite.through):
            content += part.permute(1, 2, 0).contiguous().numpy().tobytes()
        content += sprite.inside.to(torch.uint8).numpy().tobytes()
    return sheet, zlib.compress(content, 9)


def compose(ground: int, items: list[Item]) -> tuple[Tensor, Tensor]:
    """The picture that the page shows, uint8 (3, SIZE, SIZE), and whose pixel each is: (SIZE, SIZE), -1 the ground's.

    A pixel of the picture looks up its place in the sprite, turned back and scaled back, between four of its pixels.
    """
    canvas = draw_ground(GROUNDS[ground], PALETTE, SIZE).double().numpy()
    owner, drawn = np.full((SIZE, SIZE), -1), sprites()
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    for k in sorted(range(len(items)), key=lambda k: items[k].z):
        item, sprite = items[k], drawn[items[k].sprite]
        h, w = sprite.inside.shape
        cos, sin = (f(item.turn * math.pi / 180) / item.size for f in (math.cos, math.sin))
        dx, dy = x - item.x, y - item.y
        u, v = dx * cos + dy * sin + w // 2, dy * cos - dx * sin + h // 2
        through = _between(sprite.through.numpy(), u, v, 255)
        canvas = _between(sprite.light.numpy(), u, v, 0) + through * canvas / 255
        owner[_between(sprite.inside.numpy()[None], u, v, 0)[0] > 0.5] = k
    image = np.floor(np.clip(canvas, 0, 255) + 0.5).astype(np.uint8)
    return torch.from_numpy(image), torch.from_numpy(owner)


def _between(picture: np.ndarray, u: np.ndarray, v: np.ndarray, outside: float) -> np.ndarray:
    """(c, h, w) at columns u and rows v, bilinear; `outside` where there is none."""
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    framed = np.pad(picture.astype(float), ((0, 0), (1, 1), (1, 1)), constant_values=outside)
    value = np.zeros((len(picture), *u.shape))
    for row in (top, top + 1):
        for column in (left, left + 1):
            weight = (1 - np.abs(v - row)) * (1 - np.abs(u - column))
            i, j = (np.clip(n + 1, 0, m - 1) for n, m in ((row, framed.shape[1]), (column, framed.shape[2])))
            value = value + weight * framed[:, i, j]
    return value


def true_boxes(owner: Tensor, count: int) -> list[list[int] | None]:
    """Tight around what is in sight of each object, as in the data set; None: hardly anything is."""
    boxes = []
    for k in range(count):
        rows, columns = torch.nonzero(owner == k, as_tuple=True)
        seen = len(rows) >= LEAST_AREA * owner.numel()
        sides = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if seen else []
        boxes.append([int(side) for side in sides] if seen else None)
    return boxes


class Verdict(NamedTuple):
    """How one object of the scene is found."""

    score: float  # of the box that is kept for it; 0: none is
    fit: float  # IoU of that box with the object
    best_score: float  # of the box of its class that fits best; 0: there is none
    best_fit: float


def judge(model: Detector, image: Tensor, boxes: list, labels: list[int]) -> list[Verdict]:
    """For every object: the box that is kept, and the best that was offered.

    A box is about the object of its class that it overlaps most, with an IoU of at least NEAR.

    Args:
        model: makes the predictions.
        image: uint8 (3, h, w).
        boxes, labels: of the objects; a box may be None, then its object is not there.
    """
    with torch.no_grad():
        candidates = model.candidates(model.raw([image]), [image])
    detect = model.recipe.detect
    offered = Detections(*pool(candidates, 0, (image.shape[1], image.shape[2]), detect))
    kept = suppress(*offered, detect)
    return [
        Verdict(*_first(kept, k, boxes, labels, by_fit=False), *_first(offered, k, boxes, labels, by_fit=True))
        for k in range(len(boxes))
    ]


def _first(found: Detections, k: int, boxes: list, labels: list[int], by_fit: bool) -> tuple[float, float]:
    """(score, IoU) of whichever box about object k is first, by its score or by its fit; (0, 0): there is none."""
    alike = [n for n, box in enumerate(boxes) if box and labels[n] == labels[k]]
    if k not in alike:
        return 0.0, 0.0
    fits = torch.stack([iou(found.boxes, torch.tensor(boxes[n]).float()) for n in alike])  # (objects, D)
    fit = fits[alike.index(k)]
    about = (found.labels == labels[k]) & (fit >= NEAR) & (fit == fits.amax(0))
    if not about.any():
        return 0.0, 0.0
    n = (fit if by_fit else found.scores).where(about, -1).argmax()
    return float(found.scores[n]), float(fit[n])


# ---- The explorer ---------------------------------------------------------------------------------------------------


class DetectorExplorer(anywidget.AnyWidget):
    """A scene to compose, and what a VarifocalNet says about it.  Make one with :meth:`of`.

    The state that moves, in step with the page: ``scene`` (which of the prepared ones), ``items`` (an :class:`Item`
    each), ``chosen`` (which of them is talked about), ``view`` ("kept", "all" or "cell"), ``cell`` and ``least`` (the
    lowest score that is shown).
    """

    _esm = script("detector")
    _css = STYLE

    manifest = traitlets.Dict(help="settings, and where each weight lies").tag(sync=True)
    weights = traitlets.Bytes(help="deflated").tag(sync=True)
    sheet = traitlets.Dict(help="where each ground and sprite lies").tag(sync=True)
    pictures = traitlets.Bytes(help="deflated").tag(sync=True)
    scenes = traitlets.List(help="{name, ground, items} of each prepared scene").tag(sync=True)
    still = traitlets.Unicode(help="data URL of the first scene: for a browser that lacks something").tag(sync=True)

    scene = traitlets.Int(0).tag(sync=True)
    items = traitlets.List(help="[sprite, x, y, degrees, size, z] of each object").tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)
    view = traitlets.Enum(["kept", "all", "cell"], "kept").tag(sync=True)
    cell = traitlets.List(traitlets.Int(), help="level, row, column; []: of the chosen object").tag(sync=True)
    least = traitlets.Float(0.3).tag(sync=True)

    @classmethod
    def of(cls, model: Detector) -> "DetectorExplorer":
        """`model` in the page, its kernels rounded to int8, and the scenes of :data:`SCENES`.

        Raises:
            UserError: the model is not a VFNet of the kind that ``vfnet.js`` computes, or of other classes.
        """
        return cls(**travelling(model))


def travelling(model: Detector) -> dict:
    """What goes into a page where a scene is composed and `model` looks at it: the traits that do not change.

    Raises:
        UserError: the model is not a VFNet of the kind that ``vfnet.js`` computes, or of other classes.
    """
    if model.classes != CLASSES:
        raise UserError("the scenes are made of ShapeScenes' classes", remedy="give it vfnet_tiny")
    manifest, weights = packed(model)
    sheet, pictures = packed_pictures()
    scenes = [
        {"name": name, "ground": GROUNDS.index(ground), "items": [list(item) for item in items_of(name)]}
        for name, (ground, _) in SCENES.items()
    ]
    image, _ = scene(next(iter(SCENES)))
    seen = render(image, eight_bits(model)([image])[0], CLASSES, zoom=3)
    return {
        "manifest": manifest,
        "weights": weights,
        "sheet": sheet,
        "pictures": pictures,
        "scenes": scenes,
        "still": data_url(Image.fromarray(seen), "JPEG", quality=80, optimize=True),
        "items": scenes[0]["items"],
    }


def items_of(name: str) -> list[Item]:
    """The objects of a prepared scene, from back to front."""
    objects = enumerate(SCENES[name][1])
    return [Item(CLASSES.index(kind), x, y, turn, size, z) for z, (kind, x, y, turn, size) in objects]


def scene(name: str) -> tuple[Tensor, dict]:
    """A prepared scene: image uint8 (3, SIZE, SIZE) and its target, "boxes" (G, 4) and "labels" (G,)."""
    items = items_of(name)
    image, owner = compose(GROUNDS.index(SCENES[name][0]), items)
    boxes = true_boxes(owner, len(items))
    return image, {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor([item.sprite for item in items])}
