"""Plots of a run and of an evaluation: axes in, axes out.  Every title says what the plot shows, with its number.

`records` are the lines of a run's metrics.jsonl as dicts; their schema is in viz/report.py.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vfnet_edu.evaluation.calibration import Calibration
from vfnet_edu.evaluation.errors import KINDS, ErrorSplit
from vfnet_edu.evaluation.scores import Scores
from vfnet_edu.viz.drawing import OKABE_ITO, plain

INK, FAINT = "#333333", "#d9d9d9"
BLUE, ORANGE, GREEN, RED = OKABE_ITO[:4]
LINES = ("-", "--", "-.", ":")  # colour is never the only difference


def loss_curves(records: Sequence[dict], ax: Axes | None = None) -> Axes:
    """Training losses over steps, smoothed over a fiftieth of the run, with the validation losses as dots."""
    ax = _axes(ax)
    train, evals = _kind(records, "train"), _kind(records, "eval")
    names = sorted({key for record in train for key in record if key.startswith("loss_")})
    for n, name in enumerate(names):
        steps, values = _series(train, name)
        smooth = _smoothed(values, max(len(values) // 50, 1))
        colour = OKABE_ITO[n % len(OKABE_ITO)]
        ax.plot(steps, values, color=colour, alpha=0.18, lw=0.8)
        ax.plot(steps, smooth, LINES[n % len(LINES)], color=colour, lw=1.8, label=name.removeprefix("loss_"))
        ax.plot(*_series(evals, f"val_{name}"), "o", color=colour, mec="white", ms=5)
    total = _total(train, names)
    title = f"The loss fell from {total[0]:.2f} to {total[-1]:.2f}" if len(total) else "No step logged yet"
    if len(total) and total[-1] > total[0]:
        title = title.replace("fell", "rose")
    ax.set_ylim(0, 1.15 * max((_smoothed(_series(train, n)[1], 5).max(initial=0) for n in names), default=0) or 1)
    _dress(ax, title, "step", "loss (line: training, dots: validation)")
    return _legend(ax)


def learning_rate(records: Sequence[dict], ax: Axes | None = None) -> Axes:
    """Learning rate over steps."""
    ax = _axes(ax)
    steps, values = _series(_kind(records, "train"), "lr")
    ax.plot(steps, values, color=BLUE, lw=1.8)
    ax.set_ylim(bottom=0)
    title = f"Learning rate: at most {values.max():.3g}, now {values[-1]:.3g}" if len(values) else "No step logged yet"
    return _dress(ax, title, "step", "learning rate")


def ap_curve(records: Sequence[dict], ax: Axes | None = None) -> Axes:
    """AP, AP50 and AP75 over epochs, the best AP marked."""
    ax = _axes(ax)
    evals = [record for record in _kind(records, "eval") if record.get("AP", -1) >= 0]
    for name, colour, line in (("AP50", GREEN, "--"), ("AP75", ORANGE, "-."), ("AP", BLUE, "-")):
        epochs, values = _series(evals, name, x="epoch")
        ax.plot(epochs, 100 * values, line, marker="o", ms=3.5, color=colour, lw=1.8, label=name)
    title = "Not evaluated yet"
    if evals:
        best = max(evals, key=lambda record: record["AP"])
        ax.plot(best["epoch"], 100 * best["AP"], "o", ms=11, mfc="none", mec=BLUE, mew=1.5)
        title = f"AP reached {100 * best['AP']:.1f} in epoch {best['epoch']}"
        ax.set_xlim(0, 1.05 * max(record["epoch"] for record in evals))
    ax.set_ylim(0, max(ax.get_ylim()[1], 1))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _dress(ax, title, "epoch", "average precision (%)")
    return _legend(ax)


def pr_curves(scores: Scores, ax: Axes | None = None) -> Axes:
    """Precision over recall: the mean over classes at IoU .50 and .75, each class faintly behind it."""
    ax = _axes(ax)
    recall = np.linspace(0, 100, 101)
    for label in np.flatnonzero(scores.objects > 0).tolist():
        ax.plot(recall, 100 * scores.pr_curve(0.5, label), color=FAINT, lw=0.8, zorder=1)
    for overlap, colour, line, name in ((0.5, GREEN, "-", "AP50"), (0.75, ORANGE, "--", "AP75")):
        if scores.numbers[name] >= 0:
            label = f"IoU {overlap:.2f}, mean of classes"
            ax.plot(recall, 100 * scores.pr_curve(overlap), line, color=colour, lw=2, label=label)
    ax.set(xlim=(0, 100), ylim=(0, 103))
    ap50, ap75 = (100 * scores.numbers[name] for name in ("AP50", "AP75"))
    title = "Nothing found so far"
    if ap50 >= 0.1:
        title = f"Precision averages {ap50:.1f} % at IoU .50, {ap75:.1f} % at .75"
    _dress(ax, title, "recall (%)", "precision (%), grey: each class at IoU .50")
    return _legend(ax)


def class_bars(scores: Scores, ax: Axes | None = None, most: int = 20) -> Axes:
    """AP of each class, best on top; with more than `most` classes, the best and the worst `most` / 2."""
    known = [k for k in np.argsort(-scores.per_class[:, 0], kind="stable") if scores.objects[k]]
    shown = known if len(known) <= most else known[: most // 2] + known[-most // 2 :]
    ax = _axes(ax, height=max(1.2 + 0.24 * len(shown), 2.4))
    values = 100 * scores.per_class[shown, 0]
    rows = np.arange(len(shown))
    ax.barh(rows, values, color=BLUE, height=0.7)
    for row, value in enumerate(values.tolist()):
        ax.text(value, row, f" {value:.1f}", va="center", size=8, color=INK)
    ax.set_yticks(rows, [f"{_short(scores.classes[k])} ({scores.objects[k]})" for k in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlim(0, max(values.max(initial=1) * 1.15, 1))
    title = "No class has objects"
    if len(known) == 1:
        title = f"AP of “{_short(scores.classes[known[0]])}”"
    elif known and values[0] < 0.1:
        title = "No class is found so far"
    elif known:
        best, worst = (_short(scores.classes[known[k]]) for k in (0, -1))
        title = f"“{best}” is found best, “{worst}” worst of {len(known)}"
    if len(shown) < len(known):
        ax.axhline(most // 2 - 0.5, color=INK, lw=0.8, ls=":")
    _dress(ax, title, "AP (%)   in brackets: objects", "")
    ax.grid(axis="y", visible=False)
    return ax


def score_and_iou(calibration: Calibration, ax: Axes | None = None) -> Axes:
    """IoU over score of every predicted box that touches an object, with the mean IoU per score and the diagonal.

    The ρ of the title is Spearman's rank correlation.
    """
    ax = _axes(ax, width=4.6, height=4.4)
    ax.plot((0, 1), (0, 1), color=_inks()[0], lw=1, ls=":", label="score = IoU")
    ax.plot(calibration.scores, calibration.ious, ".", ms=2.5, alpha=0.15, color=BLUE, mec="none", rasterized=True)
    middle, mean, count = calibration.reliability()
    enough = count >= 5
    ax.plot(middle[enough], mean[enough], "o-", color=RED, mec="white", lw=1.8, ms=6, label="mean IoU")
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    value = calibration.spearman()
    title = "The score follows the overlap" if value > 0.2 else "The score ignores the overlap"
    title = f"{title}: ρ = {value:.2f}" if np.isfinite(value) else "No box touches an object yet"
    _dress(ax, title, "score of the object's class", "IoU of the box with the object")
    return _legend(ax)


def error_bars(split: ErrorSplit, ax: Axes | None = None) -> Axes:
    """What fixing each kind of error, alone, would add to AP50; how many there are of it."""
    ax = _axes(ax, height=3.0)
    gains, counts = [100 * split.gains[kind] for kind in KINDS], split.counts()
    rows = range(len(KINDS))
    ax.barh(rows, gains, color=BLUE, height=0.7)
    for row, gain in zip(rows, gains, strict=True):
        ax.text(gain, row, f" {gain:.1f}", va="center", size=8, color=_inks()[0])
    ax.set_yticks(rows, [f"{kind} ({counts[kind]:,})" for kind in KINDS])
    ax.set_ylim(len(KINDS) - 0.4, -0.6)
    ax.set_xlim(0, max(*gains, 1) * 1.15)
    most, now = max(zip(gains, KINDS, strict=True)), 100 * split.ap50()
    title = f"AP50 is {now:.1f}; fixing “{most[1]}” would add {most[0]:.1f}"
    _dress(ax, title if now >= 0 else "No object to find", "AP50 to be gained (%)   in brackets: how many errors", "")
    ax.grid(axis="y", visible=False)
    return ax


# ------------------------------------------------------------------ style
def _axes(ax: Axes | None, width: float = 5.6, height: float = 3.4) -> Axes:
    return ax if ax is not None else Figure(figsize=(width, height), dpi=150, layout="constrained").subplots()


def _dress(ax: Axes, title: str, x: str, y: str) -> Axes:
    ink, faint = _inks()
    ax.set_title(title, loc="left", size=11, color=ink, weight="bold", wrap=True)
    ax.set_xlabel(x, size=9, color=ink)
    ax.set_ylabel(y, size=9, color=ink)
    ax.tick_params(labelsize=8.5, color=faint, labelcolor=ink)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(faint)
    ax.grid(color=faint, lw=0.6, alpha=0.6)
    ax.set_axisbelow(True)
    return ax


def _inks() -> tuple[str, str]:
    """For words and for grids: INK and FAINT on white paper, the style's own in a chapter, whose figures have none."""
    if rcParams["figure.facecolor"] != "none":
        return INK, FAINT
    return rcParams["text.color"], rcParams["grid.color"]


def _legend(ax: Axes) -> Axes:
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8.5, frameon=True, framealpha=0.85, edgecolor="none", labelcolor=_inks()[0])
    return ax


def _short(name: str) -> str:
    return plain(name if len(name) <= 24 else name[:23] + "…")


# ------------------------------------------------------------------ records
def _kind(records: Sequence[dict], kind: str) -> list[dict]:
    return [record for record in records if record.get("kind") == kind]


def _series(records: Sequence[dict], name: str, x: str = "step") -> tuple[np.ndarray, np.ndarray]:
    """Where it was logged and what: (n,), (n,)."""
    points = [(record[x], record[name]) for record in records if record.get(name) is not None]
    where, what = np.array(points, float).reshape(-1, 2).T
    return where, what


def _smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Mean over the last `width` values, fewer at the start."""
    sums = np.concatenate([[0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _total(records: Sequence[dict], names: Sequence[str]) -> np.ndarray:
    """Sum of the losses, smoothed over a tenth of the run."""
    totals = np.array([sum(record.get(name) or 0 for name in names) for record in records])
    return _smoothed(totals, max(len(totals) // 10, 1))
