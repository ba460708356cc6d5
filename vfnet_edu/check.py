"""Look at a data set before training: what is in it, and what is wrong with it. No file is changed.

    python -m vfnet_edu.check DATA [--html report.html] [--json report.json]

The exit code is 3 when something would stop training.
"""

import base64
import dataclasses
import html
import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image, ImageDraw
from tqdm import tqdm

from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.data.images import read_image
from vfnet_edu.data.paths import DataPaths, find_dataset
from vfnet_edu.data.survey import SIZES, Finding, Report, Split, check_dataset
from vfnet_edu.data.transforms import clip, resize
from vfnet_edu.runtime.errors import Exit, UserError, cli


@dataclass(frozen=True)
class Options:
    """Where the data set is, and where to write what was found."""

    data: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the data set (COCO or Roboflow layout)."""
    train_json: Path | None = None
    """Annotations to learn from, in place of those found in the folder."""
    train_images: Path | None = None
    """Folder of their images."""
    val_json: Path | None = None
    """Annotations to evaluate on."""
    val_images: Path | None = None
    """Folder of their images."""
    json: Path | None = None
    """Write the report to this file, with every record concerned."""
    html: Path | None = None
    """Write the report as one page with some of the images."""
    workers: int = os.cpu_count() or 1
    """Images decoded at a time."""
    allow_outside_root: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Accept symbolic links that lead out of the image folder."""


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.check", description=__doc__)
    paths = DataPaths(options.data, options.train_json, options.train_images, options.val_json, options.val_images)
    layout = find_dataset(paths)
    report, indices = check_dataset(layout, options.workers, options.allow_outside_root, _progress)
    print(as_text(report))
    if options.json:
        _write(options.json, json.dumps(dataclasses.asdict(report) | {"ok": report.ok}, indent=1))
    if options.html:
        _write(options.html, as_html(report, indices))
    if not report.ok:
        stoppers = sum(finding.level == "error" for finding in report.findings)
        what = f"{stoppers} problem{'s' * (stoppers > 1)} would stop training"
        raise UserError(what, remedy="see the lines that begin with ERROR", code=Exit.DATA)


def _progress(items, total: int, what: str):
    return tqdm(items, what, total, unit="img", disable=not sys.stderr.isatty(), leave=False)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}", remedy="choose another place", code=Exit.STORAGE
        ) from None
    print(f"wrote {path}")


# ---- Text ------------------------------------------------------------------------------------------------------------


def as_text(report: Report, most: int = 5) -> str:
    """The report for a terminal; of each finding the first `most` records."""
    parts = []
    for name, split in report.splits.items():
        parts.append(f"{name}: {split.json}\n" + "\n".join(f"  {key:<18}{value}" for key, value in _facts(split)))
        parts.append(_class_table(split))
    for finding in report.findings:
        records = [f"    {record}" for record in finding.examples[:most]]
        if len(finding.examples) > most:
            records.append(f"    and {len(finding.examples) - most} more (all with --json)")
        parts.append("\n".join([f"{finding.level.upper():<8}{finding.split}: {finding.what}", *records]))
    parts.append("Nothing here would stop training." if report.ok else "Training would stop.")
    return "\n\n".join(_printable(part) for part in parts)


