"""Draw the one picture of the architecture, which opens the book and stands at the head of every chapter.

    python book/architecture.py

writes book/_templates/architecture.html.  `PARTS` says everything: where a part stands, what it is called, its file,
the chapters about it, and the shapes of what it returns (tests/test_architecture.py compares them with the models).
book/_static/architecture.js makes the picture alive.
"""

from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "book/_templates/architecture.html"
WIDTH, HEIGHT = 400, 302

Shapes = dict[str, tuple[int, ...]]
PYRAMID = {"P3": (100, 168), "P4": (50, 84), "P5": (25, 42), "P6": (13, 21), "P7": (7, 11)}  # rows, columns of cells
SMALL = {"P3": (16, 16), "P4": (8, 8), "P5": (4, 4)}
CELLS, FEW = sum(h * w for h, w in PYRAMID.values()), sum(h * w for h, w in SMALL.values())


class Part(NamedTuple):
    key: str
    lines: tuple[str, ...]  # what is written into its box
    box: tuple[int, int, int, int]  # x, y, width, height
    says: str  # what it does, one sentence
    file: str  # inside vfnet_edu/
    chapters: tuple[int, ...]
    large: Shapes  # VFNet R-50, an image of 800 x 1333; without the batch
    small: Shapes  # vfnet_tiny, an image of 128 x 128


def maps(channels: int, levels: dict[str, tuple[int, int]]) -> Shapes:
    return {name: (channels, *cells) for name, cells in levels.items()}


def rows(name: str, *columns: int) -> tuple[Shapes, Shapes]:
    """One row for each cell of all levels."""
    return {name: (CELLS, *columns)}, {name: (FEW, *columns)}


PARTS = (
    Part("image", ("image",), (4, 10, 60, 40), "Scaled, then padded with zeros to multiples of 32.",
         "data/images.py", (1,), {"image": (3, 800, 1344)}, {"image": (3, 128, 128)}),
    Part("backbone", ("backbone", "C3 C4 C5"), (86, 10, 96, 40), "A ResNet: three maps, each half as large as before.",
         "models/backbones/resnet.py", (4,),
         {"C3": (512, 100, 168), "C4": (1024, 50, 84), "C5": (2048, 25, 42)},
         {"C3": (40, 16, 16), "C4": (80, 8, 8), "C5": (160, 4, 4)}),
    Part("pyramid", ("pyramid", "P3 P4 P5 P6 P7"), (204, 10, 192, 40), "One map for each size of object.",
         "models/necks.py", (1, 4), maps(256, PYRAMID), maps(64, SMALL)),
    Part("cls_tower", ("class tower",), (20, 174, 90, 34), "Convolutions that prepare the score.",
         "models/layers.py", (), maps(256, PYRAMID), maps(64, SMALL)),
    Part("reg_tower", ("box tower",), (20, 86, 90, 34), "Convolutions that prepare the box.",
         "models/layers.py", (), maps(256, PYRAMID), maps(64, SMALL)),
    Part("box", ("first box",), (136, 86, 96, 34), "Four distances from each cell's point to the sides of a box.",
         "models/heads/vfnet.py", (5, 12), *rows("boxes", 4)),
    Part("star", ("star", "9 points"), (136, 130, 96, 38), "Reads both branches at nine points of the first box.",
         "ops/star/operator.py", (11, 12, 13), maps(256, PYRAMID), maps(64, SMALL)),
    Part("refined", ("better box",), (286, 86, 96, 34), "The first box times four factors.",
         "models/heads/vfnet.py", (12,), *rows("boxes", 4)),
    Part("score", ("score",), (286, 174, 96, 34), "For each class the IoU that the box is expected to have.",
         "models/heads/vfnet.py", (1, 8, 9, 10), {"logits": (CELLS, 80)}, {"logits": (FEW, 8)}),
    Part("atss", ("who learns", "ATSS"), (12, 250, 84, 44), "Decides which cells learn which object.",
         "assigners.py", (5, 6), *rows("objects")),
    Part("loss", ("losses", "VFL, GIoU"), (116, 250, 84, 44), "How wrong the scores and both boxes are.",
         "losses.py", (2, 7, 9, 10), {"three numbers": ()}, {"three numbers": ()}),
    Part("nms", ("NMS",), (226, 250, 66, 44), "Of boxes that overlap, only the one with the highest score stays.",
         "postprocess.py", (1, 15), {"boxes, at most": (100, 4)}, {"boxes, at most": (100, 4)}),
    Part("ap", ("judge", "AP"), (312, 250, 84, 44), "Compares the ranked list of boxes with the objects.",
         "evaluation/scores.py", (3, 8, 16, 17), {"one number": ()}, {"one number": ()}),
)  # fmt: skip
ALL_OF_IT = (0, 14, 18)  # chapters about the whole picture

