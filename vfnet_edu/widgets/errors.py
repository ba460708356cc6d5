"""The error explorer of chapter 16: a bar for each kind of error, and behind it the errors themselves, worst first."""

import math
from collections.abc import Sequence

import anywidget
import traitlets
from PIL import Image

from vfnet_edu.evaluation.errors import KINDS, ErrorSplit
from vfnet_edu.viz.error_crops import Crop, crop
from vfnet_edu.widgets.front_end import STYLE, data_url, script

TILE, COLUMNS = 96, 6  # pixels of a crop's side, crops in a row of the sheet


def error_bars(name: str, split: ErrorSplit, most: int = 6) -> dict:
    """The errors of one detector, ready for :class:`ErrorExplorer`.

    Args:
        name: what the choice of detectors calls it.
        split: from :func:`vfnet_edu.evaluation.errors.split_errors`; the images are read from the data set's folder.
        most: crops of each kind.

    Returns:
        plain numbers and strings: ``name``; ``ap50``, percent; ``kinds``, each with its ``count``, the AP50 that fixing
        it alone would add (``gain``, percent) and its ``crops``; ``sheet``, one JPEG with all crops, row by row.
    """
    kinds, tiles = [], []
    for kind in KINDS:
        crops = [crop(split, kind, row) for row in split.worst(kind, most).tolist()]
        entries = [{"tile": len(tiles) + n, **_told(one)} for n, one in enumerate(crops)]
        tiles += [Image.fromarray(one.pixels).resize((TILE, TILE), Image.Resampling.BICUBIC) for one in crops]
        gain = round(100 * split.gains[kind], 2)
        kinds.append({"kind": kind, "count": split.counts()[kind], "gain": gain, "crops": entries})
    return {"name": name, "ap50": round(100 * split.ap50(), 2), "kinds": kinds, "sheet": _sheet(tiles)}


def _told(one: Crop) -> dict:
    """Boxes as fractions of the crop's side, and what is said about it."""
    side = one.pixels.shape[0]
    boxes = {"predicted": one.predicted, "true": one.true}
    fractions = {key: box and [round(value / side, 4) for value in box] for key, box in boxes.items()}
    return {**fractions, "says": one.says, "wanted": one.wanted, "iou": round(one.iou, 2)}


def _sheet(tiles: Sequence[Image.Image]) -> str:
    sheet = Image.new("RGB", (COLUMNS * TILE, max(math.ceil(len(tiles) / COLUMNS), 1) * TILE))
    for n, tile in enumerate(tiles):
        sheet.paste(tile, (n % COLUMNS * TILE, n // COLUMNS * TILE))
    return data_url(sheet, "JPEG", quality=80)


class ErrorExplorer(anywidget.AnyWidget):
    """What fixing each kind of error would add; a bar opens its crops.

    Args:
        detectors: from :func:`error_bars`, one or more.
        state: where to start; see below.
    """

    _esm = script("errors")
    _css = STYLE

    detectors = traitlets.List(help="from error_bars").tag(sync=True)
    columns = traitlets.Int(COLUMNS, help="crops in a row of a sheet").tag(sync=True)

    which = traitlets.Int(0, help="number of the detector").tag(sync=True)
    kind = traitlets.Enum(KINDS, "class", help="whose bar is open").tag(sync=True)
    rank = traitlets.Int(1, help="which of its crops is told about, from 1").tag(sync=True)

    def __init__(self, detectors: Sequence[dict], **state):
        super().__init__(detectors=list(detectors), **state)