def _printable(text: str) -> str:
    """File and class names are strangers' text: no control characters reach the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _facts(split: Split) -> list[tuple[str, str]]:
    sizes = [f"{w} x {h}" for w, h in split.image_sizes.values()]
    facts = [
        ("images", f"{split.images:,}, {split.images_without_objects:,} of them without an object"),
        ("image sizes", sizes[0] if len(set(sizes)) == 1 else f"{sizes[0]} to {sizes[2]}, median {sizes[1]}"),
        ("objects", f"{split.objects:,} of {len(split.per_class)} classes, and {split.crowds:,} crowds"),
        ("per image", "mean {mean:.1f}, median {median:g}, most {most}".format(**split.per_image)),
        ("COCO size", ", ".join(f"{_percent(n, split.objects)} {size}" for size, n in split.coco_sizes.items())),
    ]
    if split.objects:
        px, ratio = split.size_percentiles, split.aspect_percentiles
        facts.append(("box size", f"{px['5']:.0f} to {px['95']:.0f} px (5 % to 95 %), median {px['50']:.0f} px"))
        facts.append(("width / height", f"{ratio['5']:.2f} to {ratio['95']:.2f}, median {ratio['50']:.2f}"))
    return facts


def _class_table(split: Split, most: int = 24) -> str:
    rows = sorted(split.per_class.items(), key=lambda row: -row[1][0])
    cut = [] if len(rows) <= most else [f"  ... {len(rows) - most} classes between ..."]
    top = rows if not cut else rows[: most // 2]
    end = [] if not cut else rows[-most // 2 :]
    wide = max(len(name) for name, _ in top + end)
    line = "  {:<{}} {:>9,} objects in {:>7,} images  {}"
    most_objects = max(rows[0][1][0], 1)

    def show(name: str, objects: int, images: int) -> str:
        return line.format(name, wide, objects, images, "#" * round(30 * objects / most_objects)).rstrip()

    return "\n".join([show(n, *c) for n, c in top] + cut + [show(n, *c) for n, c in end])


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.0f} %"


# ---- HTML ------------------------------------------------------------------------------------------------------------

_STYLE = """
:root {
  --ink: #1c2733; --dim: #637083; --line: #e2e7ee; --page: #f6f8fa; --card: #fff; --bar: #3b74b8; --val: #7fb3a6;
  --error: #b3261e; --warning: #a86400; --note: #4a6785; --good: #1b7a4b }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e5eaf0; --dim: #96a3b3; --line: #2d3845; --page: #12181f; --card: #1b242e; --bar: #6ea3e0; --val: #6fb7a5;
  --error: #d9605a; --warning: #d9983a; --note: #7d9bb8; --good: #3f9b6c } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1080px; padding: 32px 24px 64px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 26px; margin: 0 0 4px }
h2 { font-size: 18px; margin: 36px 0 12px }
h3 { font-size: 14px; margin: 0 0 8px }
.path { font: 12.5px ui-monospace, monospace; color: var(--dim); overflow-wrap: anywhere }
.verdict { display: inline-block; margin-top: 14px; padding: 6px 14px; border-radius: 99px; font-weight: 600;
  color: #fff }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 16px }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; min-width: 0 }
table { border-collapse: collapse; width: 100% }
td { padding: 3px 0; vertical-align: top }
td:first-child { color: var(--dim); padding-right: 14px; white-space: nowrap }
.finding { border-left: 4px solid; margin-bottom: 10px; padding: 10px 16px; overflow-wrap: anywhere }
.finding b { text-transform: uppercase; font-size: 12px; letter-spacing: .04em; margin-right: 8px }
.error { border-left-color: var(--error) } .error b { color: var(--error) }
.warning { border-left-color: var(--warning) } .warning b { color: var(--warning) }
.note { border-left-color: var(--note) } .note b { color: var(--note) }
summary { cursor: pointer; color: var(--dim); font-size: 13px }
li { overflow-wrap: anywhere; font-size: 13px }
.classes { columns: 2 420px; column-gap: 32px }
.row { display: grid; grid-template-columns: 130px 1fr 110px; gap: 10px; align-items: center; break-inside: avoid;
  font-size: 13px; padding: 1px 0 }
.row span:first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.row span:last-child { color: var(--dim); text-align: right; font-variant-numeric: tabular-nums }
.bar { height: 7px; border-radius: 3px; background: var(--bar); min-width: 1px }
.bar.val { background: var(--val); margin-top: 2px }
.histogram { display: flex; align-items: flex-end; gap: 4px; height: 120px }
.histogram div { flex: 1; text-align: center; font-size: 11px; color: var(--dim) }
.histogram .bar { border-radius: 3px 3px 0 0 }
.axis { display: flex; gap: 4px; font-size: 10.5px; color: var(--dim); border-top: 1px solid var(--line) }
.axis span { flex: 1; text-align: center; white-space: nowrap; padding-top: 3px }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 14px }
figure { margin: 0 }
img { width: 100%; aspect-ratio: 4/3; object-fit: contain; border-radius: 8px; display: block; background: var(--card);
  border: 1px solid var(--line) }
.key { display: inline-block; width: 22px; margin: 0 6px 2px 12px }
figcaption { font-size: 12px; color: var(--dim); overflow-wrap: anywhere }
"""


def as_html(report: Report, indices: dict[str, CocoIndex], photos: int = 6) -> str:
    """The report as one page that needs nothing else; every name from the data set is escaped."""
    color, verdict = ("good", "Nothing would stop training") if report.ok else ("error", "Training would stop")
    findings = "".join(map(_finding_card, report.findings)) or '<div class="card">Nothing to report.</div>'
    bodies = "".join(_split_cards(name, split) for name, split in report.splits.items())
    pictures = "".join(f"<h2>Some images of {name}</h2>{_photos(index, photos)}" for name, index in indices.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Data set report</title><style>{_STYLE}</style></head><body>
<h1>Data set report</h1>{"".join(f'<div class="path">{_e(split.json)}</div>' for split in report.splits.values())}
<div class="verdict" style="background: var(--{color})">{verdict}</div>
<h2>Findings</h2>{findings}
{bodies}
<h2>Objects per class{"".join(f'<span class="bar key {name}"></span>{name}' for name in report.splits)}</h2>
<div class="card classes">{_class_bars(report.splits)}</div>
{pictures}
</body></html>
"""


def _e(text: object) -> str:
    return html.escape(str(text))


def _finding_card(finding: Finding, most: int = 100) -> str:
    records = "".join(f"<li>{_e(record)}</li>" for record in finding.examples[:most])
    more = len(finding.examples) - most
    rest = f"<li>and {more} more</li>" if more > 0 else ""
    details = f"<details><summary>which</summary><ul>{records}{rest}</ul></details>" if records else ""
    head = f"<b>{finding.level}</b>{_e(finding.split)}: {_e(finding.what)}"
    return f'<div class="card finding {finding.level}">{head}{details}</div>'


def _split_cards(name: str, split: Split) -> str:
    facts = "".join(f"<tr><td>{key}</td><td>{_e(value)}</td></tr>" for key, value in _facts(split))
    sizes = [f"{low:g}" for low in SIZES[:-1]]
    halves = ("0", "1:8", "1:4", "1:2", "1:1", "2:1", "4:1", "8:1")
    return f"""<h2>{name}</h2><div class="cards">
<div class="card"><h3>Numbers</h3><table>{facts}</table></div>
<div class="card"><h3>Box side, &radic;(width &times; height), from</h3>{_histogram(split.sizes, sizes)}</div>
<div class="card"><h3>Box shape: width : height, from</h3>{_histogram(split.aspects, halves)}</div></div>"""


def _histogram(counts: tuple[int, ...], labels) -> str:
    most, total = max(max(counts), 1), sum(counts)
    bars = "".join(
        f'<div title="{n:,}">{_percent(n, total) if n else ""}'
        f'<div class="bar" style="height: {90 * n / most:.1f}px"></div></div>'
        for n in counts
    )
    axis = "".join(f"<span>{label}</span>" for label in labels)
    return f'<div class="histogram">{bars}</div><div class="axis">{axis}</div>'


def _class_bars(splits: dict[str, Split]) -> str:
    names = list(dict.fromkeys(name for split in splits.values() for name in split.per_class))
    counts = {key: [split.per_class.get(name, (0, 0))[0] for name in names] for key, split in splits.items()}
    largest = {key: max(max(values, default=0), 1) for key, values in counts.items()}
    rows = []
    for i, name in enumerate(names):
        bars = "".join(
            f'<div class="bar {key}" title="{key}" style="width: {100 * values[i] / largest[key]:.1f}%"></div>'
            for key, values in counts.items()
        )
        number = " / ".join(f"{values[i]:,}" for values in counts.values())
        rows.append(
            f'<div class="row"><span title="{_e(name)}">{_e(name)}</span><span>{bars}</span><span>{number}</span></div>'
        )
    return "".join(rows)


def _photos(index: CocoIndex, count: int) -> str:
    """Images with their boxes, evenly spaced over the split, inside of the page."""
    rows = [row for row in range(len(index)) if len(index.target(row)[0])] or list(range(len(index)))
    figures = []
    for row in np.array(rows)[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]:
        boxes, labels = index.target(row)
        try:
            image = read_image(index.path(row), index.size(row))
        except UserError:
            continue  # it stands among the errors
        image, boxes, _ = resize(image, clip(boxes, *image.shape[:2]), (480, 480))
        picture = Image.fromarray(image)
        draw = ImageDraw.Draw(picture)
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            color = f"hsl({label * 137.5 % 360:.0f}, 90%, 55%)"  # the golden angle: neighbours look different
            draw.rectangle(box, outline=color, width=2)
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=80)
        data = base64.b64encode(stream.getvalue()).decode()
        present = ", ".join(sorted({index.classes[label] for label in labels.tolist()}))
        caption = f"{_e(index.file_names[row])}: {len(boxes)} &times; {_e(present)}"
        figures.append(
            f'<figure><img src="data:image/jpeg;base64,{data}" alt=""><figcaption>{caption}</figcaption></figure>'
        )
    return f'<div class="photos">{"".join(figures)}</div>'


if __name__ == "__main__":
    cli(main)
