"""The results tables as code: one function per row, in the tables' order.

A recipe is a value: print it, compare it, change it with `dataclasses.replace` or on the command line.
`python -m vfnet_edu.train NAME` trains one, `... NAME --print` shows it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from vfnet_edu.backbones.resnet import ResNetConfig
from vfnet_edu.data.transforms import AugmentConfig
from vfnet_edu.errors import UserError
from vfnet_edu.heads.vfnet import VFNetConfig
from vfnet_edu.necks import FPNConfig
from vfnet_edu.postprocess import DetectConfig


@dataclass(frozen=True)
class DataConfig:
    """What a step sees."""

    augment: AugmentConfig = AugmentConfig()
    test_scale: tuple[int, int] = (1333, 800)  # longest and shortest side an image is enlarged to when evaluated
    batch_size: int = 16  # images per optimizer step, over all GPUs and accumulated batches
    workers: int = 2  # data-loading processes per GPU


@dataclass(frozen=True)
class OptimConfig:
    """How the weights move."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01  # for `lr_batch` images per step; scaled linearly with the actual batch (printed)
    lr_batch: int = 16
    momentum: float = 0.9
    weight_decay: float = 1e-4
    bias_lr: float = 2.0  # biases outside norms and offset predictors: this times the rate ...
    bias_decay: float = 0.0  # ... and this times the decay
    warmup_steps: int = 500
    warmup_start: float = 0.1  # share of the rate at step 0
    schedule: Literal["step", "cosine"] = "step"
    epochs: int = 12
    drop_at: tuple[int, ...] = (8, 11)  # divide the rate by ten after these epochs
    clip_norm: float = 0.0  # largest gradient norm; 0: no clipping, as in every row of the tables
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # boxes and losses stay in fp32 in all three


@dataclass(frozen=True)
class Published:
    """What the authors report (their README, at the revision that docs/sources.md names)."""

    ap_val: float | None = None  # COCO val2017
    ap_test_dev: float | None = None
    fps_v100: float | None = None  # batch 1, with pre- and post-processing
    checkpoint: str = ""  # file name on the OpenMMLab server; its last eight digits begin its SHA-256


@dataclass(frozen=True)
class Recipe:
    """A whole experiment."""

    name: str
    backbone: ResNetConfig = ResNetConfig()
    neck: FPNConfig = FPNConfig()
    head: VFNetConfig = VFNetConfig()
    detect: DetectConfig = DetectConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    seed: int = 0
    published: Published = field(default=Published())


R50 = ResNetConfig(blocks=(3, 4, 6, 3))
TWO_X = OptimConfig(epochs=24, drop_at=(16, 22))
MULTI_SCALE = DataConfig(augment=AugmentConfig(short_side=(480, 960)))


def vfnet_r50_1x() -> Recipe:
    return Recipe(
        "vfnet_r50_1x",
        backbone=R50,
        published=Published(41.6, 41.6, 19.4, "vfnet_r50_fpn_1x_coco_20201027-38db6f58.pth"),
    )


def vfnet_r50_ms_2x() -> Recipe:
    return Recipe(
        "vfnet_r50_ms_2x",
        backbone=R50,
        data=MULTI_SCALE,
        optim=TWO_X,
        published=Published(44.5, 44.8, 19.3, "vfnet_r50_fpn_mstrain_2x_coco_20201027-7cc75bd2.pth"),
    )
