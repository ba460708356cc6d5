"""Real photographs through the public commands, as a stranger would: check, train, evaluate, predict.

The photographs are not part of the project: a folder `shared/data` beside the checkout, or VFNET_EDU_PHOTOS names it.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from vfnet_edu import check, evaluate, predict, train

PHOTOS = Path(os.environ.get("VFNET_EDU_PHOTOS", Path(__file__).parents[2] / "shared" / "data")) / "bccd"
pytestmark = pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no photographs at {PHOTOS}")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve blood smears to learn from, four to be judged by."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "annotations").mkdir()
    for split, count in (("train", 12), ("val", 4)):
        content = json.loads((PHOTOS / "annotations" / f"instances_{split}.json").read_text())
        content["images"] = content["images"][:count]
        keep = {image["id"] for image in content["images"]}
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in keep]
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        (folder / split).mkdir()
        for image in content["images"]:
            shutil.copy(PHOTOS / split / image["file_name"], folder / split)
    return folder


def test_check_train_evaluate_predict(photos, tmp_path, capsys, one_thread):
    check.main([str(photos), "--json", str(tmp_path / "check.json"), "--no-estimate"])
    assert json.loads((tmp_path / "check.json").read_text())
    run = tmp_path / "run"
    train.main(
        f"--data {photos} --out {run} --size 320 --data.batch-size 4 --data.images-per-gpu 4 --data.workers 0"
        " --optim.epochs 3 --device cpu --log-every 1".split()
    )
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [r["loss"] for r in records if r["kind"] == "train"]
    assert losses[-1] < losses[0] and all(torch.isfinite(torch.tensor(losses)))
    evaluate.main(
        [str(run), "--data", str(photos), "--out", str(tmp_path / "judged"), "--workers", "0", "--device", "cpu"]
    )
    assert "RBC" in capsys.readouterr().out
    image = next((photos / "val").glob("*.jpg"))
    predict.main([str(run), str(image), "--out", str(tmp_path / "found"), "--device", "cpu"])
    assert list((tmp_path / "found").iterdir())
