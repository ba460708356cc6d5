"""The report on a data set, for a terminal and as one page. What is reported is found in data/survey.py."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image, ImageDraw

from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.data.images import read_image
from vfnet_edu.data.survey import SIZES, Finding, Report, Split
from vfnet_edu.data.transforms import clip, resized_size
from vfnet_edu.viz import page
from vfnet_edu.viz.drawing import colour

PHOTO = 480  # the longer side of a picture in the page, pixels
SHAPES = ("0", "1:8", "1:4", "1:2", "1:1", "2:1", "4:1", "8:1")  # the limits of survey.ASPECTS

# ---- Text ------------------------------------------------------------------------------------------------------------


def as_text(report: Report, most: int = 5) -> str:
    """The report for a terminal; for each finding the first `most` records."""
    parts = []
    for name, split in report.splits.items():
        lines = (f"  {what:<18}{value}" for what, value in _facts(split).items())
        parts += ["\n".join([f"{name}: {split.json}", *lines]), _class_table(split)]
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


def _facts(split: Split) -> dict[str, str]:
    sizes = [f"{w} x {h}" for w, h in split.image_sizes.values()]
    facts = {
        "images": f"{split.images:,}, {split.images_without_objects:,} of them without an object",
        "image sizes": sizes[0] if len(set(sizes)) == 1 else f"{sizes[0]} to {sizes[2]}, median {sizes[1]}",
        "objects": f"{split.objects:,} of {len(split.per_class)} classes, and {split.crowds:,} crowds",
        "per image": "mean {mean:.1f}, median {median:g}, maximum {most}".format(**split.per_image),
        "COCO size": ", ".join(f"{_percent(n, split.objects)} {size}" for size, n in split.coco_sizes.items()),
    }
    if split.objects:
        px, ratio = split.size_percentiles, split.aspect_percentiles
        facts["box size"] = f"{px['5']:.0f} to {px['95']:.0f} px (5 % to 95 %), median {px['50']:.0f} px"
        facts["width / height"] = f"{ratio['5']:.2f} to {ratio['95']:.2f}, median {ratio['50']:.2f}"
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


# ---- One page --------------------------------------------------------------------------------------------------------


def as_html(
    report: Report,
    sound: dict[str, CocoIndex],
    command: str = "",
    reasons: Mapping[str, str] | None = None,
    photos: int = 6,
) -> str:
    """The report as one page that needs nothing else.

    Args:
        sound: for each split the images that can be used, as :func:`vfnet_edu.data.survey.check_dataset` returns them.
            No other file is opened: a link that leaves the data set could show any picture of this machine.
        command: that fits the data.
        reasons: for it: what -> why.
        photos: how many images of each split to show.
    """
    kind, verdict = ("good", "Nothing would stop training") if report.ok else ("error", "Training would stop")
    sources = dict.fromkeys(split.json for split in report.splits.values())  # one data.yaml describes both splits
    body = [
        *(f'<p class="soft"><code>{escape(source)}</code></p>' for source in sources),
        page.card(verdict, kind=f"verdict {kind}"),
        page.tiles(_headline(report.splits)),
        "<h2>Findings</h2>",
        *(map(_finding, report.findings) if report.findings else [page.card("Nothing to report.")]),
        *(_command(command, reasons or {}) if command else []),
    ]
    for name, split in report.splits.items():
        body += [f"<h2>{name}</h2>", page.grid(_numbers(split), kind="three")]
    body += _classes(report.splits)
    for name, index in sound.items():
        body += [f"<h2>Some images of {name}</h2>", page.grid(_photos(index, photos), kind="three")]
    return page.page("vfnet_edu check", "Data set report", body)


def _command(command: str, reasons: Mapping[str, str]) -> list[str]:
    return ["<h2>A command to start from</h2>", page.card(f"<pre>{escape(command)}</pre>", page.facts(reasons))]


def _headline(splits: Mapping[str, Split]) -> dict[str, str]:
    """The numbers that one looks for first."""
    numbers = {"classes": str(max(len(split.per_class) for split in splits.values()))} if splits else {}
    for name, split in splits.items():
        numbers |= {f"{name} images": f"{split.images:,}", f"{name} objects": f"{split.objects:,}"}
    return numbers


def _finding(finding: Finding, few: int = 3, most: int = 100) -> str:
    head = f'<span class="level">{finding.level}</span>{escape(f"{finding.split}: {finding.what}")}'
    if not finding.examples:
        return page.card(head, kind=finding.level)
    more = len(finding.examples) - most
    records = page.bullets([*finding.examples[:most], *([f"and {more} more (all with --json)"] if more > 0 else [])])
    shown = records if len(finding.examples) <= few else page.folded("which", records)
    return page.card(head, shown, kind=finding.level)


def _numbers(split: Split) -> list[str]:
    """Three cards: what there is, how large it is, how long it is."""
    sizes = [f"{low:g}" for low in SIZES[:-1]]
    return [
        page.card("<h3>Numbers</h3>", page.facts(_facts(split))),
        page.card("<h3>Box side, &radic;(width &times; height), from</h3>", _histogram(split.sizes, sizes)),
        page.card("<h3>Box shape, width : height, from</h3>", _histogram(split.aspects, SHAPES)),
    ]


def _histogram(counts: Sequence[int], labels: Sequence[str]) -> str:
    most, total = max(max(counts), 1), sum(counts)
    bars = "".join(
        f'<div title="{n:,}">{_percent(n, total) if n else ""}'
        f'<div class="bar" style="height: {85 * n / most:.1f}%"></div></div>'
        for n in counts
    )
    axis = "".join(f"<span>{label}</span>" for label in labels)
    return f'<div class="histogram">{bars}</div><div class="axis">{axis}</div>'


def _classes(splits: Mapping[str, Split]) -> list[str]:
    """A row per class, a bar per split, each as long as its share of the split's most frequent class."""
    if not splits:
        return []
    names = dict.fromkeys(name for split in splits.values() for name in split.per_class)
    counts = {key: {name: split.per_class.get(name, (0, 0))[0] for name in names} for key, split in splits.items()}
    largest = {key: max(1, *counts[key].values()) for key in splits}
    rows = []
    for name in map(str, names):
        bars = "".join(
            f'<div class="bar {key}" title="{key}" style="width: {100 * counts[key][name] / largest[key]:.1f}%"></div>'
            for key in splits
        )
        number = " / ".join(f"{counts[key][name]:,}" for key in splits)
        label = f'<span class="name" title="{escape(name)}">{escape(name)}</span>'
        rows.append(f'<div>{label}<div>{bars}</div><span class="n">{number}</span></div>')
    keys = "".join(f'<span class="bar key {name}"></span>{name}' for name in splits)
    return [
        f"<h2>Objects per class{keys}</h2>",
        page.card(*rows, kind="classes"),
    ]


