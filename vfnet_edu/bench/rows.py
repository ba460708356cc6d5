"""The rows of `bench peers`: each is a task, and each contender a function of the sizes that makes its :class:`Turn`.

What people would use instead stands beside ours, as they would use it.  The detectors of torchvision are as they come
with published weights (frozen norms, three trained stages), but channels_last, which makes them faster.
"""

import contextlib
import importlib
import io
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d, deform_conv2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.transforms import v2

from vfnet_edu import recipes
from vfnet_edu.assigners import atss
from vfnet_edu.bench import synthetic
from vfnet_edu.bench.assign import naive_atss, random_boxes
from vfnet_edu.bench.star import STRIDES, Case, make_case
from vfnet_edu.bench.star import Options as StarOptions
from vfnet_edu.bench.turns import Row, Skipped, Turn
from vfnet_edu.data.coco import read_coco
from vfnet_edu.data.loader import train_loader
from vfnet_edu.data.paths import find_dataset
from vfnet_edu.data.shapes import write_shape_scenes
from vfnet_edu.evaluation.scores import coco_scores
from vfnet_edu.inference import detect, for_inference
from vfnet_edu.losses import total
from vfnet_edu.models.detector import Detector, build
from vfnet_edu.ops.star.operator import star_conv2d_pyramid, star_offsets
from vfnet_edu.priors import pyramid_anchors
from vfnet_edu.runtime.devices import PRECISION, Precision, computes
from vfnet_edu.runtime.files import cache_folder


@dataclass(frozen=True)
class Sizes:
    """How much there is to do; what is not said in the titles of the rows."""

    answer: tuple[int, int] = (800, 1333)
    """height and width of the image to find objects in"""
    learn: tuple[int, int] = (480, 640)
    """height and width of the images to learn from"""
    batch: int = 2
    """images to learn from at once"""
    pyramid: tuple[int, int] = (800, 1344)
    """height and width of the image whose pyramid the star and the assigner see"""
    channels: int = 256
    """of that pyramid"""
    boxes: int = 50
    """objects to assign in it"""
    scenes: int = 100
    """images of 480 x 640 to load"""
    batches: int = 20
    """batches of two images to load"""
    scored: int = 1000
    """images to score detections in"""
    detections: int = 100_000
    """detections to score"""
    json_mb: float = 40.0
    """size of the annotations to read; those of train2017 are 448"""
    folder: Path = Path("runs/peers")
    """where the images and the annotations are written"""


CPU = torch.device("cpu")
QUICK = Sizes((64, 96), (64, 96), 1, (64, 96), 32, 3, 8, 2, 8, 80, 1.2)


# ------------------------------------------------------------------ whole detectors
def vfnet(size: tuple[int, int]) -> Detector:
    """VFNet R-50 with fresh weights, which leaves images of `size` as large as they are."""
    torch.manual_seed(0)
    recipe = recipes.vfnet_r50_1x()
    model = build(replace(recipe, data=replace(recipe.data, test_scale=(max(size), min(size)))))
    return model.to(memory_format=torch.channels_last)


def torchvisions(kind: type[FCOS | RetinaNet], size: tuple[int, int]) -> FCOS | RetinaNet:
    """A detector of torchvision with fresh weights, which leaves images of `size` as large as they are."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3,
        returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256),
    )  # fmt: skip
    model = kind(backbone, synthetic.CLASSES, min_size=min(size), max_size=max(size))
    return model.to(memory_format=torch.channels_last)


def noise(size: tuple[int, int], count: int) -> list[Tensor]:
    """Images (3, h, w) uint8."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for _ in range(count)]


def check_precision(precision: Precision) -> None:
    """Skip what this processor would only imitate."""
    if PRECISION[precision] and not computes(precision, CPU):
        raise Skipped(f"this processor has no instructions for {precision}")


