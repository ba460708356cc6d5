"""Turn a detector into a file that runs without this package: ONNX for other runtimes, or a program of torch.export.

    python -m vfnet_edu.export runs/mine                     # best.onnx beside the weights
    python -m vfnet_edu.export vfnet_tiny --to pt2

The file takes uint8 RGB images (B, 3, h, w), any number of them and of any size, and returns scores (B, P, K) and
boxes (B, P, 4), decoded and in pixels; normalising and padding happen inside, choosing and suppressing are left to you.
It is compared with PyTorch before it is written, and knows its classes, preprocessing, recipe, and how it compared.
"""

import importlib.util
import io
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config

from vfnet_edu.boxes import clip
from vfnet_edu.models.detector import MEAN, STD, Detector, evaluating
from vfnet_edu.models.fold import fold_norms
from vfnet_edu.postprocess import Candidates
from vfnet_edu.runtime.config import to_dict
from vfnet_edu.runtime.errors import Exit, UserError, cli
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.weights import ours, zoo

Format = Literal["onnx", "pt2"]
ABOUT = "vfnet_edu.json"  # the name of the metadata inside a .pt2
TRIED = ((1, 64, 96), (3, 130, 175), (2, 257, 40))  # (B, h, w) at which file and model are compared
MOST_SCORES, MOST_BOXES = 1e-4, 0.05  # how far they may be apart; boxes in pixels


@dataclass(frozen=True)
class Options:
    """What to export, and where to."""

    what: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")]
    """a run folder, best.safetensors, last.pt, or a name: vfnet_tiny, vfnet_r50_1x, ..."""
    to: Format = "onnx"
    """onnx: for onnxruntime, OpenVINO and others; pt2: for torch.export.load"""
    out: Path | None = None
    """file to write; by default next to the weights"""
    force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """write the file also if its results differ from PyTorch's by more than they may; it says so inside"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.export", description=__doc__)
    need(options.to)
    file = zoo.find(options.what)
    beside = file if options.what.exists() else Path(file.name)  # a name: write to the current folder
    out = options.out or beside.with_suffix(f".{options.to}")
    if not out.parent.is_dir():  # before minutes of work
        raise UserError(f"{out.parent}: no such folder", remedy="make it, or give another --out", code=Exit.STORAGE)
    _, model = ours.load_file(file)
    content, verdict = export(model, options.to, options.force)
    write_atomically(out, content)
    print(f"{model.recipe.name}, {len(model.classes)} classes, {len(content) / 1e6:.1f} MB -> {out}")
    print(as_text(verdict))


def need(to: Format) -> None:
    """Raises UserError: a package for this format is not installed."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if to == "onnx" and missing:
        raise UserError(f"ONNX needs {', '.join(missing)}", remedy="pip install 'vfnet_edu[export]'")


def export(model: Detector, to: Format = "onnx", force: bool = False) -> tuple[bytes, dict[str, Any]]:
    """A detector as the content of a file, compared with the detector itself.

    Args:
        model: stays as it is; on the CPU.
        to: the format.
        force: give the content also where it disagrees.

    Returns:
        the content; and the verdict, see :func:`verify`.

    Raises:
        UserError: code DIVERGED where the file computes something else.
    """
    program = trace(model)
    pack = _Onnx(program) if to == "onnx" else _Pt2(program)
    verdict = verify(model, pack.content({}))
    if not verdict["agrees"] and not force:
        remedy = "--force writes it all the same"
        raise UserError(f"not exported: {as_text(verdict)}", remedy=remedy, code=Exit.DIVERGED)
    return pack.content(metadata(model, verdict)), verdict


# ------------------------------------------------------------------ the program
class Exportable(nn.Module):
    """A detector as a function of one tensor: images in, every prediction out.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: Detector):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 RGB (B, 3, h, w) -> scores (B, P, K) in [0, 1]; boxes (B, P, 4) xyxy, pixels, inside the image"""
        model, (h, w) = self.model, images.shape[-2:]
        batch = F.pad((images - model.mean) / model.std, (0, -w % 32, 0, -h % 32))  # (B, 3, H, W)
        found = model.head.candidates(model.network(batch), [(h, w)])
        return _ranking(found), clip(found.boxes.float(), (h, w))


def _ranking(found: Candidates) -> Tensor:
    """The scores that detections are ranked by, (B, P, K) float32: with ATSS, centerness is multiplied in."""
    return (found.scores if found.factor is None else found.scores * found.factor[..., None]).float()


def trace(model: Detector) -> ExportedProgram:
    """The detector as a graph of standard operators, for images of any number and size; norms folded."""
    program = Exportable(fold_norms(model))
    example = torch.zeros(2, 3, 150, 203, dtype=torch.uint8)
    sizes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad(), _any_size():
        return torch.export.export(program, (example,), dynamic_shapes=(sizes,))