def _photos(index: CocoIndex, count: int) -> list[str]:
    """Images with their boxes, evenly spaced over the split, inside the page."""
    rows = [row for row in range(len(index)) if len(index.target(row)[0])] or list(range(len(index)))
    some = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
    return [_photo(index, rows[place]) for place in some]


def _photo(index: CocoIndex, row: int) -> str:
    boxes, labels = index.target(row)
    data = base64.b64encode(_jpeg(read_image(index.path(row), index.size(row)), boxes, labels)).decode()
    present = "".join(
        f' <span class="dotted"><i class="dot" style="background: {colour(k)}"></i>{escape(index.classes[k])}</span>'
        for k in np.unique(labels).tolist()
    )
    objects = f"{len(boxes)} object{'s' * (len(boxes) != 1)}"
    picture = f'<img class="photo" src="data:image/jpeg;base64,{data}" alt="{objects}, boxed">'
    return page.figure(picture, f"{escape(index.file_names[row])}: {objects}{present}")


def _jpeg(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> bytes:
    """(h, w, 3) with its boxes (G, 4) xyxy, fitted into a square of `PHOTO` pixels."""
    h, w = image.shape[:2]
    height, width = resized_size(h, w, (PHOTO, PHOTO))
    picture = Image.fromarray(image).resize((width, height))
    draw = ImageDraw.Draw(picture)
    boxes = clip(boxes * np.array([width / w, height / h] * 2, np.float32), height, width)
    for (left, top, right, bottom), label in zip(boxes.tolist(), labels.tolist(), strict=True):
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black", width=4)  # visible on any ground
        draw.rectangle((left, top, right, bottom), outline=colour(label), width=3)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80)
    return stream.getvalue()