ARROWS = (  # points of a line, x y
    "64 30 86 30", "182 30 204 30",
    "300 50 300 64", "64 64 64 86", "64 75 12 75 12 191 20 191",
    "110 103 136 103", "110 191 122 191 122 155 136 155", "123 103 123 142 136 142",
    "184 120 184 130", "232 142 258 142 258 103 286 103", "232 155 258 155 258 191 286 191",
    "232 103 286 103", "334 216 334 232 259 232 259 250", "60 216 60 250", "96 272 116 272", "292 272 312 272",
)  # fmt: skip


def drawing() -> str:
    """The whole figure: what the page shows, and in `data-` attributes what it tells."""
    frame = (
        '<rect class="frame" x="4" y="64" width="392" height="152" rx="8"/>'
        '<text class="note" x="388" y="79" text-anchor="end">the head: the same for every level</text>'
        '<text class="note" x="66" y="237" text-anchor="start">to learn</text>'
        '<text class="note" x="265" y="245" text-anchor="start">to answer</text>'
    )
    lines = [f'<polyline points="{points}"/>' for points in ARROWS]
    return "\n".join(
        [
            f'<figure class="architecture" data-whole="{_numbers(ALL_OF_IT)}">',
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="VarifocalNet, from image to boxes">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
            '<path d="M0 0L8 4L0 8Z"/></marker></defs>',
            frame,
            *lines,
            *map(_part, PARTS),
            "</svg>",
            '<figcaption aria-live="polite">From an image to boxes.</figcaption>',
            "</figure>\n",
        ]
    )


def _part(part: Part) -> str:
    x, y, w, h = part.box
    first = y + h / 2 + 4.5 - 7.5 * (len(part.lines) - 1)
    words = [
        f'<text class="{"second" if n else "first"}" x="{x + w / 2:g}" y="{first + 15 * n:g}">{escape(line)}</text>'
        for n, line in enumerate(part.lines)
    ]
    told = {
        "key": part.key,
        "name": ", ".join(part.lines),
        "says": part.says,
        "file": part.file,
        "chapters": _numbers(part.chapters),
        "large": _shapes(part.large),
        "small": _shapes(part.small),
    }
    data = " ".join(f'data-{key}="{escape(value)}"' for key, value in told.items())
    return (
        f'<g class="part" role="button" tabindex="0" aria-label="{escape(told["name"])}" {data}>'
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6"/>{"".join(words)}</g>'
    )


def _numbers(chapters: tuple[int, ...]) -> str:
    return " ".join(map(str, chapters))


def _shapes(shapes: Shapes) -> str:
    """P3 256 × 100 × 168, P4 256 × 50 × 84: no line breaks within a shape"""
    written = (f"{name} {' × '.join(f'{n:,}' for n in shape)}".strip() for name, shape in shapes.items())
    return ", ".join(one.replace(" ", "\N{NO-BREAK SPACE}") for one in written)


if __name__ == "__main__":
    TARGET.write_text(drawing(), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")