def _any_size():
    """Inside, a side of one cell is no special case; otherwise the program would refuse small images."""
    return _config.patch(backed_size_oblivious=True)  # pyright: ignore[reportAttributeAccessIssue] (added at run time)


# ------------------------------------------------------------------ the formats
class _Onnx:
    """ONNX, by the exporter that starts from torch.export ("dynamo")."""

    def __init__(self, program: ExportedProgram):
        with warnings.catch_warnings(), _any_size():
            warnings.simplefilter("ignore")
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            made = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=["images"], output_names=["scores", "boxes"]
            )
        assert made is not None  # it is, only without dynamo
        self.proto = made.model_proto
        graph = self.proto.graph
        del graph.value_info[:]  # shapes in between, as formulas that nobody reads
        named = {"images": ("batch", "", "height", "width"), "scores": ("batch", "predictions", "")}
        for value in [*graph.input, *graph.output]:
            names = named.get(value.name, named["scores"])
            for dim, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
                if name:
                    dim.dim_param = name

    def content(self, about: dict[str, str]) -> bytes:
        for key, value in about.items():
            self.proto.metadata_props.add(key=key, value=value)
        return self.proto.SerializeToString()


class _Pt2:
    """What torch.export.save writes."""

    def __init__(self, program: ExportedProgram):
        self.program = program

    def content(self, about: dict[str, str]) -> bytes:
        buffer = io.BytesIO()
        torch.export.save(self.program, buffer, extra_files={ABOUT: json.dumps(about)})
        return buffer.getvalue()


def runner(content: bytes):
    """A function images (B, 3, h, w) -> (scores, boxes) that runs the content of an exported file, as a user would."""
    if content[:2] == b"PK":  # a .pt2 is a zip archive
        # its guards tell the sizes it was traced with from others, and some refuse the smallest images without need
        return torch.export.load(io.BytesIO(content)).module(check_guards=False)
    import onnxruntime  # an extra

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(x) for x in session.run(None, {"images": images.numpy()})]


# ------------------------------------------------------------------ what it is, and whether it is right
def metadata(model: Detector, verdict: dict[str, Any]) -> dict[str, str]:
    """What a file says about itself: text, most of it JSON."""
    recipe = model.recipe
    before = {
        "colours": "RGB",
        "long_side": max(recipe.data.test_scale),  # resize until a side reaches its limit, keeping the aspect ratio
        "short_side": min(recipe.data.test_scale),
        "interpolation": "bilinear, without smoothing",
        "done_inside": ["mean", "std", "padding_divisor"],
        "mean": MEAN,
        "std": STD,
        "padding_divisor": 32,
    }
    after = {
        "min_score": recipe.detect.min_score,
        "nms": recipe.detect.nms,
        "nms_iou": recipe.detect.nms_iou,
        "max_detections": recipe.detect.max_detections,
    }
    told = {"classes": model.classes, "preprocessing": before, "postprocessing": after, "verified": verdict}
    told["recipe"] = to_dict(recipe)
    return {"format": "vfnet_edu export 1", **{key: json.dumps(value) for key, value in told.items()}}


def verify(model: Detector, content: bytes) -> dict[str, Any]:
    """The same images through the file and through the detector.

    Returns:
        ``agrees``; the largest differences of ``scores`` and of ``boxes`` (pixels); what they may be (``allowed``); the
        ``sizes`` (B, h, w) that were tried; the version of ``torch``.
    """
    run, generator = runner(content), torch.Generator().manual_seed(0)
    apart = []
    for size in TRIED:
        images = torch.randint(0, 256, (size[0], 3, *size[1:]), dtype=torch.uint8, generator=generator)
        with evaluating(model):
            found = model.candidates(model.raw(list(images)), list(images))
            scores, boxes = _ranking(found), clip(found.boxes, size[1:])
            with torch.no_grad():
                theirs = run(images)
            apart.append([_apart(a, b) for a, b in zip((scores, boxes), theirs, strict=True)])
    worst = np.max(apart, axis=0).tolist()  # NaN, if there is one
    return {
        "agrees": worst[0] <= MOST_SCORES and worst[1] <= MOST_BOXES,
        "scores": worst[0],
        "boxes": worst[1],
        "allowed": [MOST_SCORES, MOST_BOXES],
        "sizes": TRIED,
        "torch": str(torch.__version__),
    }


def _apart(a: Tensor, b: Tensor) -> float:
    """The largest difference; infinite for tensors of different shapes."""
    return (a - b).abs().max().item() if a.shape == b.shape else float("inf")


def as_text(verdict: dict[str, Any]) -> str:
    says = "agrees with PyTorch" if verdict["agrees"] else "does not agree with PyTorch"
    images = ", ".join(f"{n} x {w} x {h}" for n, h, w in verdict["sizes"])
    within = f"scores within {verdict['scores']:.1e}, boxes within {verdict['boxes']:.1e} pixels"
    return f"{says}: {within} (for images of {images} pixels)"


if __name__ == "__main__":
    cli(main)
