"""The results tables as code: one function per row, in the tables' order.

A recipe is a value: print it, compare it, change it with `dataclasses.replace` or on the command line.
`python -m vfnet_edu.train NAME` trains one, `... NAME --print` shows it.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vfnet_edu.data.shapes import write_shape_scenes
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
from vfnet_edu.recipe import DataConfig, OptimConfig, Published, Recipe, SWAConfig
from vfnet_edu.runtime.errors import UserError


def names() -> list[str]:
    """Every recipe of this file, in order."""
    functions = [f for f in globals().values() if inspect.isfunction(f) and f.__annotations__ == {"return": Recipe}]
    return [f.__name__ for f in functions]


def by_name(name: str) -> Recipe:
    """The recipe that the function of this name returns.

    Raises:
        UserError: there is none.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"no recipe {name!r}", remedy=f"{hint}choose one of {', '.join(names())}")
    return globals()[name]()


# ---- VarifocalNet: table 1 of the README -----------------------------------------------------------------------------

R50 = ResNetConfig(blocks=(3, 4, 6, 3))
R101 = ResNetConfig(blocks=(3, 4, 23, 3))
X101_32X4D = ResNetConfig(blocks=(3, 4, 23, 3), groups=32, group_width=4)
X101_64X4D = ResNetConfig(blocks=(3, 4, 23, 3), groups=64, group_width=4)
R2_101 = Res2NetConfig()
R50_DCN, R101_DCN, R2_101_DCN = (replace(b, dcn=True) for b in (R50, R101, R2_101))
X101_32X4D_DCN, X101_64X4D_DCN = (replace(b, dcn=True) for b in (X101_32X4D, X101_64X4D))

ONE_X = OptimConfig(epochs=12, drop_at=(8, 11))
TWO_X = OptimConfig(epochs=24, drop_at=(16, 22))
ONE_SCALE = DataConfig()
MULTI_SCALE = DataConfig(augment=AugmentConfig(short_side=(480, 960)))


def _vfnet(
    name: str, backbone: ResNetConfig | Res2NetConfig, data: DataConfig, optim: OptimConfig, published: Published
) -> Recipe:
    """A row.  DCN means DCNv2 in C3, C4, C5 and in the last convolution of both towers."""
    return Recipe(name, backbone, head=VFNetConfig(dcn=backbone.dcn), data=data, optim=optim, published=published)


def vfnet_r50_1x() -> Recipe:
    file = "vfnet_r50_fpn_1x_coco_20201027-38db6f58.pth"
    published = Published(41.6, 41.6, 19.4, file, "1aF3Fi5rYeMqSC3Ndo4VEqjPXk4fcOfjt")
    return _vfnet("vfnet_r50_1x", R50, ONE_SCALE, ONE_X, published)


def vfnet_r50_ms_2x() -> Recipe:
    file = "vfnet_r50_fpn_mstrain_2x_coco_20201027-7cc75bd2.pth"
    published = Published(44.5, 44.8, 19.3, file, "1oAUu7zGZmPni0XZu8XJMDWR5GJi_pwYz")
    return _vfnet("vfnet_r50_ms_2x", R50, MULTI_SCALE, TWO_X, published)


def vfnet_r50_dcn_ms_2x() -> Recipe:
    file = "vfnet_r50_fpn_mdconv_c3-c5_mstrain_2x_coco_20201027pth-6879c318.pth"
    published = Published(47.8, 48.0, 16.3, file, "16rk1pCPmQOj98GkpM-y3IPBpdKcfq0I4")
    return _vfnet("vfnet_r50_dcn_ms_2x", R50_DCN, MULTI_SCALE, TWO_X, published)


def vfnet_r101_1x() -> Recipe:
    file = "vfnet_r101_fpn_1x_coco_20201027pth-c831ece7.pth"
    published = Published(43.0, 43.6, 15.5, file, "1z76RBD6fI43IQn2tGuSJ5KonuJE49Nfk")
    return _vfnet("vfnet_r101_1x", R101, ONE_SCALE, ONE_X, published)


def vfnet_r101_2x() -> Recipe:
    published = Published(43.5, 43.9, 15.6, drive="1SXYCfkOXXGBhvURcqH23DA5gIwSFYz2u")
    return _vfnet("vfnet_r101_2x", R101, ONE_SCALE, TWO_X, published)


