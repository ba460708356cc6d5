"""Detect objects in an image, a folder of images or a video.

``python -m vfnet_edu.predict CHECKPOINT street.jpg`` writes the drawn picture and predictions.json.
"""

import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from vfnet_edu.boxes import xyxy_to_xywh
from vfnet_edu.data.images import SUFFIXES, as_pixels
from vfnet_edu.inference import detect, for_inference
from vfnet_edu.models.detector import Detector
from vfnet_edu.postprocess import Detections
from vfnet_edu.runtime import devices
from vfnet_edu.runtime.errors import Exit, UserError, cli
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.viz.drawing import render
from vfnet_edu.weights import zoo


# ------------------------------------------------------------------ the command
@dataclass(frozen=True)
class Options:
    """Draw what a detector finds in images or a video."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """a run folder, best.safetensors, last.pt, or a name: vfnet_tiny, vfnet_r50_1x, ..."""
    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """an image, a folder of images, or a video"""
    out: Path = Path("predictions")
    """folder for the drawn pictures or video, and predictions.json"""
    min_score: float = 0.3
    """boxes below it are neither drawn nor written"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: devices.Precision = "auto"
    """what the network computes in; auto: bf16 where the device has instructions for it, else fp32"""
    compile: bool = False
    """translate the network to machine code first: minutes, for more images per second afterwards"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.predict")
    source, out = options.input, options.out
    if not source.exists():
        raise UserError(f"{source}: no such file or folder", code=Exit.DATA)
    folder = source if source.is_dir() else source.parent
    if out.resolve() == folder.resolve():
        raise UserError(f"--out {out} is where the input is", remedy="name another folder: no input is overwritten")
    device = devices.setup(options.device).device
    precision = devices.choose_precision(options.precision, device)
    model = for_inference(zoo.load(options.checkpoint, device)[1], options.compile)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot write here: {error.strerror}", code=Exit.STORAGE) from None

    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES) if source.is_dir() else [source]
    if not files:
        raise UserError(
            f"{source}: no image in this folder", remedy=f"looked for {', '.join(SUFFIXES)}", code=Exit.DATA
        )
    if files[0].suffix.lower() in SUFFIXES:
        results, bad = in_images(model, files, out, options.min_score, precision)
    else:
        results, bad = in_video(model, source, out, options.min_score, precision), []
    write_atomically(out / "predictions.json", json.dumps(results).encode())
    print(f"{len(results)} objects in {out / 'predictions.json'}")
    if bad:
        raise UserError(f"{len(bad)} of {len(files)} images could not be read: {', '.join(bad)}", code=Exit.DATA)


def in_images(
    model: Detector, files: list[Path], out: Path, min_score: float, precision: devices.Precision
) -> tuple[list[dict], list[str]]:
    """Draw every image into the folder `out`.  -> COCO results, and the names of files that are not images"""
    results, bad = [], []
    for number, file in enumerate(files, 1):
        try:
            image = as_pixels(file)
        except UserError as error:
            if len(files) == 1:
                raise
            # the others are still worth having
            print(f"skipped: {error}", file=sys.stderr)
            bad.append(file.name)
            continue
        found = detect(model, image, min_score=min_score, precision=precision)
        results += coco_results(found, number, model.classes, file.name)
        name = file.name if file.suffix.lower() in (".jpg", ".jpeg", ".png") else file.name + ".png"
        write_atomically(out / name, encode(picture(model, image, found), Path(name).suffix))
        counts = Counter(model.classes[label] for label in found.labels.tolist())
        print(f"{file.name}: " + (", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing found"))
    return results, bad


def in_video(model: Detector, file: Path, out: Path, min_score: float, precision: devices.Precision) -> list[dict]:
    """Draw a video into ``out/<name>.mp4``, without sound.  -> COCO results, image_id is the frame, from 1"""
    capture = cv2.VideoCapture(str(file))
    rate, total = capture.get(cv2.CAP_PROP_FPS) or 25, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    target, writer, results = out / f"{file.stem}.mp4", None, []
    try:
        for number, frame in enumerate(tqdm(frames(capture), total=max(total, 0) or None, unit="frame"), 1):
            found = detect(model, frame, min_score=min_score, precision=precision)
            results += coco_results(found, number, model.classes, file.name)
            drawn = picture(model, frame, found)
            if writer is None:
                writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), rate, drawn.shape[1::-1])
                if not writer.isOpened():
                    raise UserError(f"{target}: cannot write this video", code=Exit.STORAGE)
            writer.write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    finally:
        capture.release()
        if writer is not None:
            writer.release()
    if writer is None:
        raise UserError(f"{file} is neither an image nor a video that can be read", code=Exit.DATA)
    print(f"{target}: {number} frames")
    return results


def frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """The frames of a video, (h, w, 3) RGB."""
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def picture(model: Detector, image: np.ndarray, found: Detections) -> np.ndarray:
    """Drawn boxes; small pictures are enlarged so that the labels can be read."""
    return render(image, found, model.classes, min_score=0, zoom=max(640 // max(image.shape[:2]), 1))


def encode(image: np.ndarray, suffix: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG" if suffix.lower() == ".png" else "JPEG", quality=92)
    return buffer.getvalue()


def coco_results(found: Detections, image_id: int, classes: tuple[str, ...], file_name: str) -> list[dict]:
    """COCO results; a checkpoint knows the names of its classes, so `category_id` is their position, from 1."""
    return [
        {
            "image_id": image_id,
            "category_id": label + 1,
            "bbox": box,
            "score": score,
            "category": classes[label],
            "file_name": file_name,
        }
        for box, score, label in zip(
            xyxy_to_xywh(found.boxes).tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
        )
    ]


if __name__ == "__main__":
    cli(main)
