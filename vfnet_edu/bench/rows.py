"""The rows of `bench peers`: each is a task, and each contender a function of the sizes that makes its :class:`Turn`.

What people would use instead stands beside ours, as they would use it.
"""

from torchvision.models.detection import FCOS, RetinaNet

from vfnet_edu.assigners import atss
from vfnet_edu.bench.assign import naive_atss
from vfnet_edu.bench.peer_data import (
    faster_coco_eval_scores,
    our_first_reading,
    our_loader,
    our_next_reading,
    our_scores,
    peer_loader,
    pycocotools_reading,
    pycocotools_scores,
)
from vfnet_edu.bench.peer_detectors import our_answer, our_lesson, peer_answer, peer_lesson
from vfnet_edu.bench.peer_operators import assign, convolve, deformable, onnx_runtime, star
from vfnet_edu.bench.turns import Row


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
