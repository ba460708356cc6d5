"""Draw the systems of the results tables for book/systems.md: a card for each row, from its recipe.

    python book/system_cards.py

writes book/_templates/system_cards.html.  A picture shows `look(recipe)` and marks what differs from the look of the
row that it is compared with (`GROUPS`); what was verified, and the parameters, are read from the README's tables.
tests/test_system_cards.py compares the looks with the models and the marks with `config.difference`.
"""

import inspect
import json
import textwrap
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import NamedTuple

from vfnet_edu import recipes
from vfnet_edu.models.backbones.res2net import Res2NetConfig
from vfnet_edu.models.heads.atss import ATSSConfig
from vfnet_edu.models.heads.foveabox import FoveaBoxConfig
from vfnet_edu.models.heads.reppoints import RepPointsConfig
from vfnet_edu.models.heads.retinanet import RetinaNetConfig
from vfnet_edu.models.heads.vfnet import VFNetConfig
from vfnet_edu.models.necks import PAFPNConfig
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime import config

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "book/_templates/system_cards.html"

GROUPS = {  # group -> its rows, each with the row that it is compared with
    "r50": {
        "vfnet_r50_1x": None,
        "vfnet_r50_ms_2x": "vfnet_r50_1x",
        "vfnet_r50_dcn_ms_2x": "vfnet_r50_ms_2x",
    },
    "r101": {
        "vfnet_r101_1x": "vfnet_r50_1x",
        "vfnet_r101_2x": "vfnet_r101_1x",
        "vfnet_r101_ms_2x": "vfnet_r101_2x",
        "vfnet_r101_dcn_ms_2x": "vfnet_r101_ms_2x",
    },
    "x101": {
        "vfnet_x101_32x4d_ms_2x": "vfnet_r101_ms_2x",
        "vfnet_x101_32x4d_dcn_ms_2x": "vfnet_x101_32x4d_ms_2x",
        "vfnet_x101_64x4d_ms_2x": "vfnet_x101_32x4d_ms_2x",
        "vfnet_x101_64x4d_dcn_ms_2x": "vfnet_x101_64x4d_ms_2x",
    },
    "r2": {
        "vfnet_r2_101_ms_2x": "vfnet_r101_ms_2x",
        "vfnet_r2_101_dcn_ms_2x": "vfnet_r2_101_ms_2x",
    },
    "vfnetx": {
        "vfnetx_r2_101_800": "vfnet_r2_101_dcn_ms_2x",
        "vfnetx_r2_101_1200": "vfnetx_r2_101_800",
    },
    "hosts": {
        "retinanet_r50_fl_1x": "vfnet_r50_1x",
        "retinanet_r50_vfl_1x": "retinanet_r50_fl_1x",
        "foveabox_r50_fl_1x": "vfnet_r50_1x",
        "foveabox_r50_vfl_1x": "foveabox_r50_fl_1x",
        "reppoints_r50_fl_1x": "vfnet_r50_1x",
        "reppoints_r50_vfl_1x": "reppoints_r50_fl_1x",
        "atss_r50_fl_1x": "vfnet_r50_1x",
        "atss_r50_vfl_1x": "atss_r50_fl_1x",
    },
}
ROWS = {row: against for group in GROUPS.values() for row, against in group.items()}
LOSSES = {"varifocal": "VFL", "focal": "FL"}
CHECKS = ("keys", "outputs", "gradients", "trained")


# ---- What a recipe looks like ----------------------------------------------------------------------------------------


class Head(NamedTuple):
    """What a head's config does not say in numbers."""

    name: str
    norm: bool  # GroupNorm in its towers
    place: str  # where its predictions start
    learns: str  # who is positive
    boxes: str  # the losses of its boxes
    outputs: tuple[str, ...]  # score; box; what comes of it


