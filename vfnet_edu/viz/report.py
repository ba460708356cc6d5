"""The run folder is the report: pictures and one page, ``index.html``, that opens without a network.

metrics.jsonl, the diary of a run, has one json object per line, of two kinds.  A value that is not finite is null.

``{"kind": "train", "step": int, "epoch": float, "lr": float, "loss_<name>": float, ...,
"images_per_second": float, "data_share": float}``
    One line every few steps: `step` optimizer steps are done, `epoch` as a fraction too, losses and speed are means
    since the line before, over all GPUs; `data_share` is the fraction of the time spent waiting for data.

``{"kind": "eval", "step": int, "epoch": int, "AP": float, ... (the twelve of evaluation.scores.MEANING, in [0, 1]),
"why": str | null, "images": int, "per_class": [{"name", "AP", "AP50", "objects", "detections"}, ...],
"val_loss_<name>": float, ..., "rank_correlation": float | null, "rank_correlation_within": float | null}``
    One evaluation after `epoch` epochs, as :func:`vfnet_edu.evaluation.judge.eval_record` makes it; -1 means undefined.
"""

import io
import json
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from html import escape
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure

from vfnet_edu.boxes import xywh_to_xyxy
from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.data.images import read_image
from vfnet_edu.evaluation.errors import split_errors
from vfnet_edu.evaluation.scores import MEANING, Outcome, Scores
from vfnet_edu.postprocess import Detections
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.viz import page, plots
from vfnet_edu.viz.drawing import compare
from vfnet_edu.viz.error_crops import draw_worst

CAPTIONS = {  # in the order of the page
    "ap.png": "Average precision after each evaluation.",
    "loss.png": "Losses: the line is training, smoothed; the dots are validation.",
    "iacs_iou.png": "One dot per predicted box that touches an object, whatever its score. The closer the score "
    "follows the overlap, the better the ranking that AP rewards.",
    "per_class_ap.png": "Average precision of each class.",
    "pr.png": "Precision over recall.",
    "lr.png": "Learning rate.",
    "errors.png": "What is still wrong: what AP at IoU .50 would gain if all errors of one kind were fixed. The gains "
    "do not add up to the rest. class: the wrong one. place: too far from an object of its class. both: neither fits. "
    "duplicate: a second box. background: nothing is there. missed: no box comes near.",
    "error_crops.png": "The worst of each kind: the surest false boxes, the largest missed objects. Solid: predicted. "
    "Dashed: true.",
    "predictions.png": "Images, as annotated and as predicted.",
}
WIDE = ("error_crops.png", "predictions.png")


