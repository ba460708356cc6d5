"""`python -m vfnet_edu.bench WHAT`: tables of measurements, never tests."""

import importlib
import os

from vfnet_edu.runtime.errors import UserError, cli

WHAT = {
    "peers": "all of it beside its peers: detectors, loading, scoring, reading, the star, ATSS",
    "star": "the engines of the star convolution against torchvision's deformable convolution",
    "tune": "the tiles of the star's kernels, on a GPU",
    "model": "images per second of a recipe, forward and training step",
    "data": "images per second of the loader, by number of workers",
    "assign": "ATSS against its naive reference, by number of boxes",
    "speedrun": "the ladder of the fastest way to 59 AP on the embedded data set",
    "errors": "what the star repairs: kinds of errors with it and without, three seeds",
    "ranking": "which loss teaches a score to rank: frozen boxes, four losses, three seeds",
    "deform": "does DCNv2 help the toy? one convolution deformed, three seeds and a control",
    "interval": "how far an AP can be trusted: the bootstrap on 5,000 scenes, and 16 exams of 300",
    "losses": "focal against varifocal loss, head by head, on the embedded data set",
}


def main(args: list[str]) -> None:
    if not args or args[0] not in WHAT:
        if args and args[0] not in ("-h", "--help"):
            raise UserError(f"unknown benchmark {args[0]!r}", remedy=f"one of {', '.join(WHAT)}")
        print("usage: python -m vfnet_edu.bench WHAT [options]\n")
        print("\n".join(f"  {name:<8} {text}" for name, text in WHAT.items()))
        return
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # PyTorch's profiler talks on stderr
    importlib.import_module(f"vfnet_edu.bench.{args[0]}").main(args[1:])


if __name__ == "__main__":
    cli(main)