def head_of(recipe: Recipe) -> Head:
    head = recipe.head
    if isinstance(head, VFNetConfig):
        return Head("VFNet", True, "a point", "ATSS", "GIoU for both boxes", ("score", "box", "refined"))
    if isinstance(head, ATSSConfig):
        place = f"square, {head.anchor_size:g} strides"
        return Head("ATSS", True, place, "ATSS", "GIoU for boxes, centerness", ("score", "box", "centerness"))
    if isinstance(head, RetinaNetConfig):
        n = len(head.anchor_sizes) * len(head.anchor_ratios)
        at_least = f"IoU\N{NO-BREAK SPACE}≥\N{NO-BREAK SPACE}{head.positive_iou:g}"
        return Head("RetinaNet", False, f"{n} anchors", at_least, "L1 for boxes", (f"{n} scores", f"{n} boxes"))
    if isinstance(head, FoveaBoxConfig):
        return Head(
            "FoveaBox",
            False,
            "a cell's centre",
            f"the middle {head.shrink:.0%}",
            "smooth L1 for boxes",
            ("score", "box"),
        )
    assert isinstance(head, RepPointsConfig)
    at_least = f"IoU\N{NO-BREAK SPACE}≥\N{NO-BREAK SPACE}{head.positive_iou:g}"
    return Head(
        "RepPoints",
        True,
        "a point",
        f"the nearest, then {at_least}",
        "smooth L1 for both boxes",
        ("score", "box", "refined"),
    )


class Block(NamedTuple):
    """One residual block of a backbone, and how many make up its stages."""

    kind: str
    parts: int  # groups of the 3x3 convolution, or parts that it is split into
    width: int  # channels of each, in C2

    def __str__(self) -> str:
        return {"ResNet": "1 group", "ResNeXt": f"{self.parts} groups", "Res2Net": f"{self.parts} parts"}[self.kind]


def block_of(recipe: Recipe) -> Block:
    backbone = recipe.backbone
    if isinstance(backbone, Res2NetConfig):
        return Block("Res2Net", backbone.scales, backbone.base_width)
    return Block("ResNet" if backbone.groups == 1 else "ResNeXt", backbone.groups, backbone.group_width)


def stages_of(recipe: Recipe) -> dict[str, tuple]:
    """C2 to C5 -> kind, blocks, deformable, frozen"""
    backbone, kind = recipe.backbone, block_of(recipe).kind
    return {
        f"C{i + 1}": (kind, n, backbone.dcn and i > 1, i <= backbone.frozen_stages)
        for i, n in enumerate(backbone.blocks, start=1)
    }


