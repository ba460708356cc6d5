"""The star of chapter 11, on a photograph: drag the box, and see where its nine samples go and what they read."""

from pathlib import Path

import anywidget
import torch
import traitlets
from PIL import Image

from vfnet_edu.ops.star.operator import star_offsets
from vfnet_edu.widgets.front_end import STYLE, data_url, script

LARGEST = 450  # pixels along a side: what a page shows, in a JPEG of some 30 kB


class StarExplorer(anywidget.AnyWidget):
    """A box around a point of a photograph, its star, and beside it the fixed 3x3 grid of the same cell.

    The photograph plays the feature map: each cell holds the mean colour of the stride x stride pixels around its
    point, and star and grid read these cells, with interpolation and 0 outside, as the convolutions do.  With a true
    box, the IoU is shown, and two toy scores: how alike the nine readings are to those on the true box, 1 for equal.

    Args:
        photo: an image file or a PIL image; it is made smaller and cut to whole cells of 32 pixels.
        traits: where to start; see below.
    """

    _esm = script("star")
    _css = STYLE

    image = traitlets.Unicode(help="the photograph, a JPEG as a data URL").tag(sync=True)
    size = traitlets.List(traitlets.Int(), help="width, height in pixels").tag(sync=True)
    point = traitlets.List(traitlets.Int(), [192, 144], help="x, y in pixels, on the grid of the stride").tag(sync=True)
    ltrb = traitlets.List(
        traitlets.Float(min=0), [76.0, 128.0, 92.0, 112.0], help="distances of the sides from the point, pixels"
    ).tag(sync=True)
    stride = traitlets.Int(8, help="pixels per cell: 8, 16 or 32").tag(sync=True)
    truth = traitlets.List(traitlets.Float(), help="a true box x1, y1, x2, y2: its IoU and toy scores are shown").tag(
        sync=True
    )
    grid = traitlets.Bool(True, help="whether the 3x3 grid is drawn, too").tag(sync=True)

    def __init__(self, photo: str | Path | Image.Image, **traits):
        photo = photo if isinstance(photo, Image.Image) else Image.open(photo)
        photo = fit(photo.convert("RGB"))
        super().__init__(image=data_url(photo, "JPEG", quality=75, optimize=True), size=list(photo.size), **traits)

    @property
    def offsets(self) -> torch.Tensor:
        """(9, 2): (dy, dx) of every tap in cells, what the table shows."""
        ltrb = torch.tensor(self.ltrb, dtype=torch.float64).view(1, 4, 1, 1)
        return star_offsets(ltrb, self.stride).view(9, 2)


def fit(photo: Image.Image) -> Image.Image:
    """Not larger than :data:`LARGEST`, in whole cells of 32 pixels: the rest, on the right and below, is cut off."""
    factor = min(1.0, LARGEST / max(photo.size))
    width, height = (round(side * factor) for side in photo.size)
    photo = photo.resize((width, height))
    return photo.crop((0, 0, width // 32 * 32, height // 32 * 32))
