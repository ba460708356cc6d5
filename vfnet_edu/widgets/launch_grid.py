"""The programs of chapter 13: choose a cell, and see its tile, the addresses that the tile fetches, and the masks."""

import anywidget
import traitlets

from vfnet_edu.widgets.front_end import STYLE, script

TABLE = """
.ve-lanes { width: 100%; table-layout: fixed; }
.ve .ve-lanes th, .ve .ve-lanes td { padding: 2px 3px; font-size: 12px; overflow-wrap: normal; }
.ve .ve-lanes tr.ve-chosen td { background: var(--ve-panel); font-weight: 700; }
.ve .ve-lanes td.ve-masked { color: var(--ve-soft); }
"""


class LaunchGridExplorer(anywidget.AnyWidget):
    """One launch of the star's forward kernel over three levels of a pyramid: a program for each tile of cells.

    All boxes reach equally far to every side of their point.  Where a fetch is masked, the explorer shows which cell it
    would read without the mask: its address may well be one of the map.

    Args (all of them traits, in step with the page):
        rows, columns: cells of P3; P4 and P5 have half as many each, rounded up.
        tile: cells per program.
        tap: 0 to 8, row by row, as the kernels count them.
        reach: from the point to each side of the box, pixels.
        at: the chosen cell, [level from 0, number of the cell in it].
        channels: of the maps; an address counts numbers.
    """

    _esm = script("launch_grid")
    _css = STYLE + TABLE

    rows = traitlets.Int(7, min=2, max=7).tag(sync=True)
    columns = traitlets.Int(9, min=2, max=9).tag(sync=True)
    tile = traitlets.Int(8, min=1).tag(sync=True)
    tap = traitlets.Int(0, min=0, max=8).tag(sync=True)
    reach = traitlets.Float(12.0, min=0, max=16).tag(sync=True)
    at = traitlets.List(traitlets.Int(), [0, 28], minlen=2, maxlen=2).tag(sync=True)
    channels = traitlets.Int(16, min=1).tag(sync=True)

    @property
    def levels(self) -> list[tuple[int, int, int]]:
        """(rows, columns, stride in pixels) of P3, P4, P5"""
        levels = [(self.rows, self.columns, 8)]
        while len(levels) < 3:
            height, width, stride = levels[-1]
            levels.append((-(-height // 2), -(-width // 2), 2 * stride))
        return levels

    @property
    def program(self) -> int:
        """The number of the program that has the chosen cell."""
        level, cell = self.at
        before = sum(-(-height * width // self.tile) for height, width, _ in self.levels[:level])
        return before + cell // self.tile
