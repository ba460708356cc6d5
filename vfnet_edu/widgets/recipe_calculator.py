"""What a detector of chapter 17 weighs, computes and keeps, how long it trains, and what was published about it."""

import functools
from dataclasses import replace

import anywidget
import torch
import traitlets

from vfnet_edu import recipes
from vfnet_edu.models.heads.vfnet import VFNetConfig
from vfnet_edu.models.necks import FPNConfig, PAFPNConfig
from vfnet_edu.priors import ceil32
from vfnet_edu.recipe import Recipe
from vfnet_edu.summary import count_flops, kept_for_backward
from vfnet_edu.widgets.front_end import STYLE, script
from vfnet_edu.widgets.planner import COCO_IMAGES

BACKBONES = {  # as the tables call them
    "R-50": recipes.R50,
    "R-101": recipes.R101,
    "X-101-32x4d": recipes.X101_32X4D,
    "X-101-64x4d": recipes.X101_64X4D,
    "R2-101": recipes.R2_101,
}
DEPTHS = {"fpn": 3, "pafpn": 4}  # convolutions of a tower, by neck: the paper's, and VFNet-X's
SIZES = ((667, 400), (1000, 600), (1333, 800), (1667, 1000), (1800, 1200))
SCHEDULES = {  # name -> epochs, where the rate drops, epochs of averaging, several scales
    "1x": (12, (8, 11), 0, False),
    "2x": (24, (16, 22), 0, False),
    "2x, scales": (24, (16, 22), 0, True),
    "41 + 18": (41, (36, 40), 18, True),
}
BLOCK = 32  # pixels: what the counts of a backbone are for, a square of this side


@functools.cache
def measured() -> dict:
    """Counted on the meta device, so without numbers: see `backbone_counts` and `kept_by_pyramid`."""
    both = {"plain": False, "dcn": True}
    return {
        "backbones": {
            name: {kind: backbone_counts(replace(config, dcn=dcn)) for kind, dcn in both.items()}
            for name, config in BACKBONES.items()
        },
        "kept": {neck: {kind: kept_by_pyramid(neck, dcn) for kind, dcn in both.items()} for neck in DEPTHS},
    }


def backbone_counts(config) -> dict[str, int]:
    """Parameters, those that learn, and for every 32 x 32 pixels: FLOPs, and bytes kept for the backward pass."""
    with torch.device("meta"):
        net = config.build()
    image = torch.empty(1, 3, 8 * BLOCK, 8 * BLOCK, device="meta")
    weights = list(net.parameters())
    return {
        "parameters": sum(p.numel() for p in weights),
        "trained": sum(p.numel() for p in weights if p.requires_grad),
        "flops": count_flops(lambda: net(image))["Global"] // 64,
        "kept": kept_for_backward(lambda: net(image), weights) // 64,
    }


def kept_by_pyramid(neck: str, dcn: bool) -> list[float]:
    """Bytes that neck and head keep for each cell of the pyramid: [a, b], for C channels a + b * C."""
    sizes, cells = [(128 >> i) for i in range(3)], sum((128 >> i) ** 2 for i in range(5))
    with torch.device("meta"):
        maps = [torch.empty(1, c, s, s, requires_grad=True) for c, s in zip((512, 1024, 2048), sizes, strict=True)]
    found = []
    for channels in (256, 384):
        shape = {"fpn": FPNConfig, "pafpn": PAFPNConfig}[neck](channels=channels)
        with torch.device("meta"):
            pyramid = shape.build((512, 1024, 2048))
            head = VFNetConfig(channels=channels, depth=DEPTHS[neck], dcn=dcn).build(channels)
        known = [*maps, *pyramid.parameters(), *head.parameters()]
        found.append(kept_for_backward(lambda p=pyramid, h=head: h(p(maps)), known) / cells)
    slope = (found[1] - found[0]) / 128
    return [found[0] - 256 * slope, slope]


