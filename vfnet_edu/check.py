"""Look at a data set before training: what is in it, and what is wrong with it. No file is changed.

    python -m vfnet_edu.check DATA [--html report.html] [--json report.json]

The exit code is 3 when something would stop training.
"""

import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from vfnet_edu.data.paths import DataPaths, find_dataset
from vfnet_edu.data.survey import check_dataset
from vfnet_edu.runtime.errors import Exit, UserError, cli
from vfnet_edu.runtime.files import write_atomically
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
    workers: int = os.cpu_count() or 1
    """images decoded at a time"""
    allow_outside_root: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """accept symbolic links that lead out of the image folder"""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.check", description=__doc__)
    report, sound = check_dataset(find_dataset(_paths(options)), options.workers, options.allow_outside_root, _progress)
    print(as_text(report))
    if options.json:
        _save(options.json, json.dumps(dataclasses.asdict(report) | {"ok": report.ok}, indent=1))
    if options.html:
        _save(options.html, as_html(report, sound))
    if not report.ok:
        stoppers = sum(finding.level == "error" for finding in report.findings)
        what = f"{stoppers} problem{'s' * (stoppers > 1)} would stop training"
        raise UserError(what, remedy="see the lines that begin with ERROR", code=Exit.DATA)


def _paths(options: Options) -> DataPaths:
    if options.folder and options.paths.data:
        raise UserError("the data set folder is named twice", remedy="as DATA or as --data")
    return dataclasses.replace(options.paths, data=options.folder or options.paths.data)


def _progress(items, total: int, what: str):
    return tqdm(items, what, total, unit="img", disable=not sys.stderr.isatty(), leave=False)


def _save(path: Path, text: str) -> None:
    write_atomically(path, text, remedy="choose another place")
    print(f"wrote {path}")


if __name__ == "__main__":
    cli(main)
