"""`vfnet-edu VERB ...`: the same as `python -m vfnet_edu.VERB ...`, for every verb."""

import importlib
import sys

from vfnet_edu.runtime.errors import UserError, cli

VERBS = {
    "train": "train a detector; without arguments a small one on drawn shapes",
    "evaluate": "the COCO numbers of a checkpoint, or of a result file",
    "predict": "detections of an image, a folder or a video",
    "check": "report on a data set before training",
    "convert": "the authors' and mmdetection's checkpoints into ours, and back",
    "export": "a checkpoint into a file for onnxruntime and others",
    "summary": "parameters and FLOPs of a recipe, part by part",
    "bench": "measure star engines, models, data loading",
    "doctor": "versions, devices, and a five-second self-test",
}


def main() -> None:
    """Run one verb."""
    cli(dispatch)


def dispatch(args: list[str]) -> None:
    """The first word names the command; the rest belongs to it."""
    if not args or args[0] in ("-h", "--help"):
        print("usage: vfnet-edu VERB [options]      (VERB --help explains)\n")
        print("\n".join(f"  {verb:<10} {what}" for verb, what in VERBS.items()))
        return
    verb, *rest = args
    if verb not in VERBS:
        raise UserError(f"unknown verb {verb!r}", remedy=f"one of {', '.join(VERBS)}")
    sys.argv = [f"vfnet-edu {verb}", *rest]
    importlib.import_module(f"vfnet_edu.{verb}" + (".__main__" if verb == "bench" else "")).main(rest)


if __name__ == "__main__":
    main()
