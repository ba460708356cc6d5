"""The tensors of chapter 14: choose the size of an image, and see the shape of everything that it becomes."""

import anywidget
import traitlets

from vfnet_edu import recipes
from vfnet_edu.data.shapes import CLASSES
from vfnet_edu.recipe import Recipe
from vfnet_edu.widgets.front_end import STYLE, script

TABLE = """
.ve-tensors { width: 100%; table-layout: fixed; font-size: 13px; }
.ve .ve-tensors th, .ve .ve-tensors td { text-align: left; padding: 3px 4px; font-size: 13px; overflow-wrap: normal; }
.ve-tensors th[scope="row"] { color: inherit; }
.ve-tensors th[scope="rowgroup"] { padding-top: 10px; font-weight: 600; }
.ve .ve-tensors td:last-child { font-size: 12px; }
.ve-tensors i { display: block; height: 7px; min-width: 1px; margin-top: 2px; border-radius: 2px; }
"""

Part = tuple[str, str, list[int]]  # the part of the network, what it makes, its sizes


def dimensions(recipe: Recipe, classes: int) -> dict:
    """What the shapes inside a VFNet depend on.  `recipe`: one with a ResNet, an FPN and VFNet's head."""
    backbone, head = recipe.backbone, recipe.head
    c3, c4, c5 = backbone.out_channels
    return {
        "name": recipe.name,
        "maps": [c3 // 2, c3, c4, c5],  # channels of C2, C3, C4, C5
        "channels": head.channels,
        "levels": len(head.strides),
        "classes": classes,
    }


def tensors(model: dict, height: int, width: int) -> list[Part]:
    """Everything that one image becomes, from its pixels to its scores.

    Args:
        model: as :func:`dimensions` makes it.
        height: of the image in pixels, a multiple of 32.
        width: the same.

    Returns:
        (part of the network, name, sizes) of each tensor, in the order in which they are computed.  The head's hold
        all levels together, P rows; the star's samples are those of both branches, nine per row.
    """
    cells = [(height // s, width // s) for s in (4, 8, 16, 32)]
    parts = [("image", "pixels", [3, height, width])]
    parts += [("ResNet", f"C{i + 2}", [c, *cells[i]]) for i, c in enumerate(model["maps"])]
    levels = cells[1:]
    while len(levels) < model["levels"]:  # P6, P7: convolutions of stride 2
        h, w = levels[-1]
        levels.append((-(-h // 2), -(-w // 2)))
    c, rows = model["channels"], sum(h * w for h, w in levels)
    parts += [("pyramid", f"P{i + 3}", [c, *level]) for i, level in enumerate(levels)]
    head = {
        "two towers": [2, c, rows],
        "first boxes": [rows, 4],
        "star samples": [2, c, 9, rows],
        "refined boxes": [rows, 4],
        "scores": [rows, model["classes"]],
    }
    return parts + [("head", name, sizes) for name, sizes in head.items()]


class TensorExplorer(anywidget.AnyWidget):
    """The tensors of a VFNet for one image: their shapes, and how many numbers each holds."""

    _esm = script("tensors")
    _css = STYLE + TABLE

    models = traitlets.List(help="as `dimensions` makes them").tag(sync=True)
    model = traitlets.Unicode("vfnet_tiny", help="name of one of them").tag(sync=True)
    height = traitlets.Int(128, min=64, max=1344, help="of the image, pixels, a multiple of 32").tag(sync=True)
    width = traitlets.Int(128, min=64, max=1344, help="of the image, pixels, a multiple of 32").tag(sync=True)

    @traitlets.default("models")
    def _models(self) -> list[dict]:
        return [
            dimensions(recipes.vfnet_tiny(), classes=len(CLASSES)),  # as it is shipped: the classes of ShapeScenes
            dimensions(recipes.vfnet_r50_1x(), classes=80),
        ]
