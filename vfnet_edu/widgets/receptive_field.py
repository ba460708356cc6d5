"""The receptive fields of chapter 4: which pixels move the features of a cell, for every cell of a pyramid."""

import anywidget
import torch
import torch.nn.functional as F
import traitlets
from PIL import Image
from torch import Tensor

from vfnet_edu.models.detector import Detector
from vfnet_edu.runtime.errors import UserError
from vfnet_edu.widgets.front_end import STYLE, data_url, script

BLOCK = 4  # pixels along a side: fields are kept in blocks, to be small
MOST = 400  # cells: each has a field of its own, which has to be measured and sent
AT_ONCE = 64  # copies of the picture in one backward pass
PROBES = 8  # random sums of the channels, whose gradients are averaged


# ------------------------------------------------------------------ measuring
def influence(
    model: Detector, batch: Tensor, level: int, cells: Tensor, generator: torch.Generator, probes: int = PROBES
) -> Tensor:
    """How much each pixel moves one cell of each picture: the squared gradient of the cell's features.

    The gradient of all C features would take C backward passes.  A random sum of them, with weights from N(0, 1), takes
    one, and its squared gradient is right on average; `probes` of them are averaged.

    Args:
        model: in evaluation mode.
        batch: (N, 3, H, W) normalised pictures.
        level: of the pyramid, 0 is the finest.
        cells: (N, 2) row and column of the cell of each picture.
        generator: of the random sums.
        probes: how many.

    Returns:
        (N, H, W), summed over colours.
    """
    batch = batch.detach().requires_grad_()
    features = model.neck(model.backbone(batch))[level]  # (N, C, h, w)
    chosen = features[torch.arange(len(batch)), :, cells[:, 0], cells[:, 1]]  # (N, C)
    squares = torch.zeros_like(batch[:, 0])  # (N, H, W)
    for _ in range(probes):
        weights = torch.randn(chosen.shape, generator=generator)
        (gradient,) = torch.autograd.grad((chosen * weights).sum(), batch, retain_graph=True)
        squares += gradient.square().sum(1) / probes
    return squares


def fields(model: Detector, image: Tensor, shapes: list[tuple[int, int]], seed: int = 0) -> Tensor:
    """The field of every cell, (P, H / BLOCK, W / BLOCK) uint8: the root of each block's influence, the largest is 255.

    Args:
        model: in evaluation mode.
        image: uint8 (3, h, w); H and W are its sides with padding.
        shapes: (rows, columns) of each level.
        seed: of the random sums.
    """
    picture, generator = model.stack([image]), torch.Generator().manual_seed(seed)  # (1, 3, H, W)
    found = []
    for level, (h, w) in enumerate(shapes):
        cells = torch.cartesian_prod(torch.arange(h), torch.arange(w))  # (h * w, 2), row by row
        for some in cells.split(AT_ONCE):
            squares = influence(model, picture.expand(len(some), -1, -1, -1), level, some, generator)
            found.append(F.avg_pool2d(squares[:, None], BLOCK)[:, 0])
    light = torch.cat(found).sqrt()
    return (255 * light / light.amax((1, 2), keepdim=True)).round().to(torch.uint8)


# ------------------------------------------------------------------ what the explorer says about a field
def side_of_share(energy: Tensor, point: tuple[float, float], share: float = 0.5, block: float = BLOCK) -> float:
    """Side in pixels of the smallest square around a point that holds this share of a field (chapter 4).

    Args:
        energy: (rows, columns) influence of blocks, or of single pixels with ``block=1``.
        point: x, y in pixels.
        share: of the whole field.
        block: side of a block in pixels; a block counts once the square holds all of it.
    """
    rows, columns = energy.shape
    x = ((torch.arange(columns) + 0.5) * block - point[0]).abs()  # from the point to the middle of each block
    y = ((torch.arange(rows) + 0.5) * block - point[1]).abs()
    reach, order = torch.maximum(y[:, None], x).flatten().sort()
    held = energy.double().flatten()[order].cumsum(0)
    return 2 * float(reach[(held >= share * held[-1]).nonzero()[0, 0]]) + block


def share_inside(energy: Tensor, box: tuple[float, ...], block: float = BLOCK) -> float:
    """The share of a field (rows, columns) that lies in a box x1, y1, x2, y2 in pixels."""
    x1, y1, x2, y2 = box
    rows, columns = (torch.arange(n, dtype=torch.float64) * block for n in energy.shape)
    wide = ((columns + block).clamp(max=x2) - columns.clamp(min=x1)).clamp(min=0) / block
    high = ((rows + block).clamp(max=y2) - rows.clamp(min=y1)).clamp(min=0) / block
    energy = energy.double()
    return float((energy * high[:, None] * wide).sum() / energy.sum())