def write_report(
    folder: str | Path,
    scores: Scores | None = None,
    outcome: Outcome | None = None,
    index: CocoIndex | None = None,
    facts: Mapping[str, object] | None = None,
) -> None:
    """Write the pictures that the run folder and the arguments allow, and ``index.html`` with all that are there.

    Of the folder's files, metrics.jsonl gives the curves, config.txt the recipe, environment.json the command.
    Best effort: what cannot be written, for want of space or any other reason, is warned about and never stops a run.

    Args:
        folder: the run folder; a picture from an earlier call stays where this one has nothing new.
        scores: of the last evaluation: precision-recall curves, a bar per class.
        outcome: of the same evaluation: score over IoU and, with the data set `index`, some images with predictions and
            what is wrong with them.
        facts: more rows for the table at the end of the page, e.g. {"training images": 292}.
    """
    folder = Path(folder)
    records = read_metrics(folder / "metrics.jsonl")
    pictures: dict[str, Callable[[], Figure | SubFigure]] = {}
    if records:
        pictures["loss.png"] = lambda: plots.loss_curves(records).figure
        pictures["lr.png"] = lambda: plots.learning_rate(records).figure
        pictures["ap.png"] = lambda: plots.ap_curve(records).figure
    if scores is not None:
        pictures["pr.png"] = lambda: plots.pr_curves(scores).figure
        pictures["per_class_ap.png"] = lambda: plots.class_bars(scores).figure
    if outcome is not None:
        pictures["iacs_iou.png"] = lambda: plots.score_and_iou(outcome.calibration).figure
        if index is not None and len(index.labels):
            split = cache(partial(split_errors, index, outcome.results))
            pictures["errors.png"] = lambda: plots.error_bars(split()).figure
            pictures["error_crops.png"] = lambda: draw_worst(split())
            pictures["predictions.png"] = lambda: compare(*examples(index, outcome.results), index.classes)
    writers: dict[str, Callable[[], bytes]] = {name: partial(_png, draw) for name, draw in pictures.items()}
    new = (scores.record() if scores else {}) | (outcome.record() if outcome else {})
    writers["index.html"] = lambda: _page(folder, records, new, facts or {}).encode()
    failed = {}
    for name, make in writers.items():
        try:
            write_atomically(folder / name, make())
        except Exception as error:  # whatever it is: no picture is worth a run
            failed[name] = error
    if failed:
        name, error = next(iter(failed.items()))
        warnings.warn(f"the report in {folder} is incomplete, {name}: {error}", stacklevel=2)


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a metrics.jsonl; of two for one step (after a resume) the later; a line cut short is left out."""
    records = {}
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines() if Path(path).exists() else []
    for line in lines:
        try:
            record = json.loads(line)
            records[record["kind"], record["step"]] = record
        except (ValueError, KeyError, TypeError):
            continue
    return sorted(records.values(), key=lambda record: record["step"])


def examples(index: CocoIndex, results: list[dict], count: int = 4) -> tuple[list, list[dict], list[Detections]]:
    """Some images, evenly spread over those with objects: the pictures, their targets, what was detected in them."""
    rows = np.flatnonzero(np.diff(index.starts) > 0)
    rows = rows[np.linspace(0, len(rows), count, endpoint=False).astype(int)] if len(rows) > count else rows
    label_of = {category: k for k, category in enumerate(index.category_ids.tolist())}
    images, targets, found = [], [], []
    for row in rows.tolist():
        boxes, labels = index.target(row)
        mine = [result for result in results if result["image_id"] == index.image_ids[row]]
        mine.sort(key=lambda result: -result["score"])
        xywh = torch.tensor([result["bbox"] for result in mine]).reshape(-1, 4)
        images.append(read_image(index.path(row), index.size(row)))
        targets.append({"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels)})
        found.append(
            Detections(
                xywh_to_xyxy(xywh),
                torch.tensor([result["score"] for result in mine]),
                torch.tensor([label_of[result["category_id"]] for result in mine], dtype=torch.long),
            )
        )
    return images, targets, found


def _png(draw: Callable[[], Figure | SubFigure]) -> bytes:
    buffer = io.BytesIO()
    draw().figure.savefig(buffer, format="png", dpi=150, facecolor="white")  # the figure that it is, or is part of
    return buffer.getvalue()


# ------------------------------------------------------------------ the page
def _page(folder: Path, records: list[dict], new: dict, facts: Mapping[str, object]) -> str:
    train, evals = ([record for record in records if record["kind"] == kind] for kind in ("train", "eval"))
    if "AP" in new:  # the last line of the diary says the same, unless this evaluation was made outside of a run
        evals = [*evals[:-1], {**(evals[-1] if evals else {}), **new}]
    environment = json.loads(_text(folder / "environment.json") or "{}")
    pictures = [name for name in CAPTIONS if (folder / name).exists()]
    body = [
        page.tiles(_headline(train, evals)),
        *(_why(evals[-1]) if evals else ()),
        page.grid(map(_picture, pictures)),
        *(_evaluation(evals[-1]) if evals else ()),
        *_origin(_text(folder / "config.txt"), environment.pop("command", ""), facts | environment),
    ]
    return page.page("vfnet_edu run", folder.resolve().name, body)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _headline(train: list[dict], evals: list[dict]) -> dict[str, str]:
    """The numbers that one looks for first."""
    numbers = {}
    if evals:
        last, best = evals[-1], max(evals, key=lambda record: record["AP"])
        numbers |= {name: _percent(last[name]) for name in ("AP", "AP50", "AP75")}
        if len(evals) > 1:
            numbers[f"best AP, epoch {best['epoch']}"] = _percent(best["AP"])
        if last.get("rank_correlation") is not None:
            numbers["score–IoU correlation"] = f"{last['rank_correlation']:.2f}"
    if train:
        numbers["steps"] = f"{train[-1]['step']:,}"
    if speeds := [record["images_per_second"] for record in train if record.get("images_per_second")]:
        numbers["images per second"] = f"{np.median(speeds):.3g}"
    return numbers


def _why(last: dict) -> list[str]:
    state = "0" if last["AP"] == 0 else "undefined"
    return [page.card(escape(f"AP is {state}: {last['why']}."), kind="warning apart")] if last["why"] else []


def _picture(name: str) -> str:
    text = escape(CAPTIONS[name])
    image = f'<a href="{name}"><img src="{name}" alt="{text}"></a>'
    return page.figure(image, text, kind="wide" if name in WIDE else "")


def _evaluation(last: dict) -> list[str]:
    numbers = [(name, _percent(last[name]), MEANING.get(name, "recall")) for name in last if name[:2] in ("AP", "AR")]
    classes = [
        (row["name"], _percent(row["AP"]), _percent(row["AP50"]), f"{row['objects']:,}", f"{row['detections']:,}")
        for row in sorted(last["per_class"], key=lambda row: -row["AP"])
    ]
    epoch = f", epoch {last['epoch']}" if "epoch" in last else ""
    tables = (
        page.table([("measure", "%", "meaning"), *numbers], numeric=(1,)),
        page.table([("class", "AP", "AP50", "objects", "detections"), *classes], numeric=(1, 2, 3, 4)),
    )
    return [
        f"<h2>Last evaluation{epoch}: {last['images']:,} images</h2>",
        page.grid(map(page.card, tables)),
        '<p class="soft">In per cent. A dash means undefined: there is no object of that kind.</p>',
    ]


def _origin(recipe: str, command: str, facts: dict) -> list[str]:
    parts = ["<h2>How it was made</h2>"] if recipe or command or facts else []
    if command:
        parts.append(page.card(f"<pre>{escape(command)}</pre>"))
    if facts:
        parts.append(page.card(page.facts({name: str(value) for name, value in facts.items() if value != ""})))
    if recipe:
        parts.append(page.card(page.folded("every setting", f"<pre>{escape(recipe)}</pre>")))
    return parts


def _percent(value: float) -> str:
    return "–" if value < 0 else f"{100 * value:.1f}"