def look(recipe: Recipe) -> dict[str, tuple]:
    """Everything a picture shows, by the part that shows it.  The first word of a key: the part of the recipe."""
    head, neck, backbone, says = recipe.head, recipe.neck, recipe.backbone, head_of(recipe)
    augment, optim = recipe.data.augment, recipe.optim
    up = isinstance(neck, PAFPNConfig)
    gpus = (recipe.data.batch_size // recipe.data.images_per_gpu, recipe.data.images_per_gpu)
    return {
        **{f"backbone {stage}": of for stage, of in stages_of(recipe).items()},
        "backbone block": (*block_of(recipe), backbone.dcn),
        "neck levels": (up, neck.channels, up or neck.norm),
        "neck extra": ("p5" if up else neck.extra_from,),
        "neck relu": (up or neck.relu_before_p7,),
        "head name": (says.name,),
        "head towers": (head.channels, head.depth, says.norm, getattr(head, "dcn", False)),
        "head reads": says.outputs,
        "head place": (says.name, says.place, says.learns),
        "loss": (LOSSES[head.loss], head.alpha, head.gamma, says.boxes),
        "images": (augment.short_side, augment.long_side, augment.crop, augment.cutout),
        "training": (optim.epochs, optim.drop_at, recipe.swa.epochs, optim.bias_lr, optim.warmup_start, *gpus),
        "test": (recipe.data.test_scale, recipe.detect.nms, recipe.detect.nms_iou),
    }


def differing(recipe: Recipe, other: Recipe | None) -> set[str]:
    """The keys of `look` that differ."""
    old = look(other) if other else look(recipe)
    return {key for key, value in look(recipe).items() if old[key] != value}


def words(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """The same in words: part of the recipe -> phrases, each of which can differ by itself."""
    seen, block, says = look(recipe), block_of(recipe), head_of(recipe)
    blocks = [of[1] for of in stages_of(recipe).values()]
    up, channels, norm = seen["neck levels"]
    wide, depth, norm_in_towers, dcn = seen["head towers"]
    name, alpha, gamma, boxes = seen["loss"]
    short, long, crop, cutout = seen["images"]
    return {
        "backbone": (
            f"{block.kind}-{3 * sum(blocks) + 2}",
            f"{'-'.join(map(str, blocks))} blocks",
            f"{block} of {block.width} channels",
            "DCNv2 in C3, C4, C5" if recipe.backbone.dcn else "no DCN",
        ),
        "neck": (
            "PAFPN: a way back up, then DCNv2" if up else "FPN",
            f"{channels} channels",
            "GroupNorm" if norm else "no norm",
            "P6 from P5" if seen["neck extra"] == ("p5",) else "P6 from C5",
            "ReLU before P7" if seen["neck relu"][0] else "no ReLU before P7",
        ),
        "head": (
            says.name,
            f"{wide} channels",
            f"{depth} convolutions a tower",
            "GroupNorm" if norm_in_towers else "no norm",
            "DCNv2 at the end of both towers" if dcn else "no DCN",
            f"starts from {says.place}",
            f"positive: {says.learns}",
            f"gives {', '.join(says.outputs)}",
        ),
        "loss": (f"{name} with alpha {alpha:g}, gamma {gamma:g}", boxes),
        "images": (
            f"short side {span(short)}",
            f"long side {span(long)}",
            "cropped" if crop else "not cropped",
            "CutOut" if cutout else "no CutOut",
        ),
        "training": schedule(recipe),
        "test": (size(recipe), f"{NMS[recipe.detect.nms]} at {recipe.detect.nms_iou:g}"),
    }


def schedule(recipe: Recipe) -> tuple[str, ...]:
    optim, (*_, gpus, each) = recipe.optim, look(recipe)["training"]
    first, last = optim.drop_at
    return (
        f"{optim.epochs} epochs",
        f"a tenth of the rate after {first} and {last}",
        f"{recipe.swa.epochs or 'no'} epochs of weight averaging",
        f"{gpus} GPUs × {each} images",
        "biases like other weights" if optim.bias_lr == 1 else "biases twice as fast",
        f"warm-up from {optim.warmup_start:g}",
    )


NMS = {"hard": "NMS", "linear": "soft-NMS"}


def span(lengths: tuple[int, int]) -> str:
    return "–".join(map(str, dict.fromkeys(lengths)))


def size(recipe: Recipe) -> str:
    return " × ".join(map(str, recipe.data.test_scale))


# ---- The picture -----------------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 344, 256
ROW = {"P7": 16, "P6": 44, "P5": 72, "P4": 100, "P3": 128, "C5": 72, "C4": 100, "C3": 128, "C2": 161}  # y of the middle
STRIPS = {"loss": 190, "training": 208, "images": 228, "test": 247}  # y of the base line
MARKS = {  # key of `look` -> x, y, width, height of what is marked when it differs
    **{f"backbone {stage}": (-4, ROW[stage] - 11, 135, 22) for stage in ("C3", "C4", "C5")},
    "backbone C2": (-4, ROW["C2"] - 11, 46, 22),
    "backbone block": (46, 148, 132, 27),
    "neck levels": (134, 5, 46, 134),
    "neck extra": (128, 34, 52, 25),
    "neck relu": (151, 23, 32, 13),
    "head name": (190, 6, 154, 160),
    "head towers": (193, 28, 43, 63),
    "head reads": (237, 28, 105, 78),
    "head place": (193, 109, 150, 50),
    **{strip: (-4, y - 14, 352, 19) for strip, y in STRIPS.items()},
}
PITCH = 4  # a block of a stage
AXIS = (54, 200, 400, 2100)  # from, to; shortest, longest side of an image


def picture(recipe: Recipe, other: Recipe | None) -> str:
    new = differing(recipe, other)
    if "head name" in new:  # all of it
        new -= {"head towers", "head reads", "head place"}
    marks = [rect(MARKS[key], "mark", rx=4) for key in MARKS if key in new]
    described = ". ".join(f"{part}: {', '.join(phrases)}" for part, phrases in words(recipe).items())
    parts = [backbone(recipe), neck(recipe), head(recipe), strips(recipe)]
    name = recipe.name
    return (
        f'<svg viewBox="-4 0 {WIDTH + 8} {HEIGHT}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{name}, its parts</title><desc id="{name}-d">{escape(described)}.</desc>'
        f'{"".join(marks)}<use href="#s-frame"/>{"".join(parts)}</svg>'
    )


def rect(box: tuple[float, ...], kind: str, rx: float = 0) -> str:
    x, y, w, h = box
    rounded = f' rx="{rx:g}"' if rx else ""
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}"{rounded}/>'


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text class="s-t{" " * bool(kind)}{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def line(points: str, kind: str = "s-line") -> str:
    """An arrow along x y x y ..."""
    return f'<polyline class="{kind}" points="{points}"/>'


def backbone(recipe: Recipe) -> str:
    """Its stages as rows of blocks, and one block from the side."""
    block, blocks = block_of(recipe), recipe.backbone.blocks
    drawn, pale = [text(0, 21, f"{block.kind}-{3 * sum(blocks) + 2}", "s-b")], ' class="s-frozen"'
    for stage, (kind, n, dcn, frozen) in stages_of(recipe).items():
        y, w = ROW[stage], PITCH * n
        box = f'x="18" y="{y - 7}" width="{w}" height="14" fill="url(#s-{kind}{"-dcn" * dcn})"'
        drawn.append(f"<rect {box}{pale * frozen}/>{text(20 + w, y + 4, str(n), 's-m')}")
        if stage != "C2":
            drawn.append(line(f"{19 + w + 8 * len(str(n))} {y} 137 {y}"))
    return "".join(drawn) + waist(block, recipe.backbone.dcn) + text(80, 165, f"{block} of {block.width}")


def waist(block: Block, dcn: bool) -> str:
    """An hourglass: 256 channels, fewer in the 3x3, 256 again."""
    x, middle, w, kind = 58, ROW["C2"], 9, "s-conv" + " s-dcn" * dcn
    shown = {"ResNet": 1, "ResNeXt": block.parts // 8, "Res2Net": block.parts}[block.kind]  # as many as one can tell
    h = 24 * block.parts * block.width / 256
    top, part = middle - h / 2, h / shown
    bars = [rect((50, middle - 12, 4, 24), "s-conv"), rect((71, middle - 12, 4, 24), "s-conv")]
    if block.kind == "Res2Net":  # each part is convolved with what the one before has found; the last passes as it is
        bars += [rect((x - 1 + 2.5 * i, top + part * i, 5, part - 0.8), kind) for i in range(shown - 1)]
        bars.append(line(f"{x - 1} {top + h - 1:g} {x + 10} {top + h - 1:g}", "s-line s-plain"))
    else:
        bars += [rect((x, top + part * i, w, part - 1.2 * (shown > 1)), kind) for i in range(shown)]
    return "".join(bars)


def neck(recipe: Recipe) -> str:
    seen = look(recipe)
    up, channels, norm = seen["neck levels"]
    w, drawn = channels // 10, []
    for level in LEVELS:
        dcn = up and level in ("P3", "P4", "P5")
        drawn.append(
            rect((138, ROW[level] - 7, w, 14), "s-conv" + (" s-dcn" if dcn else "" if norm else " s-bare"), rx=2)
        )
        drawn.append(text(142, ROW[level] + 4, level, "s-s" + " s-in" * (norm or dcn)))
        drawn.append(line(f"{138 + w} {ROW[level]} 183 {ROW[level]}", "s-line s-plain"))
    for above, below in (("P5", "P4"), ("P4", "P3")):
        drawn.append(line(f"145 {ROW[above] + 7} 145 {ROW[below] - 8}"))
        if up:
            drawn.append(line(f"168 {ROW[below] - 7} 168 {ROW[above] + 8}"))
    from_c5 = seen["neck extra"] == ("c5",)
    drawn.append(line("132 72 132 44 137 44" if from_c5 else f"150 {ROW['P5'] - 7} 150 {ROW['P6'] + 8}"))
    drawn.append(line("150 37 150 24"))
    if seen["neck relu"][0]:
        drawn.append(text(155, 34, "ReLU", "s-s"))
    return "".join(drawn) + text(183, 149, f"{'PAFPN' if up else 'FPN'}, {channels}", "s-s s-end")


def head(recipe: Recipe) -> str:
    says, config = head_of(recipe), recipe.head
    height = 12 * config.channels / 256
    drawn = [text(198, 21, f"{says.name} head", "s-b")]
    for y, name in ((47, "class"), (82, "box")):
        drawn.append(text(198, y - 11, name, "s-s"))
        for i in range(config.depth):
            last = i == config.depth - 1 and getattr(config, "dcn", False)
            kind = "s-conv" + " s-bare" * (not says.norm) + " s-dcn" * last
            drawn.append(rect((198 + 9 * i, y - height / 2, 7.5, height), kind))
    return "".join(drawn) + reads(says, 197 + 9 * config.depth) + place(recipe)


def reads(says: Head, x: int) -> str:
    """From the towers, which end at x, to what the head says."""
    score, box, *more = says.outputs
    if more == ["refined"]:
        points = "s-star" if says.name == "VFNet" else "s-nine"
        arrows = (f"{x} 47 269 47", f"{x} 82 239 82", "264 82 269 82")
        return (
            f"{''.join(map(line, arrows))}{line('251 73 251 57 269 57', 's-line s-dash')}{text(241, 86, box)}"
            f'<use href="#{points}" x="279" y="47"/><use href="#{points}" x="279" y="82"/>'
            f"{text(291, 51, score)}{text(291, 86, more[0])}"
        )
    drawn = line(f"{x} 47 272 47") + line(f"{x} 82 272 82") + text(275, 51, score) + text(275, 86, box)
    if more:
        drawn += line(f"{x + 6} 82 {x + 6} 99 272 99") + text(275, 103, more[0])
    return drawn


def place(recipe: Recipe) -> str:
    """Cells of a level, and what a prediction starts from: a corner of a cell, but for FoveaBox."""
    says, head = head_of(recipe), recipe.head
    x, y = (220.5, 135.5) if says.name == "FoveaBox" else (216, 131)
    drawn = ['<use href="#s-cells"/>']
    sizes = [(s * r**-0.5, s * r**0.5) for s in getattr(head, "anchor_sizes", ()) for r in head.anchor_ratios]
    if isinstance(head, ATSSConfig):
        sizes = [(head.anchor_size, head.anchor_size)]
    for w, h in sizes:  # three pixels for a stride: anchors are larger than cells, but not as much as it would take
        drawn.append(rect((round(x - 1.5 * w, 1), round(y - 1.5 * h, 1), round(3 * w, 1), round(3 * h, 1)), "s-anchor"))
    if says.name == "RepPoints":
        drawn.append(f'<use href="#s-nine" x="{x}" y="{y}"/>')
    drawn.append(f'<circle class="s-point" cx="{x}" cy="{y}" r="3"/>')
    lines = textwrap.wrap(says.place, 16) + textwrap.wrap(f"positive: {says.learns}", 16)
    top = 136 - 6 * (len(lines) - 1)
    return "".join(drawn) + "".join(text(241, top + 12 * i, line) for i, line in enumerate(lines))


def strips(recipe: Recipe) -> str:
    seen, optim, detect = look(recipe), recipe.optim, recipe.detect
    loss, training, images, test = STRIPS.values()
    name, *_, boxes = seen["loss"]
    short, long, *_ = seen["images"]
    *_, gpus, each = seen["training"]
    epochs = f"{optim.epochs}{f' + {recipe.swa.epochs}' * bool(recipe.swa.epochs)} epochs"
    return "".join(
        (
            line(f"54 {loss - 4} 84 {loss - 4}", f"s-{name}"),
            text(90, loss, name, "s-b") + text(96 + 8 * len(name), loss, f"for scores, {boxes}"),
            rates(optim.epochs, optim.drop_at, recipe.swa.epochs, training),
            text(208, training, f"{epochs}, {gpus} × {each}"),
            range_of(short, images - 1) + range_of(long, images - 7),
            text(208, images, f"{span(short)} × {span(long)}"),
            *(
                f'<circle class="s-point" cx="{along(side):g}" cy="{test - 4}" r="3"/>'
                for side in recipe.data.test_scale
            ),
            text(208, test, f"{size(recipe)}, {'soft' if detect.nms != 'hard' else 'NMS'} {detect.nms_iou:g}"),
        )
    )


def along(side: float) -> float:
    """x of a side of an image"""
    left, right, shortest, longest = AXIS
    return round(left + (right - left) * (side - shortest) / (longest - shortest), 1)


def range_of(lengths: tuple[int, int], y: float) -> str:
    low, high = map(along, lengths)
    return rect((low - 2, y - 2, high - low + 4, 4), "s-range", rx=2)


def rates(epochs: int, drop_at: tuple[int, ...], averaged: int, y: float) -> str:
    """The learning rate over the epochs, each drop a third lower; a tooth for each epoch of averaging."""
    left, wide = AXIS[0], (AXIS[1] - AXIS[0]) / 60
    path, height = f"M{left} {y:g}v-12", 12
    for end in (*drop_at, epochs):
        path += f"H{left + wide * end:.1f}" + "v4.5" * (end != epochs)
        height -= 4.5 * (end != epochs)
    path += f"v{height:g}" + f"v-12l{wide:.2f} 12" * averaged
    return f'<path class="s-rate" d="{path}z"/>'


def frame() -> str:
    """What all pictures share: names, arrows to the head, and the shapes that blocks and points have."""
    names = [text(0, ROW[stage] + 4, stage, "s-m") for stage in ("C2", "C3", "C4", "C5")]
    names += [text(0, y, strip, "s-m") for strip, y in STRIPS.items()]
    arrow = line("183 16 183 128", "s-line s-plain") + line("183 86 190 86")
    sides = "".join(
        f"M{along(side):g} {STRIPS['images'] - 13}V{STRIPS['test'] + 4}" for side in (500, 1000, 1500, 2000)
    )
    cells = "".join(f"M{198 + 9 * i} 113v36M198 {113 + 9 * i}h36" for i in range(5))
    tiles = "".join(tile(kind, dcn) for kind in TILES for dcn in (False, True))
    star = "".join(dot(7 * x, 7 * y) for y in (-1, 0, 1) for x in (-1, 0, 1))
    nine = "".join(
        dot(x, y) for x, y in ((-5, -6), (1, -7), (6, -4), (-7, 0), (0, -1), (7, 2), (-4, 6), (2, 7), (5, 6))
    )
    return (
        '<svg class="s-defs" aria-hidden="true" focusable="false" width="0" height="0"><defs>'
        '<marker id="s-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" orient="auto">'
        f'<path class="s-fill" d="M0 0L8 4L0 8Z"/></marker>{tiles}'
        f'<g id="s-frame">{rect((190, 6, 154, 160), "s-head", rx=6)}{"".join(names)}{arrow}'
        f'<path class="s-grid" d="{sides}"/></g><g id="s-cells"><path class="s-grid" d="{cells}"/></g>'
        f'<g id="s-star">{star}</g><g id="s-nine">{nine}</g></defs></svg>'
    )


LEVELS = ("P7", "P6", "P5", "P4", "P3")
TILES = {  # a block, 3 wide and 14 high
    "ResNet": "M0 0h3v14h-3z",
    "ResNeXt": "M0 0h3v2.6h-3zM0 3.8h3v2.6h-3zM0 7.6h3v2.6h-3zM0 11.4h3v2.6h-3z",
    "Res2Net": "M0 0h1v4.5h1v4.5h1v5h-3z",
}


def tile(kind: str, dcn: bool) -> str:
    name = f"s-{kind}{'-dcn' * dcn}"
    return (
        f'<pattern id="{name}" patternUnits="userSpaceOnUse" x="18" y="9" width="{PITCH}" height="28">'
        f'<path class="{"s-dcn" if dcn else "s-fill"}" d="{TILES[kind]}"/></pattern>'
    )


def dot(x: float, y: float) -> str:
    return f'<circle class="s-dot" cx="{x:g}" cy="{y:g}" r="1.7"/>'


# ---- The card around it ----------------------------------------------------------------------------------------------


def readme() -> dict[str, tuple[str, str]]:
    """Row of the README's tables -> parameters, what was verified."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {name.strip("`"): (first, last) for name, first, *_, last in cells}


def card(name: str, against: str | None, parameters: str, verified: str) -> str:
    recipe, other = recipes.by_name(name), recipes.by_name(against) if against else None
    published = recipe.published
    test_dev = f" / {published.ap_test_dev:.1f}" if published.ap_test_dev else ""
    speed = f", {published.fps_v100:.1f} fps" if published.fps_v100 else ""
    source = escape(inspect.getsource(getattr(recipes, name)).strip())
    return (
        f'<article class="system" id="{name}" aria-labelledby="{name}-h"><h4 id="{name}-h">{name}</h4>'
        f'<p class="ap"><span><b>{published.ap_val:.1f}</b>{test_dev} AP{gain(recipe, other)}</span> '
        f"<span>{parameters}{speed}</span></p>"
        f"{picture(recipe, other)}{changes(recipe, other)}{checks(verified)}{files(recipe)}"
        f'<details><summary>The recipe</summary><pre tabindex="0">{source}</pre></details></article>'
    )


def gain(recipe: Recipe, other: Recipe | None) -> str:
    if not other:
        return ""
    more = round(recipe.published.ap_val - other.published.ap_val, 1)
    return f' <span class="gain">{"+" if more >= 0 else "−"}{abs(more):.1f}</span>'


def changes(recipe: Recipe, other: Recipe | None) -> str:
    """What is new against the row it is compared with, in words."""
    if not other:
        return "<p>Where all other rows start.</p>"
    old = words(other)
    new = {part: [p for p in phrases if p not in old[part]] for part, phrases in words(recipe).items()}
    items = "".join(f"<li><b>{part}</b> {escape(', '.join(phrases))}</li>" for part, phrases in new.items() if phrases)
    return f'<p>Against <a href="#{other.name}">{other.name}</a>:</p><ul>{items}</ul>'


def checks(verified: str) -> str:
    """The README's last column: each of the four kinds of check, done or not, and what else was compared."""
    done, *more = verified.split("; ")
    items = ['<li><a href="#what-was-checked-and-how">Verified</a>:</li>']
    for check in CHECKS:
        yes = check in done.split(", ")
        items.append(f'<li class="yes">{check}</li>' if yes else f'<li class="no"><span>not </span>{check}</li>')
    items += [f'<li class="yes">{escape(claim)}</li>' for claim in more]
    return f'<ul class="checks">{"".join(items)}</ul>'


def files(recipe: Recipe) -> str:
    """Links to the pages of the modules that the recipe's parts come from."""
    modules = [type(part).__module__ for part in (recipe.backbone, recipe.neck, recipe.head)]
    links = [("api/models.html", recipes.__name__)] + [("api/network.html", module) for module in modules]
    shown = (f'<a href="{page}#module-{module}">{module.split(".")[-1]}.py</a>' for page, module in links)
    return f'<p class="files">Files: {", ".join(shown)}</p>'


# ---- The page --------------------------------------------------------------------------------------------------------


def settings() -> dict:
    """What the comparison needs: the rows, and of each setting that differs anywhere its value in each row."""
    rows = {name: config.flatten(recipes.by_name(name)) for name in ROWS}
    for name, leaves in rows.items():
        parts = {part: getattr(recipes.by_name(name), part) for part in ("backbone", "neck", "head")}
        leaves |= {part: type(value).__name__ for part, value in parts.items()}
    order = [field.name for field in fields(Recipe)]
    keys = dict.fromkeys(["backbone", "neck", "head", *(key for leaves in rows.values() for key in leaves)])
    table = {}
    for key in sorted(keys, key=lambda key: order.index(key.split(".")[0])):
        values = [leaves.get(key) for leaves in rows.values()]
        if len(set(values)) > 1 and key not in ("name", "published.checkpoint", "published.drive"):
            table[key] = ["" if value is None else str(value) for value in values]
    return {"rows": list(rows), "settings": table}


def compare() -> str:
    """Choose two rows and see what differs: book/_static/systems.js."""

    def options(chosen: str) -> str:
        return "".join(f"<option{' selected' * (name == chosen)}>{name}</option>" for name in ROWS)

    data = json.dumps(settings(), separators=(",", ":"))
    return (
        '<div class="compare" hidden>'
        f"<p><label>From <select>{options('vfnet_r50_1x')}</select></label> "
        f'<label>to <select>{options("vfnet_r50_dcn_ms_2x")}</select></label></p><p aria-live="polite"></p>'
        '<div class="scroll" tabindex="0" role="group" aria-label="What differs"><table><thead><tr>'
        '<th scope="col">setting</th><th scope="col"></th><th scope="col"></th></tr></thead><tbody></tbody></table>'
        f'</div></div>\n<script type="application/json" id="settings">{data}</script>\n'
        '<script defer src="../_static/systems.js"></script>'
    )


def legend() -> str:
    kinds = {
        "mark": "differs from the row it is compared with",
        "s-conv s-dcn": "deformable: DCNv2",
        "s-conv s-bare": "without a norm",
        "s-fill s-frozen": "frozen",
    }
    items = (
        f'<li><svg viewBox="0 0 24 14" aria-hidden="true">{rect((1, 1, 22, 12), kind, rx=2)}</svg>{meaning}</li>'
        for kind, meaning in kinds.items()
    )
    return f'<ul class="legend">{"".join(items)}<li>✓ verified, ○ not</li></ul>'


def page() -> str:
    """All that systems.md includes: pieces between comments."""
    facts = readme()
    pieces = {"legend": f'<link rel="stylesheet" href="../_static/systems.css">\n{frame()}\n{legend()}'}
    for group, rows in GROUPS.items():
        cards = (card(name, against, *facts[name]) for name, against in rows.items())
        pieces[group] = '<div class="systems">\n' + "\n".join(cards) + "\n</div>"
    pieces["compare"] = compare()
    return "".join(f"<!-- {name} -->\n{piece}\n<!-- end {name} -->\n" for name, piece in pieces.items())


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")