def rows() -> list[dict]:
    """The published VFNets, each with the choices that lead to it."""
    names = {(config, dcn): name for name, config in BACKBONES.items() for dcn in (False, True)}
    found = []
    for recipe in map(recipes.by_name, recipes.names()):
        published = recipe.published
        if isinstance(recipe.head, VFNetConfig) and (published.checkpoint or published.drive):
            plain = replace(recipe.backbone, dcn=False)
            found.append(
                {
                    "name": recipe.name,
                    "backbone": names[plain, recipe.backbone.dcn],
                    "dcn": recipe.backbone.dcn,
                    "neck": "pafpn" if isinstance(recipe.neck, PAFPNConfig) else "fpn",
                    "channels": recipe.head.channels,
                    "size": recipe.data.test_scale[1],
                    "schedule": schedule_of(recipe),
                    "ap": published.ap_val,
                    "test": published.ap_test_dev,
                }
            )
    return found


def schedule_of(recipe: Recipe) -> str:
    """Its name among SCHEDULES."""
    several = recipe.data.augment.short_side[0] != recipe.data.augment.short_side[1]
    mine = (recipe.optim.epochs, recipe.optim.drop_at, recipe.swa.epochs, several)
    return next(name for name, schedule in SCHEDULES.items() if schedule == mine)


def schedules() -> dict[str, dict]:
    """What a plan must know about each schedule (plan.js); the rest is the same in all: SGD, 0.01 for 16 images."""
    optim = recipes.ONE_X
    same = {"lr": optim.lr, "lr_batch": optim.lr_batch, "schedule": "step"}
    same |= {"warmup_steps": optim.warmup_steps, "warmup_start": optim.warmup_start}
    return {
        name: same | {"epochs": epochs, "drop_at": list(drops), "swa_epochs": averaging}
        for name, (epochs, drops, averaging, _) in SCHEDULES.items()
    }


class RecipeCalculator(anywidget.AnyWidget):
    """Put a VFNet together and see what it costs; where the authors published this very one, also their AP."""

    _esm = script("recipe_calculator")
    _css = STYLE

    counts = traitlets.Dict(help="what was counted on the meta device, as `measured` makes it").tag(sync=True)
    rows = traitlets.List(help="the published ones, as `rows` makes them").tag(sync=True)
    schedules = traitlets.Dict(help="as `schedules` makes them").tag(sync=True)
    depths = traitlets.Dict(DEPTHS, help="convolutions of a tower, by neck").tag(sync=True)
    sizes = traitlets.List([[w, h, ceil32(w), ceil32(h)] for w, h in SIZES], help="also padded, pixels").tag(sync=True)
    images = traitlets.Int(COCO_IMAGES, min=1, help="training images").tag(sync=True)

    backbone = traitlets.Enum(list(BACKBONES), "R-50").tag(sync=True)
    dcn = traitlets.Bool(False, help="DCNv2 in C3 to C5 and at the end of both towers").tag(sync=True)
    neck = traitlets.Enum(list(DEPTHS), "fpn", help="pafpn: VFNet-X's, with towers of 4").tag(sync=True)
    channels = traitlets.Int(256, min=64, max=512, help="of neck and head").tag(sync=True)
    size = traitlets.Enum([h for _, h in SIZES], 800, help="short side of an image, pixels").tag(sync=True)
    schedule = traitlets.Enum(list(SCHEDULES), "1x").tag(sync=True)
    gpus = traitlets.Int(8, min=1, max=64).tag(sync=True)
    images_per_gpu = traitlets.Int(2, min=1, max=16).tag(sync=True)
    speed = traitlets.Float(6.0, min=0.1, max=100.0, help="images per second and GPU, measured").tag(sync=True)

    @traitlets.default("counts")
    def _measured(self) -> dict:
        return measured()

    @traitlets.default("rows")
    def _rows(self) -> list[dict]:
        return rows()

    @traitlets.default("schedules")
    def _schedules(self) -> dict[str, dict]:
        return schedules()