def vfnet_r101_ms_2x() -> Recipe:
    file = "vfnet_r101_fpn_mstrain_2x_coco_20201027pth-4a5d53f1.pth"
    published = Published(46.2, 46.7, 15.6, file, "1ioQ2Fdbp4OS2Oi6g7no6fqU2-V8TtOTz")
    return _vfnet("vfnet_r101_ms_2x", R101, MULTI_SCALE, TWO_X, published)


def vfnet_r101_dcn_ms_2x() -> Recipe:
    file = "vfnet_r101_fpn_mdconv_c3-c5_mstrain_2x_coco_20201027pth-7729adb5.pth"
    published = Published(49.0, 49.2, 12.6, file, "1W-Wkl3e3f64PzP8vJ0iB5svMqNlOzPyI")
    return _vfnet("vfnet_r101_dcn_ms_2x", R101_DCN, MULTI_SCALE, TWO_X, published)


def vfnet_x101_32x4d_ms_2x() -> Recipe:
    published = Published(47.4, 47.6, 13.1, drive="1X-soI6dyFxv0jWOKxthPPsVeyqIRRa-F")
    return _vfnet("vfnet_x101_32x4d_ms_2x", X101_32X4D, MULTI_SCALE, TWO_X, published)


def vfnet_x101_32x4d_dcn_ms_2x() -> Recipe:
    file = "vfnet_x101_32x4d_fpn_mdconv_c3-c5_mstrain_2x_coco_20201027pth-d300a6fc.pth"
    published = Published(49.7, 50.0, 10.1, file, "1QtMyI4tjccigDPn2A-V1sQuK-Z6eTHwq")
    return _vfnet("vfnet_x101_32x4d_dcn_ms_2x", X101_32X4D_DCN, MULTI_SCALE, TWO_X, published)


def vfnet_x101_64x4d_ms_2x() -> Recipe:
    published = Published(48.2, 48.5, 9.2, drive="1m0BQ6XyAlxNdJQVbg_4OuEgEctywPVx9")
    return _vfnet("vfnet_x101_64x4d_ms_2x", X101_64X4D, MULTI_SCALE, TWO_X, published)


def vfnet_x101_64x4d_dcn_ms_2x() -> Recipe:
    file = "vfnet_x101_64x4d_fpn_mdconv_c3-c5_mstrain_2x_coco_20201027pth-b5f6da5e.pth"
    published = Published(50.4, 50.8, 6.7, file, "1GkyJirn8J10TTyWiyw5C4boKWlW9epSU")
    return _vfnet("vfnet_x101_64x4d_dcn_ms_2x", X101_64X4D_DCN, MULTI_SCALE, TWO_X, published)


def vfnet_r2_101_ms_2x() -> Recipe:
    published = Published(49.2, 49.3, 13.0, drive="1E4o1CxaWUQV7-HAyqbITw7JD8mOF7tNW")
    return _vfnet("vfnet_r2_101_ms_2x", R2_101, MULTI_SCALE, TWO_X, published)


def vfnet_r2_101_dcn_ms_2x() -> Recipe:
    published = Published(51.1, 51.3, 10.3, drive="1kCiEqAA_VQlhbiNuZ3HWGhBD1JvVpK0c")
    return _vfnet("vfnet_r2_101_dcn_ms_2x", R2_101_DCN, MULTI_SCALE, TWO_X, published)


# ---- VarifocalNet-X: one checkpoint, two test scales -----------------------------------------------------------------


def _vfnetx(name: str, test_scale: tuple[int, int], published: Published) -> Recipe:
    augment = AugmentConfig(long_side=(750, 2100), short_side=(500, 1400), crop=0.5, cutout=0.5)
    return Recipe(
        name,
        backbone=R2_101_DCN,
        neck=PAFPNConfig(channels=384),
        head=VFNetConfig(channels=384, depth=4, dcn=True),
        detect=DetectConfig(nms="linear", nms_iou=0.65),
        data=DataConfig(augment=augment, test_scale=test_scale),
        optim=OptimConfig(epochs=41, drop_at=(36, 40)),
        swa=SWAConfig(epochs=18),
        published=published,
    )


def vfnetx_r2_101_800() -> Recipe:
    published = Published(53.4, 53.7, 8.0, drive="1I_NLVsGb-6p8kildkFYhIVSdpS1nr8Eh")
    return _vfnetx("vfnetx_r2_101_800", (1333, 800), published)


def vfnetx_r2_101_1200() -> Recipe:
    published = Published(54.5, 55.1, 4.2, drive="1I_NLVsGb-6p8kildkFYhIVSdpS1nr8Eh")
    return _vfnetx("vfnetx_r2_101_1200", (1800, 1200), published)


