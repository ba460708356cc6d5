"""Train the small models that come with the package: `python book/train_models.py`.

Two trainings of `vfnet_tiny` on ShapeScenes from the same seed, one with the varifocal and one with the focal loss,
about five minutes each on two CPU cores.  The weights are stored in half precision, and judged as stored: what
`vf.load("vfnet_tiny")` gives is what the metrics beside it describe.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch

from vfnet_edu.data.coco import read_coco
from vfnet_edu.data.loader import val_loader
from vfnet_edu.data.shapes import write_shape_scenes
from vfnet_edu.evaluation.judge import eval_record, judge
from vfnet_edu.evaluation.scores import coco_scores
from vfnet_edu.runtime.config import to_text
from vfnet_edu.weights import ours, zoo

MODELS = {  # name -> what its training changes in the recipe `vfnet_tiny`
    "vfnet_tiny": [],
    "vfnet_tiny_focal": ["--head.loss", "focal", "--head.alpha", "0.25"],
}
METRICS = ("AP", "AP50", "AP75", "val_loss_cls", "val_loss_box", "val_loss_refine")
METRICS += ("rank_correlation", "rank_correlation_within")  # of score and IoU


def main() -> None:
    data = write_shape_scenes(Path("data/shape_scenes"))
    for name, changes in MODELS.items():
        run = Path("runs") / name
        train = ["-m", "vfnet_edu.train", "vfnet_tiny", *changes, "--out", str(run), "--overwrite"]
        subprocess.run([sys.executable, *train], check=True)
        recipe, model = zoo.load(run)

        halved = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
        model.load_state_dict(halved)  # rounded, and in float32 again
        index = read_coco(data / "annotations/instances_val.json", data / "val")
        outcome = judge(model, val_loader(index, recipe.data.test_scale, 16, workers=0), index)
        record = eval_record(0, 0, coco_scores(index, outcome.results), outcome)
        print(f"{name}: {100 * record['AP']:.1f} AP, rank correlation {record['rank_correlation']:.2f}")

        file = zoo.SHIPPED / f"{name}.safetensors"
        ours.save(file, model.half())
        metrics = {k: record[k] for k in METRICS} | {"per_class": {c["name"]: c["AP"] for c in record["per_class"]}}
        metrics = json.loads(json.dumps(metrics), parse_float=lambda x: round(float(x), 4))
        metrics |= {"images": len(index), "command": f"python {' '.join(train)}", "torch": torch.__version__}
        file.with_suffix(".json").write_text(json.dumps(metrics, indent=1) + "\n")
        file.with_suffix(".recipe.txt").write_text(to_text(recipe) + "\n")


if __name__ == "__main__":
    main()
