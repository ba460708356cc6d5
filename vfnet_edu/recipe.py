"""What a recipe is: a whole experiment as one value, written down in frozen dataclasses.

Every part names what it describes (``recipe.head.gamma``, ``recipe.optim.lr``), and the parts of the network can build
it (``recipe.backbone.build()``).  The rows of the results tables are in `vfnet_edu.recipes`.
"""

from dataclasses import dataclass, replace
from typing import Literal

from vfnet_edu.data.transforms import AugmentConfig
from vfnet_edu.models.backbones.res2net import Res2NetConfig
from vfnet_edu.models.backbones.resnet import ResNetConfig
from vfnet_edu.models.heads.atss import ATSSConfig
from vfnet_edu.models.heads.foveabox import FoveaBoxConfig
from vfnet_edu.models.heads.reppoints import RepPointsConfig
from vfnet_edu.models.heads.retinanet import RetinaNetConfig
from vfnet_edu.models.heads.vfnet import VFNetConfig
from vfnet_edu.models.necks import FPNConfig, PAFPNConfig
from vfnet_edu.postprocess import DetectConfig
from vfnet_edu.runtime.errors import UserError

LARGEST = 4096  # pixels a side that images are resized to


@dataclass(frozen=True)
class DataConfig:
    """What a step sees."""

    augment: AugmentConfig = AugmentConfig()
    test_scale: tuple[int, int] = (1333, 800)  # longest and shortest side an image is resized to when evaluated
    batch_size: int = 16  # images per optimizer step, over all GPUs and accumulated passes
    images_per_gpu: int = 2  # images per forward pass; the paper's 8 GPUs x 2, and what 8 GB of memory can hold
    workers: int = 2  # data-loading processes per GPU


@dataclass(frozen=True)
class OptimConfig:
    """How the weights move."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01  # for `lr_batch` images per step; scaled linearly with the actual batch (printed)
    lr_batch: int = 16
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)  # AdamW: how much of the old mean and mean square a step keeps
    weight_decay: float = 1e-4
    bias_lr: float = 2.0  # biases outside norms and offset predictors: this times the rate ...
    bias_decay: float = 0.0  # ... and this times the decay
    warmup_steps: int = 500
    warmup_start: float = 0.1  # fraction of the rate at step 0
    schedule: Literal["step", "cosine", "linear"] = "step"  # linear, cosine: down to zero
    epochs: int = 12
    drop_at: tuple[int, ...] = (8, 11)  # divide the rate by ten after these epochs
    clip_norm: float = 0.0  # largest gradient norm; 0: no clipping, as in every row of the tables
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"  # auto: bf16 where it is native; boxes stay in fp32


@dataclass(frozen=True)
class SWAConfig:
    """Stochastic weight averaging after the training proper (Zhang et al. 2020, "SWA Object Detection").

    In each further epoch the rate falls from `lr` to `lr_end` along half a cosine; the weights at its end are averaged.
    """

    epochs: int = 0  # 0: off
    lr: float = 0.01  # for `lr_batch` images per step, as in OptimConfig
    lr_end: float = 1e-4


@dataclass(frozen=True)
class Published:
    """What the authors report (their README, revision f4596962)."""

    ap_val: float | None = None  # COCO val2017
    ap_test_dev: float | None = None
    fps_v100: float | None = None  # batch 1, with pre- and post-processing
    checkpoint: str = ""  # file name on the OpenMMLab server; its last eight digits begin its SHA-256
    drive: str = ""  # id of the authors' file on Google Drive


@dataclass(frozen=True)
class Recipe:
    """A whole experiment."""

    name: str
    backbone: ResNetConfig | Res2NetConfig = ResNetConfig()
    neck: FPNConfig | PAFPNConfig = FPNConfig()
    head: VFNetConfig | ATSSConfig | RetinaNetConfig | FoveaBoxConfig | RepPointsConfig = VFNetConfig()
    detect: DetectConfig = DetectConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    swa: SWAConfig = SWAConfig()
    eval_every: int = 1  # epochs between evaluations; the last epoch is always evaluated
    backbone_weights: str = "imagenet"  # downloaded; or "none", or a file with torchvision's key names
    seed: int = 0
    published: Published = Published()


def at_size(recipe: Recipe, size: int) -> Recipe:
    """A recipe for images that fit into a square of `size` pixels: their long side is that long, learned and tested.

    A recipe that draws the size of training images still does: their long side stays in a range that keeps its ratio to
    the test scale.

    Raises:
        UserError: smaller than 32 or larger than 4096 pixels.
    """
    if not 32 <= size <= LARGEST:
        raise UserError(f"--size {size}: images have 32 to {LARGEST} pixels a side", remedy="320 and 640 are usual")
    usual, augment = min(recipe.data.test_scale), recipe.data.augment
    low, high = (round(size * side / usual) for side in augment.short_side)
    # Of two lengths from one range, the larger limits the long side: for no shape does it leave the range.
    augment = replace(augment, long_side=(low, high), short_side=(low, high))
    return replace(recipe, data=replace(recipe.data, augment=augment, test_scale=(size, size)))