# ---- Focal or varifocal loss in four other detectors: table 2 of the README ------------------------------------------
# R-50, 1x, one scale.  Biases learn and decay like all other parameters, unlike above.

PLAIN_BIAS = OptimConfig(bias_lr=1.0, bias_decay=1.0)
FOUR_BY_FOUR = DataConfig(images_per_gpu=4)  # 4 GPUs x 4 images: slightly better here than 8 x 2, say the authors
NMS_50 = DetectConfig(nms_iou=0.5)


def _retinanet(name: str, head: RetinaNetConfig, published: Published) -> Recipe:
    neck = FPNConfig(extra_from="c5", relu_before_p7=False)
    return Recipe(name, R50, neck, head, NMS_50, FOUR_BY_FOUR, PLAIN_BIAS, published=published)


def retinanet_r50_fl_1x() -> Recipe:
    published = Published(36.5, drive="1jvz6f6_uhiFoulW3qP3aN1P142jRJgky")
    return _retinanet("retinanet_r50_fl_1x", RetinaNetConfig(loss="focal", alpha=0.25), published)


def retinanet_r50_vfl_1x() -> Recipe:
    published = Published(37.4, drive="1FuWtTdr-NlcqVJW35lhlicCk2hmtIip8")
    return _retinanet("retinanet_r50_vfl_1x", RetinaNetConfig(loss="varifocal"), published)


def _foveabox(name: str, head: FoveaBoxConfig, published: Published) -> Recipe:
    neck = FPNConfig(extra_from="c5", relu_before_p7=False)
    return Recipe(name, R50, neck, head, NMS_50, FOUR_BY_FOUR, PLAIN_BIAS, published=published)


def foveabox_r50_fl_1x() -> Recipe:
    published = Published(36.3, drive="1NG9ovPa9qVUZ6uFeJct3I7koQGBwvQ_b")
    return _foveabox("foveabox_r50_fl_1x", FoveaBoxConfig(loss="focal", alpha=0.4, gamma=1.5), published)


def foveabox_r50_vfl_1x() -> Recipe:
    published = Published(37.2, drive="1mS9guZmgPeZj-Sgo0HLE5B881pdT2PyJ")
    return _foveabox("foveabox_r50_vfl_1x", FoveaBoxConfig(loss="varifocal"), published)


def _reppoints(name: str, head: RepPointsConfig, published: Published) -> Recipe:
    neck = FPNConfig(extra_from="c5", relu_before_p7=False, norm=True)
    return Recipe(name, R50, neck, head, NMS_50, FOUR_BY_FOUR, PLAIN_BIAS, published=published)


def reppoints_r50_fl_1x() -> Recipe:
    published = Published(38.3, drive="1qpH5gGmI_x5EkT5gc0uwK3gTjPG6vzp2")
    return _reppoints("reppoints_r50_fl_1x", RepPointsConfig(loss="focal", alpha=0.25), published)


def reppoints_r50_vfl_1x() -> Recipe:
    published = Published(39.7, drive="17-SPlxq_qmfEPiEBwDlm0aV81Sh3AF1W")
    return _reppoints("reppoints_r50_vfl_1x", RepPointsConfig(loss="varifocal"), published)


def _atss(name: str, head: ATSSConfig, published: Published) -> Recipe:
    optim = replace(PLAIN_BIAS, warmup_start=0.001)
    return Recipe(name, R50, FPNConfig(relu_before_p7=False), head, optim=optim, published=published)


def atss_r50_fl_1x() -> Recipe:
    published = Published(39.3, drive="1Eik_WZ1GtABTh3QxvBhFL-L93NTB6c-c")
    return _atss("atss_r50_fl_1x", ATSSConfig(loss="focal", alpha=0.25), published)


def atss_r50_vfl_1x() -> Recipe:
    published = Published(40.2, drive="1Uqkr4WMYhT22viFCpF7iUdbpvVvlQYLV")
    return _atss("atss_r50_vfl_1x", ATSSConfig(loss="varifocal"), published)


# ---- Ablations of VarifocalNet R-50, 1x (tables 2, 3 and 5 of the paper) ---------------------------------------------


def _ablation(name: str, ap_val: float | None = None, **changes) -> Recipe:
    """The first row, but for `changes` of its head."""
    return Recipe(name, R50, head=VFNetConfig(**changes), published=Published(ap_val))


def vfnet_r50_raw_focal_1x() -> Recipe:
    """FCOS + ATSS without centerness: no star, no refinement, focal loss."""
    raw = {"star": False, "refine": False, "box_weight": 2.0}
    return _ablation("vfnet_r50_raw_focal_1x", 39.0, **raw, loss="focal", alpha=0.25)