def covered(box: tuple[float, ...], point: tuple[float, float], side: float) -> float:
    """The share of a box x1, y1, x2, y2 that lies in a square around a point."""
    x1, y1, x2, y2 = box
    wide = min(x2, point[0] + side / 2) - max(x1, point[0] - side / 2)
    high = min(y2, point[1] + side / 2) - max(y1, point[1] - side / 2)
    return max(wide, 0) * max(high, 0) / ((x2 - x1) * (y2 - y1))


# ------------------------------------------------------------------ the explorer
class ReceptiveFieldExplorer(anywidget.AnyWidget):
    """Choose a level and a cell, and see how far it sees.  Make one with :meth:`of`.

    The picture is dark where no pixel moves the features of the cell.  The state that moves, in step with the page:
    ``level`` (of the pyramid: 3 is P3), ``x`` and ``y`` (pixels; the cell with the nearest point is chosen).
    """

    _esm = script("receptive_field")
    _css = STYLE

    image = traitlets.Unicode(help="data URL").tag(sync=True)
    size = traitlets.List(help="(height, width) of the image in pixels, a multiple of 32").tag(sync=True)
    shapes = traitlets.List(help="(rows, columns) of each level").tag(sync=True)
    first = traitlets.Int(3, help="number of the finest level").tag(sync=True)
    fields = traitlets.Bytes(help="from `fields`, cell after cell").tag(sync=True)
    objects = traitlets.List(help="[x1, y1, x2, y2, name]").tag(sync=True)

    level = traitlets.Int(3).tag(sync=True)
    x = traitlets.Float(0.0).tag(sync=True)
    y = traitlets.Float(0.0).tag(sync=True)

    @classmethod
    def of(cls, model: Detector, image: Tensor, target: dict, which: int = 0) -> "ReceptiveFieldExplorer":
        """The fields of `model` on `image`; it opens on the finest level, in the middle of an object.

        Args:
            model: on the CPU; left in the mode it came in.
            image: uint8 (3, h, w) RGB; both sides multiples of 32, at most MOST cells.
            target: its objects, "boxes" (G, 4) and "labels" (G,), at least one.
            which: the object it opens on.

        Raises:
            UserError: a side is no multiple of 32, or the image has too many cells.
        """
        h, w = image.shape[-2:]
        if h % 32 or w % 32:
            raise UserError(f"an image of {h} x {w} pixels", remedy="cut it, so that both sides are multiples of 32")
        strides = model.recipe.head.strides
        shapes = [(-(-h // s), -(-w // s)) for s in strides]
        cells = sum(rows * columns for rows, columns in shapes)
        if cells > MOST:
            raise UserError(
                f"an image of {h} x {w} pixels has {cells:,} cells, the explorer shows at most {MOST}",
                remedy="cut or shrink the image, for example to 128 x 128 pixels",
            )
        training = model.training
        model.eval()
        packed = fields(model, image, shapes).numpy().tobytes()
        model.train(training)
        named = zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)
        x1, y1, x2, y2 = target["boxes"][which].tolist()
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        return cls(
            image=data_url(picture, "PNG", optimize=True),
            size=[h, w],
            shapes=[list(shape) for shape in shapes],
            first=strides[0].bit_length() - 1,
            fields=packed,
            objects=[[*box, model.classes[label]] for box, label in named],
            level=strides[0].bit_length() - 1,
            x=(x1 + x2) / 2,
            y=(y1 + y2) / 2,
        )

    def field(self) -> Tensor:
        """What is shown: the influence of each block on the chosen cell, (rows, columns) float64."""
        starts = [0]
        for rows, columns in self.shapes:
            starts.append(starts[-1] + rows * columns)
        level, stride = self.level - self.first, 2**self.level
        rows, columns = self.shapes[level]
        i, j = (min(max(int(v / stride + 0.5), 0), n - 1) for v, n in ((self.y, rows), (self.x, columns)))
        high, wide = (side // BLOCK for side in self.size)
        light = torch.frombuffer(bytearray(self.fields), dtype=torch.uint8).view(-1, high, wide)
        return light[starts[level] + i * columns + j].double().square()