def our_answer(precision: Precision) -> Callable[[Sizes], Turn]:
    def make(sizes: Sizes) -> Turn:
        check_precision(precision)
        model, (image,) = for_inference(vfnet(sizes.answer)), noise(sizes.answer, 1)
        return Turn(lambda: detect(model, image, precision=precision))

    return make


def peer_answer(kind: type[FCOS | RetinaNet], precision: Precision) -> Callable[[Sizes], Turn]:
    def make(sizes: Sizes) -> Turn:
        check_precision(precision)
        model, images, dtype = torchvisions(kind, sizes.answer).eval(), noise(sizes.answer, 1), PRECISION[precision]

        def run():
            with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype is not None):
                return model([image / 255 for image in images])

        return Turn(run)

    return make


def objects(sizes: Sizes) -> list[dict[str, Tensor]]:
    """Seven in each image, as many as COCO has on average."""
    return [{"boxes": random_boxes(7, sizes.learn), "labels": torch.arange(7)} for _ in range(sizes.batch)]


def our_lesson(sizes: Sizes) -> Turn:
    model, images, targets = vfnet(sizes.learn), noise(sizes.learn, sizes.batch), objects(sizes)

    def run():
        total(model(images, targets)).backward()
        model.zero_grad()

    return Turn(run)


def peer_lesson(kind: type[FCOS | RetinaNet]) -> Callable[[Sizes], Turn]:
    def make(sizes: Sizes) -> Turn:
        model, images, targets = torchvisions(kind, sizes.learn), noise(sizes.learn, sizes.batch), objects(sizes)

        def run():
            total(model([image / 255 for image in images], targets)).backward()
            model.zero_grad()

        return Turn(run)

    return make


# ------------------------------------------------------------------ data
def scenes(sizes: Sizes) -> tuple[Path, Path]:
    """The json and the image folder of drawn scenes of 480 x 640."""
    folder = write_shape_scenes(sizes.folder / f"scenes_{sizes.scenes}", sizes.scenes, 1, (480, 640))
    return find_dataset(folder).train


def batches_of(loader: Iterable, workers: int, count: int) -> Turn:
    """So many batches of an endless loader whose workers are at work already."""
    running = []

    def before():
        running.append(iter(loader))
        list(itertools.islice(running[0], 2 + 4 * workers))  # more than they prepare in advance

    return Turn(lambda: list(itertools.islice(running[0], count)), before, after=running.clear)


def our_loader(workers: int) -> Callable[[Sizes], Turn]:
    def make(sizes: Sizes) -> Turn:
        index, _ = read_coco(*scenes(sizes)).for_training()
        config = recipes.vfnet_r50_1x().data.augment
        return batches_of(train_loader(index, config, 2, 0, range(10**6), workers=workers), workers, sizes.batches)

    return make


def peer_loader(workers: int) -> Callable[[Sizes], Turn]:
    """What torchvision's documentation proposes for detection."""

    def make(sizes: Sizes) -> Turn:
        change = v2.Compose(
            [v2.ToImage(), v2.RandomShortestSize(800, 1333), v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes()]
        )
        path, folder = scenes(sizes)
        data: Any = wrap_dataset_for_transforms_v2(
            silenced(lambda: CocoDetection(folder, str(path), transforms=change))()
        )
        loader = DataLoader(
            data, 2, sampler=RandomSampler(data, num_samples=10**6), num_workers=workers, collate_fn=list
        )
        return batches_of(loader, workers, sizes.batches)

    return make


def annotations_to_read(sizes: Sizes) -> Path:
    return synthetic.annotations(sizes.folder, max(1, round(1e6 * sizes.json_mb / synthetic.IMAGE_BYTES)))


def our_first_reading(sizes: Sizes) -> Turn:
    path = annotations_to_read(sizes)

    def forget():
        for entry in (cache_folder() / "coco").glob(f"{path.stem}-*.npz"):
            entry.unlink()

    return Turn(lambda: read_coco(path, path.parent), before=forget)