def vfnet_r50_raw_1x() -> Recipe:
    """The same with the varifocal loss."""
    return _ablation("vfnet_r50_raw_1x", 40.1, star=False, refine=False, box_weight=2.0)


def vfnet_r50_star_1x() -> Recipe:
    """And with the star, but no refinement.  The one box loss weighs as much as in the raw head."""
    return _ablation("vfnet_r50_star_1x", 40.7, refine=False, box_weight=2.0)


def vfnet_r50_focal_1x() -> Recipe:
    """Star and refinement, focal loss."""
    return _ablation("vfnet_r50_focal_1x", loss="focal", alpha=0.25)


def vfnet_r50_qfl_1x() -> Recipe:
    """Star and refinement, quality focal loss of GFL: positives are focal too."""
    return _ablation("vfnet_r50_qfl_1x", loss="quality_focal")


def vfnet_r50_unweighted_1x() -> Recipe:
    """Varifocal loss whose positives all weigh the same."""
    return _ablation("vfnet_r50_unweighted_1x", 41.2, iou_weighted=False)


def vfnet_r50_star_gradient_0_1x() -> Recipe:
    """The star teaches the initial box nothing (the paper lets a tenth of its gradient through)."""
    return _ablation("vfnet_r50_star_gradient_0_1x", star_gradient=0.0)


def vfnet_r50_star_gradient_1_1x() -> Recipe:
    """The star teaches the initial box with its whole gradient."""
    return _ablation("vfnet_r50_star_gradient_1_1x", star_gradient=1.0)


# ---- The embedded data set -------------------------------------------------------------------------------------------


SHAPES = DataConfig(
    augment=AugmentConfig(long_side=(128, 128), short_side=(128, 128)),
    test_scale=(128, 128),
    images_per_gpu=16,
    workers=1,
)
SCRATCH = OptimConfig(
    optimizer="adamw", lr=3e-3, weight_decay=0.05, bias_lr=1.0, schedule="cosine", warmup_steps=150, clip_norm=10.0
)


def _shape_scenes(name: str, width: int, data: DataConfig, optim: OptimConfig, eval_every: int = 1) -> Recipe:
    """A VFNet for ShapeScenes, from scratch: three levels, a ResNet of basic blocks `width` channels wide at its stem.

    Objects are 10 to 90 pixels wide, so boxes and anchors are counted in smaller units than on COCO; and without
    ImageNet weights the classes must differ from the first step (`score_std`). The star starts as loud as that of the
    published width (0.01 at 256 channels) and learns slowly at first: otherwise AdamW's first steps push all of the
    refinement's features below zero, where its ReLU lets no gradient through, and it never moves a box again.
    """
    backbone = ResNetConfig((1, 1, 1, 1), block="basic", width=width, frozen_stages=-1, frozen_norm=False)
    head = VFNetConfig(
        score_std=0.3, star_std=0.02, channels=64, depth=1, strides=(8, 16, 32), box_unit=2.0, anchor_size=4.0
    )
    neck = FPNConfig(channels=64, extra_levels=0)
    return Recipe(name, backbone, neck, head, data=data, optim=optim, eval_every=eval_every, backbone_weights="none")


def vfnet_small() -> Recipe:
    """Learns ShapeScenes in two to three minutes on two CPU cores (how it came to that: book/speedrun.md)."""
    data = replace(SHAPES, augment=replace(SHAPES.augment, small_epochs=4), batch_size=8, images_per_gpu=8)
    optim = replace(
        SCRATCH, lr_batch=8, betas=(0.9, 0.95), schedule="linear", warmup_steps=240, epochs=5, precision="auto"
    )
    return _shape_scenes("vfnet_small", 32, data, optim, eval_every=3)


def vfnet_tiny() -> Recipe:
    """Narrower, half as many weights, trained longer: the shipped models that the chapters look into."""
    return _shape_scenes("vfnet_tiny", 20, SHAPES, replace(SCRATCH, epochs=10))


EMBEDDED = ("vfnet_small", "vfnet_tiny")  # draw their own data where none is given


def default_data(recipe: Recipe, say: Callable[[str], None]) -> Path:
    """The folder of the data set that a recipe is about, where the user names none: ShapeScenes, drawn now, or COCO."""
    if recipe.name not in EMBEDDED:
        return Path("data/coco")
    say("drawing the embedded data set into data/shape_scenes")
    return write_shape_scenes(Path("data/shape_scenes"))
