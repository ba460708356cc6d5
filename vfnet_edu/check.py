"""Look at a data set before training: what is in it, and what is wrong with it. No file is changed.

    python -m vfnet_edu.check DATA [--html report.html] [--json report.json] [--write-coco FOLDER]

It ends with a training command that fits the data and this machine.  The exit code is 3 when something would stop
training.
"""

import dataclasses
import json
import os
import shlex
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from vfnet_edu.data.annotations import read_split, write_coco
from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.data.paths import DataPaths, Layout, find_dataset
from vfnet_edu.data.survey import Report, check_dataset
from vfnet_edu.runtime import devices
from vfnet_edu.runtime.errors import Exit, UserError, cli
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.training.advice import advise
from vfnet_edu.viz.data_report import as_html, as_text


@dataclass(frozen=True)
class Options:
    """Where the data set is, and where to write what was found."""

    folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")] = None
    """the data set folder; the same as --data"""
    paths: Annotated[DataPaths, tyro.conf.arg(name="")] = DataPaths()
    json: Path | None = None
    """write the report to this file, with every record concerned"""
    html: Path | None = None
    """write the report as one page with some of the images"""
    write_coco: Path | None = None
    """write the annotations as COCO json into this folder, instances_train.json and instances_val.json"""
    estimate: bool = True
    """time a training step, to say how long the advised training takes"""
    workers: int = os.cpu_count() or 1
    """images decoded at a time"""
    allow_outside_root: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """accept symbolic links that lead out of the image folder"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.check", description=__doc__)
    paths = _paths(options)
    layout = find_dataset(paths)
    report, sound = check_dataset(layout, options.workers, options.allow_outside_root, _progress)
    print(as_text(report))
    command, reasons = _advice(paths, sound, options.estimate) if report.ok else ("", {})
    if command:
        print(_as_text(command, reasons))
    if options.json:
        more = {"ok": report.ok, "command": command, "reasons": reasons}
        _save(options.json, json.dumps(dataclasses.asdict(report) | more, indent=1))
    if options.html:
        _save(options.html, as_html(report, sound, command, reasons))
    if options.write_coco:
        _write_coco(layout, report, options.write_coco)
    if not report.ok:
        stoppers = sum(finding.level == "error" for finding in report.findings)
        what = f"{stoppers} problem{'s' * (stoppers > 1)} would stop training"
        raise UserError(what, remedy="see the lines that begin with ERROR", code=Exit.DATA)


def _paths(options: Options) -> DataPaths:
    if options.folder and options.paths.data:
        raise UserError("the data set folder is named twice", remedy="as DATA or as --data")
    return dataclasses.replace(options.paths, data=options.folder or options.paths.data)


def _advice(paths: DataPaths, sound: dict[str, CocoIndex], estimate: bool) -> tuple[str, dict[str, str]]:
    """The command that fits, for a person to copy, and its reasons: what -> why."""
    device = devices.setup().device
    advice = advise(sound["train"].for_training()[0], sound.get("val"), device, estimate)
    named = {f"--{field.name.replace('_', '-')}": getattr(paths, field.name) for field in dataclasses.fields(paths)}
    data = [word for option, path in named.items() if path for word in (option, str(path))]
    words = ["python", "-m", "vfnet_edu.train", advice.options[0], *data, *advice.options[1:]]
    return shlex.join(words), dict(advice.reasons)


def _as_text(command: str, reasons: dict[str, str]) -> str:
    width = max(map(len, reasons))
    lines = [
        textwrap.fill(why, 110, initial_indent=f"  {what:<{width}}  ", subsequent_indent=" " * (width + 4))
        for what, why in reasons.items()
    ]
    return "\n".join(["\nA command to start from:", "", f"  {command}", "", *lines])


def _write_coco(layout: Layout, report: Report, folder: Path) -> None:
    """The json of every split that could be read."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot write here: {error.strerror}", code=Exit.STORAGE) from None
    for split, files in (("train", layout.train), ("val", layout.val)):
        if files and split in report.splits:
            index, path = read_split(files), folder / f"instances_{split}.json"
            write_coco(index, path)
            words = [f"--{split}-json", str(path), f"--{split}-images", str(index.root)]
            print(f"wrote {path}; to use it: {shlex.join(words)}")


def _progress(items, total: int, what: str):
    return tqdm(items, what, total, unit="img", disable=not sys.stderr.isatty(), leave=False)


def _save(path: Path, text: str) -> None:
    write_atomically(path, text, remedy="choose another place")
    print(f"wrote {path}")


if __name__ == "__main__":
    cli(main)
