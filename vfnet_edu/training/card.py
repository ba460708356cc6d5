"""README.md of a run folder: a model card as the Hugging Face hub reads it, about ``best.safetensors``.

How to share it: ``book/api/using.md``.  The card holds numbers and names, no picture and no command line.
"""

import json
import re
import warnings
from pathlib import Path

import yaml
from safetensors import safe_open

from vfnet_edu import __version__, recipes
from vfnet_edu.data.coco import CocoIndex
from vfnet_edu.evaluation.scores import MEANING
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime.config import difference, from_dict, to_text
from vfnet_edu.runtime.errors import UserError
from vfnet_edu.runtime.files import write_atomically
from vfnet_edu.viz.report import read_metrics

MARK = "<!-- written by vfnet_edu after every epoch; without this line the file is yours, and stays as it is -->"
PARTS = {"annotations", "images", "jpegimages", "labels", "train", "train2017", "val", "val2017", "valid", "test"}
UNNAMED = "an unnamed data set"
METRICS = {"AP": "map", "AP50": "map_50", "AP75": "map_75"}  # ours -> the name of the metric there


def write_card(folder: Path, check: CocoIndex | None) -> None:
    """The model card of a run, written anew.  A README.md of somebody else is left alone.

    Best effort, as the report: what goes wrong is warned about and stops no run.

    Args:
        folder: of the run; without ``best.safetensors`` there is nothing to write about.
        check: the images that the model was judged by.
    """
    weights, path = folder / "best.safetensors", folder / "README.md"
    try:
        if weights.exists() and not (path.exists() and MARK not in path.read_text("utf-8", errors="replace")):
            with safe_open(weights, "pt") as file:
                metadata = file.metadata()
            write_atomically(path, card(folder.resolve().name, metadata, read_metrics(folder / "metrics.jsonl"), check))
    except Exception as error:  # whatever it is: no card is worth a run
        warnings.warn(f"{path} could not be written: {error}", stacklevel=2)


def card(name: str, metadata: dict[str, str], records: list[dict], check: CocoIndex | None) -> str:
    """The text of a model card.

    Args:
        name: of the model.
        metadata: of its weights: "recipe" and "classes" as json, "epoch".
        records: the diary of its run; the evaluation of its epoch gives the numbers.
        check: the images of that evaluation.
    """
    recipe, classes = from_dict(Recipe, json.loads(metadata["recipe"])), json.loads(metadata["classes"])
    judged = [r for r in records if r["kind"] == "eval" and f"{r['epoch']:g}" == metadata.get("epoch")]
    result, data = judged[-1] if judged else None, _data_name(check)
    parts = [
        f"---\n{_front(name, recipe, result, data)}---\n\n# {_plain(name)}",
        f"Finds {_some(classes)} in images: a detector of {len(classes)} classes, trained with "
        f"[vfnet_edu](https://github.com/vfnet-edu/vfnet_edu) {__version__} and its recipe `{recipe.name}`.",
        _usage(name),
        _numbers(result, data, classes),
        _recipe(recipe),
        "## Licence\n\n"
        "Apache-2.0, as vfnet_edu itself, unless whoever shares this model says otherwise: the images it "
        "learned from, or the weights it started from, may ask for another.",
        MARK,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(name: str, recipe: Recipe, result: dict | None, data: str) -> str:
    """The part that the hub reads."""
    head = type(recipe.head).__name__.removesuffix("Config").lower()
    front: dict[str, object] = {
        "license": "apache-2.0",
        "library_name": "vfnet_edu",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", "pytorch", head],
    }
    if result:
        shown = {theirs: ours for ours, theirs in METRICS.items() if result[ours] >= 0}  # -1: undefined
        metrics = [
            {"type": theirs, "name": f"{ours}, {MEANING[ours]} (%)", "value": round(100 * result[ours], 1)}
            for theirs, ours in shown.items()
        ]
        task = {"type": "object-detection", "name": "Object detection"}
        judged = {"task": task, "dataset": {"type": data, "name": data, "split": "validation"}, "metrics": metrics}
        front |= {"metrics": list(shown), "model-index": [{"name": name, "results": [judged]}]} if shown else {}
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)


def _usage(name: str) -> str:
    there = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)
    return f"""## Usage

```bash
pip install 'vfnet_edu[hub]'
```

```python
import vfnet_edu as vf

recipe, model = vf.load("hf:owner/{there}")  # with @ and a commit behind the name: always the same weights
found = vf.detect(model, "photo.jpg", min_score=0.3)  # boxes (D, 4) xyxy in pixels, scores (D,), labels (D,)
vf.viz.draw(found, "photo.jpg", model.classes)
```

The weights are safetensors: loading them runs no code."""


def _numbers(result: dict | None, data: str, classes: list[str]) -> str:
    """What it reached, or that nobody has measured it."""
    if not result:
        names = ", ".join(map(_plain, classes))
        return f"## Metrics\n\nThere was no validation set: how well it detects was not measured.\n\nClasses: {names}."
    epoch, images = f"{result['epoch']:g}", f"{result['images']:,}"
    total = [f"| {name} | {_percent(result[name])} | {MEANING[name]} |" for name in MEANING if name in result]
    each = [
        f"| {_plain(row['name'])} | {_percent(row['AP'])} | {_percent(row['AP50'])} | {row['objects']:,} |"
        for row in result["per_class"]
    ]
    return "\n".join(
        [
            "## Metrics",
            "",
            f"COCO's measures on the {images} validation images of {_plain(data)} after epoch {epoch}, in per cent. A "
            "dash means undefined. The epoch was chosen by its AP on these very images, so a new set may give less.",
            "",
            "| measure | % | meaning |\n| --- | --: | --- |",
            *total,
            "",
            "| class | AP | AP50 | objects |\n| --- | --: | --: | --: |",
            *each,
        ]
    )


def _recipe(recipe: Recipe) -> str:
    try:
        changed = difference(recipe, recipes.by_name(recipe.name))
    except UserError:  # a recipe of the user's own
        changed = {}
    changed = {key: values for key, values in changed.items() if key not in ("head.classes", "name")}
    rows = [f"| `{key}` | `{new!r}` | `{old!r}` |" for key, (old, new) in changed.items()]
    table = "\n".join(["| setting | here | in the recipe |\n| --- | --- | --- |", *rows])
    steps = f"{recipe.optim.epochs} epochs, {recipe.data.batch_size} images a step."
    return "\n\n".join(
        [
            f"## Recipe\n\n`{recipe.name}`, {steps}" + (" What was changed:" if rows else ""),
            *([table] if rows else []),
            f"<details><summary>every setting</summary>\n\n```\n{to_text(recipe)}\n```\n\n</details>",
        ]
    )


def _data_name(check: CocoIndex | None) -> str:
    """The folder of the data set: the first above the image folder that is not a part of a known layout."""
    if check is None:
        return UNNAMED
    folders = [check.root.absolute(), *check.root.absolute().parents]
    return next((folder.name for folder in folders if folder.name.lower() not in PARTS), "") or UNNAMED


def _some(classes: list[str], most: int = 6) -> str:
    named = ", ".join(map(_plain, classes[:most]))
    return named + (f" and {len(classes) - most} more" if len(classes) > most else "")


def _percent(value: float) -> str:
    return "–" if value < 0 else f"{100 * value:.1f}"


def _plain(text: str) -> str:
    """A name from somebody's annotations, in one line and without any meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|~&#$!])", r"\\\1", " ".join(text.split()))
