"""What the chapters' figures share: colours for light and dark paper, one look for each loss, boxes on a picture.

The rest of the look (no ground, sizes readable on a phone) is in chapter.mplstyle.
"""

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

# the colours of chapter.mplstyle, by name
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, INK = (
    "#1b80c4", "#D55E00", "#0a9270", "#bf6a9b", "#b07d00", "#3f97cc", "#7a7a7a",
)  # fmt: skip

# Always in this order, colour and line; the explorers have the same in widgets/common.js.
LOSSES = {
    "FL": {"color": ORANGE, "ls": ":"},
    "VFL 0/1": {"color": PINK, "ls": "-."},  # the control of chapter 10: VFL, asked for 1
    "QFL": {"color": GREEN, "ls": "--"},
    "VFL": {"color": BLUE, "ls": "-"},
}


def picture(ax: Axes, image: Tensor, title: str = "") -> Axes:
    """An image (3, h, w) alone, pixel k on [k, k + 1] as box coordinates have it: no ticks, no grid."""
    height, width = image.shape[-2:]
    ax.imshow(image.permute(1, 2, 0), extent=(0, width, height, 0))
    ax.set_title(title)
    ax.set_axis_off()
    return ax


def outline(
    ax: Axes, boxes: Tensor | Iterable[Sequence[float]], colour: str, ls="-", lw: float = 2, halo: bool = False
) -> Axes:
    """Boxes (N, 4) xyxy as frames; with `halo` a black rim, for a frame that must show on any picture."""
    rows = boxes.tolist() if isinstance(boxes, Tensor) else boxes
    lines = [("black", lw + 1.4, "-"), (colour, lw, ls)]
    for x1, y1, x2, y2 in rows:
        for ink, width, style in lines[not halo :]:
            ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=ink, lw=width, ls=style))
    return ax