def our_next_reading(sizes: Sizes) -> Turn:
    path = annotations_to_read(sizes)  # the first reading, a turn before, has filled the cache
    return Turn(lambda: read_coco(path, path.parent))


def pycocotools_reading(sizes: Sizes) -> Turn:
    from pycocotools.coco import COCO

    path = annotations_to_read(sizes)
    return Turn(silenced(lambda: COCO(path)))


def our_scores(sizes: Sizes) -> Turn:
    path = synthetic.annotations(sizes.folder, sizes.scored)
    index, results = read_coco(path, path.parent), synthetic.detections(path, sizes.detections)
    return Turn(lambda: coco_scores(index, results))


def pycocotools_scores(sizes: Sizes) -> Turn:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return library_scores(COCO, COCOeval, sizes)


def faster_coco_eval_scores(sizes: Sizes) -> Turn:
    from faster_coco_eval import COCO, COCOeval_faster

    return library_scores(COCO, COCOeval_faster, sizes)


def library_scores(coco: Any, coco_eval: Any, sizes: Sizes) -> Turn:
    """What the documentation of pycocotools and of faster-coco-eval proposes; the annotations are read before."""
    path = synthetic.annotations(sizes.folder, sizes.scored)
    truth, results = silenced(lambda: coco(str(path)))(), synthetic.detections(path, sizes.detections)

    def run():
        judge = coco_eval(truth, truth.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        return judge.stats

    return Turn(silenced(run))


def silenced(function: Callable[[], Any]) -> Callable[[], Any]:
    """The same without what it prints."""

    def run():
        with contextlib.redirect_stdout(io.StringIO()):
            return function()

    return run


# ------------------------------------------------------------------ operators
def pyramid(sizes: Sizes) -> Case:
    return make_case(StarOptions(sizes.pyramid, sizes.channels), 1, CPU, torch.float32)


def star(xs: list[Tensor], where: list[Tensor], weight: Tensor) -> list[Tensor]:
    return star_conv2d_pyramid([(xs, weight)], where, STRIDES)[0]


def deformable(xs: list[Tensor], where: list[Tensor], weight: Tensor) -> list[Tensor]:
    return [deform_conv2d(x, offset, weight, padding=(1, 1)) for x, offset in zip(xs, where, strict=True)]


def convolve(function: Callable, learn: bool) -> Callable[[Sizes], Turn]:
    """Forward, or forward and backward, on all levels; torchvision is given its offsets for nothing."""

    def make(sizes: Sizes) -> Turn:
        case = pyramid(sizes)
        xs, where, weight = case.xs, case.ltrbs, case.weight
        if function is deformable:
            where = [star_offsets(ltrb, stride) for ltrb, stride in zip(where, STRIDES, strict=True)]
            xs, where, weight = [x.contiguous() for x in xs], [w.contiguous() for w in where], weight.contiguous()
        inputs = [t.requires_grad_(learn) for t in (*xs, *where, weight)]
        generator = torch.Generator().manual_seed(0)
        upstream = [torch.empty_like(x).copy_(torch.randn(x.shape, generator=generator)) for x in xs]

        def run():
            with torch.set_grad_enabled(learn):
                out = function(xs, where, weight)
                return torch.autograd.grad(out, inputs, upstream) if learn else out

        return Turn(run)

    return make


def onnx_runtime(sizes: Sizes) -> Turn:
    """The same convolution as ONNX's DeformConv."""
    try:
        helper, onnxruntime = map(importlib.import_module, ("onnx.helper", "onnxruntime"))
    except ImportError:
        raise Skipped("not installed: pip install onnx onnxruntime") from None
    kinds = [helper.make_tensor_value_info(name, 1, None) for name in ("x", "w", "offset", "y")]  # 1: float32
    node = helper.make_node("DeformConv", ["x", "w", "offset"], ["y"], pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    graph = helper.make_graph([node], "star", kinds[:3], kinds[3:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception as error:  # its own classes differ from version to version
        raise Skipped(f"onnxruntime {onnxruntime.__version__} has no DeformConv on a CPU") from error
    case = pyramid(sizes)
    levels = zip(case.xs, case.ltrbs, STRIDES, strict=True)
    weight = case.weight.contiguous().numpy()
    inputs = [
        {"x": x.contiguous().numpy(), "w": weight, "offset": star_offsets(ltrb, stride).contiguous().numpy()}
        for x, ltrb, stride in levels
    ]
    return Turn(lambda: [session.run(None, level) for level in inputs])


def assign(function: Callable) -> Callable[[Sizes], Turn]:
    def make(sizes: Sizes) -> Turn:
        shapes = [(-(-sizes.pyramid[0] // s), -(-sizes.pyramid[1] // s)) for s in STRIDES]
        anchors, level_sizes = pyramid_anchors(shapes, STRIDES, (8.0,)), [h * w for h, w in shapes]
        boxes = random_boxes(sizes.boxes, sizes.pyramid)
        return Turn(lambda: function(anchors, level_sizes, boxes))

    return make


# ------------------------------------------------------------------ the rows
def loader_row(workers: int) -> Row:
    title = (
        f"loading with {workers} worker(s): {{0.batches}} batches of two images of 480 x 640, enlarged to 800 x 1067"
    )
    contenders = {"ours": our_loader(workers), "torchvision v2, CocoDetection": peer_loader(workers)}
    return Row(title, contenders, images=lambda sizes: 2 * sizes.batches, threads=False, memory=False)


ROWS = {
    "answer": Row(
        "answering: one image of {0.answer[0]} x {0.answer[1]} to detections",
        {
            "ours, VFNet R-50": our_answer("fp32"),
            "torchvision FCOS R-50": peer_answer(FCOS, "fp32"),
            "torchvision RetinaNet R-50": peer_answer(RetinaNet, "fp32"),
            "ours, bf16": our_answer("bf16"),
            "torchvision FCOS R-50, bf16": peer_answer(FCOS, "bf16"),
            "torchvision RetinaNet R-50, bf16": peer_answer(RetinaNet, "bf16"),
        },
        images=lambda sizes: 1,
    ),
    "learn": Row(
        "learning: losses and gradients of {0.batch} images of {0.learn[0]} x {0.learn[1]}",
        {
            "ours, VFNet R-50": our_lesson,
            "torchvision FCOS R-50": peer_lesson(FCOS),
            "torchvision RetinaNet R-50": peer_lesson(RetinaNet),
        },
        images=lambda sizes: sizes.batch,
    ),
    "load0": loader_row(0),
    "load1": loader_row(1),
    "load2": loader_row(2),
    "score": Row(
        "scoring: {0.detections:,} detections in {0.scored:,} images",
        {
            "ours": our_scores,
            "pycocotools": pycocotools_scores,
            "faster-coco-eval": faster_coco_eval_scores,
        },
        threads=False,
    ),
    "read": Row(
        "reading annotations: a COCO json of {0.json_mb:g} MB",
        {
            "ours, first time": our_first_reading,
            "ours, next time": our_next_reading,
            "pycocotools": pycocotools_reading,
        },
        threads=False,
    ),
    "star": Row(
        "star convolution, forward: pyramid of {0.pyramid[0]} x {0.pyramid[1]}, {0.channels} channels",
        {
            "ours": convolve(star, learn=False),
            "torchvision deform_conv2d": convolve(deformable, learn=False),
            "onnxruntime DeformConv": onnx_runtime,
        },
    ),
    "star-learn": Row(
        "star convolution, forward and backward: the same",
        {"ours": convolve(star, learn=True), "torchvision deform_conv2d": convolve(deformable, learn=True)},
    ),
    "assign": Row(
        "ATSS: {0.boxes} boxes in {0.pyramid[0]} x {0.pyramid[1]}",
        {"ours": assign(atss), "all pairs": assign(naive_atss)},
    ),
}
