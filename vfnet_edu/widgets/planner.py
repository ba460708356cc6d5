"""The plan of a training run of chapter 18: batch, learning rate, steps, hours, command line."""

import anywidget
import traitlets

from vfnet_edu import recipes
from vfnet_edu.widgets.front_end import STYLE, script

COCO_IMAGES = 117_266  # of train2017 with an object to learn from; the number usually reported
FORM = """
.ve select, .ve input[type="number"], .ve button { font: inherit; color: inherit; background: var(--ve-panel);
  border: 1px solid var(--ve-soft); border-radius: 5px; min-height: 30px; padding: 2px 8px; max-width: 100%; }
.ve button { cursor: pointer; }
.ve pre.ve-command { margin: 6px 0; padding: 8px 10px; background: var(--ve-panel); color: inherit; border: 0;
  border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere; font: 12.5px/1.5 ui-monospace, monospace;
  user-select: all; }
"""


def published() -> list[dict]:
    """What a plan must know about every recipe of the two results tables."""
    rows = []
    for recipe in map(recipes.by_name, recipes.names()):
        if recipe.published.checkpoint or recipe.published.drive:
            data, optim, swa = recipe.data, recipe.optim, recipe.swa
            rows.append(
                {
                    "name": recipe.name,
                    "ap": recipe.published.ap_val,
                    "batch_size": data.batch_size,
                    "images_per_gpu": data.images_per_gpu,
                    "lr": optim.lr,
                    "lr_batch": optim.lr_batch,
                    "schedule": optim.schedule,
                    "epochs": optim.epochs,
                    "drop_at": list(optim.drop_at),
                    "warmup_steps": optim.warmup_steps,
                    "warmup_start": optim.warmup_start,
                    "swa_epochs": swa.epochs,
                    "swa_lr": swa.lr,
                    "swa_lr_end": swa.lr_end,
                }
            )
    return rows


class TrainingPlanner(anywidget.AnyWidget):
    """What `python -m vfnet_edu.train` will do with a recipe, some GPUs and a data set, before it does it.

    The arithmetic is that of training/schedule.py and data/loader.py, for images that are all landscape.
    """

    _esm = script("planner")
    _css = STYLE + FORM

    recipes = traitlets.List(help="the rows of the results tables, as `published` makes them").tag(sync=True)
    recipe = traitlets.Unicode("vfnet_r50_1x", help="name of one of them").tag(sync=True)
    gpus = traitlets.Int(8, min=1, max=64, help="processes, one per GPU").tag(sync=True)
    images_per_gpu = traitlets.Int(2, min=1, max=16, help="maximum images of a forward pass").tag(sync=True)
    batch_size = traitlets.Int(16, min=1, max=1024, help="images of a step, all GPUs and passes").tag(sync=True)
    images = traitlets.Int(COCO_IMAGES, min=1, max=10_000_000, help="training images").tag(sync=True)
    speed = traitlets.Float(12.0, min=0.1, max=100.0, help="images per second and GPU, measured").tag(sync=True)
    at = traitlets.Float(0.25, min=0.0, max=1.0, help="where the cursor is, as a fraction of the run").tag(sync=True)

    @traitlets.default("recipes")
    def _published(self) -> list[dict]:
        return published()

    @traitlets.validate("recipe")
    def _known(self, proposal):
        names = [row["name"] for row in self.recipes]
        if proposal["value"] not in names:
            raise traitlets.TraitError(f"no recipe {proposal['value']!r}; choose one of {', '.join(names)}")
        return proposal["value"]
