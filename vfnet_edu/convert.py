"""Turn a checkpoint of the authors, or of mmdetection 2.x or 3.x, into one of ours; or the other way round.

    python -m vfnet_edu.convert vfnet_r50_fpn_1x_coco_20201027-38db6f58.pth
    python -m vfnet_edu.convert runs/mine --to-mmdet

Every key is used or named in an error, and shapes are compared; only the second set of weights of an EMA hook is left
out, with a word.  A model that has the keys and shapes of one of ours, but is a different one according to the config
inside the file, is refused.  No code inside a file is run.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from vfnet_edu.runtime.errors import UserError, cli
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.weights import ours, zoo
from vfnet_edu.weights.mmdet import load_mmdet, to_mmdet


@dataclass(frozen=True)
class Options:
    """What to convert, and where to."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """one of their .pth files; with --to-mmdet a checkpoint, a run folder or a name: vfnet_tiny, vfnet_r50_1x, ..."""
    recipe: str = ""
    """name of the recipe, where several fit"""
    out: Path | None = None
    """file to write; by default next to the input"""
    to_mmdet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """write a .pth that mmdetection loads"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.convert", description=__doc__)
    if options.to_mmdet:
        if options.recipe:
            raise UserError("--recipe does not go with --to-mmdet: our checkpoints know their own recipe")
        file = zoo.find(options.file)
        recipe, model = ours.load_file(file)
        name = recipe.name
        beside = file if options.file.exists() else Path(file.name)  # a name: write to the current folder
        out = options.out or beside.with_suffix(".pth")
        write_atomically(out, mmdet_bytes(model))
    else:
        model, names = load_mmdet(options.file, options.recipe)
        if len(names) > 1:
            print(f"fits {', '.join(names)}: same weights, trained or tested differently; --recipe chooses another")
        name, out = names[0], options.out or options.file.with_suffix(".safetensors")
        ours.save(out, model, {"source": options.file.name})
    count = sum(p.numel() for p in model.parameters())
    print(f"{name}, {len(model.classes)} classes, {count:,} parameters -> {out}")


def mmdet_bytes(model: torch.nn.Module) -> bytes:
    """A file as mmdetection writes it; the classes are where both 2.x and 3.x look for them."""
    state = {k: v.cpu().contiguous() for k, v in to_mmdet(model.state_dict()).items()}
    meta = {"CLASSES": model.classes, "dataset_meta": {"classes": model.classes}}
    buffer = io.BytesIO()
    torch.save({"meta": meta, "state_dict": state}, buffer)
    return buffer.getvalue()


if __name__ == "__main__":
    cli(main)
