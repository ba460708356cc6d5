"""AP against pycocotools on the raw file, the guards around it, and one evaluation pass with a known detector."""

import contextlib
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vfnet_edu import recipes
from vfnet_edu.data.coco import read_coco
from vfnet_edu.evaluate import main
from vfnet_edu.evaluation.judge import eval_record, judge
from vfnet_edu.evaluation.scores import coco_scores
from vfnet_edu.postprocess import Candidates, Detections
from vfnet_edu.runtime.errors import Exit, UserError, cli

SELFTEST = Path(__file__).parents[2] / "shared" / "data" / "cocoapi_selftest"
ENGINES = ("pycocotools", "faster")


def referee(annotations, results):
    """pycocotools on the raw file, as everybody calls it."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(str(annotations))
        judge = COCOeval(gt, gt.loadRes(json.loads(json.dumps(results))), "bbox")
        judge.evaluate(), judge.accumulate(), judge.summarize()
    return judge.stats


def scene(seed):
    """A data set with crowds, scattered ids, a box without area and a class without objects; results full of ties."""
    rng = np.random.default_rng(seed)
    images = [{"id": int(i), "file_name": f"{i}.png", "width": 200, "height": 200} for i in rng.permutation(9) * 7 + 3]
    categories = [{"id": i, "name": f"c{i}"} for i in (90, 7, 18, 44)]
    annotations, results = [], []
    for image in images[:-1]:  # the last one is empty
        for _ in range(rng.integers(0, 9)):
            box = [*rng.integers(0, 120, 2).tolist(), *rng.integers(4, 80, 2).tolist()]
            category, crowd = int(rng.choice([7, 18, 90])), int(rng.random() < 0.15)
            area = box[2] * box[3] * float(rng.uniform(0.5, 1))  # of a mask, smaller than the box
            annotations.append(
                {"image_id": image["id"], "category_id": category, "bbox": box, "area": area, "iscrowd": crowd}
            )
            for _ in range(rng.integers(0, 4)):
                shift = rng.normal(0, 6, 4) * (rng.random() < 0.8)
                guess = [max(float(v), 0.0) for v in np.array(box) + shift]
                score = float(rng.integers(1, 6)) / 5
                results.append({"image_id": image["id"], "category_id": category, "bbox": guess, "score": score})
    annotations[0]["bbox"][2] = 0
    for n, annotation in enumerate(annotations, 1):
        annotation["id"] = n
    return {"images": images, "categories": categories, "annotations": annotations}, results


def written(tmp_path, data):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools_on_the_raw_file(tmp_path, engine, seed):
    data, results = scene(seed)
    path = written(tmp_path, data)
    scores = coco_scores(read_coco(path, tmp_path), results, engine=engine)
    np.testing.assert_allclose(list(scores.numbers.values()), referee(path, results), rtol=0, atol=1e-12)
    assert scores.per_class[2].tolist() == [-1, -1] and scores.objects[2] == 0  # category 44 has no object
    assert np.mean(scores.per_class[scores.objects > 0, 0]) == pytest.approx(scores.numbers["AP"])
    assert scores.pr_curve(0.5).mean() == pytest.approx(scores.numbers["AP50"])
    assert scores.pr_curve(0.75).mean() == pytest.approx(scores.numbers["AP75"])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.skipif(not SELFTEST.is_dir(), reason="the self-test of COCO evaluation is not here")
def test_published_self_test_of_coco(engine):
    scores = coco_scores(
        SELFTEST / "instances_val2014_100.json", SELFTEST / "instances_val2014_fakebbox100_results.json", engine=engine
    )
    published = (0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.387, 0.594, 0.595, 0.640, 0.566, 0.564)
    assert [round(value, 3) for value in scores.numbers.values()] == list(published)
    assert "0.505" in scores.table()


def test_other_limit_of_detections(tmp_path):
    data, results = scene(0)
    path = written(tmp_path, data)
    few, usual = (coco_scores(path, results, max_detections=m) for m in (2, 100))
    assert "AR2" in few.numbers and few.numbers["AP"] < usual.numbers["AP"]
    assert few.numbers["AR1"] == usual.numbers["AR1"]


# ------------------------------------------------------------------ what would make the referee lie
def two_objects(tmp_path, ids=(1, 2)):
    data = {
        "images": [{"id": 5, "file_name": "a.png", "width": 100, "height": 100}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"id": ids[0], "image_id": 5, "category_id": 3, "bbox": [0, 0, 40, 40], "area": 1600, "iscrowd": 0},
            {"id": ids[1], "image_id": 5, "category_id": 3, "bbox": [50, 50, 40, 40], "area": 1600, "iscrowd": 0},
        ],
    }
    return written(tmp_path, data)


def detection(box, image=5, category=3, score=0.9):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


GOOD = [detection([0, 0, 40, 40]), detection([50, 50, 40, 40], score=0.8)]


@pytest.mark.parametrize("ids", [(1, 2), (0, 1), (4, 4)])
def test_annotation_ids_do_not_matter(tmp_path, ids):
    assert coco_scores(two_objects(tmp_path, ids), GOOD).numbers["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("results", "code", "message"),
    [
        ([*GOOD, detection([0, 0, math.nan, 4])], Exit.DIVERGED, r"results\[2\], image 5.*not finite"),
        ([detection([0, 0, 4, 4], score=math.inf)], Exit.DIVERGED, r"results\[0\]"),
        ([*GOOD, detection([0, 0, 4, 4], image=6)], Exit.DATA, r"results\[2\].image_id 6"),
        ([detection([0, 0, 4, 4], category=0)], Exit.DATA, r"category_id 0 .*3, 8"),
        ([detection([0, 0, 4])], Exit.DATA, r"results\[0\] is not a detection"),
        ([detection([9, 9, -4, 4])], Exit.DATA, "negative side"),
        ([{"image_id": [5]}], Exit.DATA, r"results\[0\] is not a detection"),
        (["x"], Exit.DATA, r"results\[0\] is not a detection"),
    ],
)
def test_bad_results_are_refused(tmp_path, results, code, message):
    with pytest.raises(UserError, match=message) as caught:
        coco_scores(two_objects(tmp_path), results)
    assert caught.value.code == code


@pytest.mark.parametrize("text", ["[{", '{"images": []}', "\xff"])
def test_broken_result_file_is_named(tmp_path, text):
    (tmp_path / "r.json").write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match="r.json"):
        coco_scores(two_objects(tmp_path), tmp_path / "r.json")


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([], "no detection"),
        ([detection([0, 0, 9, 9], image=77), detection([0, 0, 9, 9], image=78)], "do not match: 77, 78 in .* 5 in"),
        ([detection([0, 0, 40, 40], category=8)], "never with the right class"),
        ([detection([50, 50, 90, 90])], "x1, y1, x2, y2"),
        ([detection([0, 0, 10, 40])], "the best reaches 0.25"),
    ],
)
def test_zero_comes_with_its_reason(tmp_path, results, reason):
    scores = coco_scores(two_objects(tmp_path), results)
    assert scores.numbers["AP"] == 0
    assert re.search(reason, scores.why)
    assert scores.why in scores.table()


def test_undefined_is_not_zero(tmp_path):
    path = two_objects(tmp_path)
    data = json.loads(path.read_text())
    for annotation in data["annotations"]:
        annotation["iscrowd"] = 1
    scores = coco_scores(written(tmp_path, data), GOOD)
    assert scores.numbers["AP"] == -1 and "undefined" in scores.why and "nan" not in scores.table()


# ------------------------------------------------------------------ one pass
class Oracle(torch.nn.Module):
    """Answers with the objects themselves, scored by class; `spoil` makes a score NaN."""

    def __init__(self, targets, spoil=False):
        super().__init__()
        self.targets, self.spoil, self.asked = targets, spoil, 0

    def raw(self, images):
        assert not self.training
        which = range(self.asked, self.asked + len(images))
        self.asked += len(images)
        return [self.targets[n % len(self.targets)] for n in which]

    def candidates(self, out, images):
        scores, boxes = torch.zeros(len(out), 3, 2), torch.zeros(len(out), 3, 4)
        for i, target in enumerate(out):
            for g, (box, label) in enumerate(zip(target["boxes"], target["labels"], strict=True)):
                boxes[i, g], scores[i, g, label] = box, (0.9, 0.6, 0.3)[g]
                boxes[i, g, 0] += 6 * g  # a worse box and a lower score
        if self.spoil:
            scores[-1, 0, 0] = math.nan
        return Candidates(scores, boxes, [3], None)

    def answer(self, out, images, scales):
        found = []
        for target, (sx, sy) in zip(out, scales, strict=True):
            count = len(target["labels"])
            boxes = target["boxes"] / torch.tensor([sx, sy, sx, sy])
            found.append(Detections(boxes, torch.tensor([0.9, 0.8, 0.7])[:count], target["labels"]))
        return found

    def teach(self, out, targets, images):
        return {"cls": torch.tensor(float(len(images))), "box": torch.tensor(0.5)}


def small_set(tmp_path):
    """Three images of 100 x 100 with 2, 1 and 0 objects, enlarged by (2, 1.5) in the loader."""
    boxes = [[[10, 10, 30, 30], [50, 20, 30, 40]], [[0, 0, 60, 50]], []]
    data = {
        "images": [{"id": 30 - n, "file_name": f"{n}.png", "width": 100, "height": 100} for n in range(3)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"id": 10 * n + g, "image_id": 30 - n, "category_id": (3, 8)[g], "bbox": box, "area": box[2] * box[3]}
            for n, row in enumerate(boxes)
            for g, box in enumerate(row)
        ],
    }
    index = read_coco(written(tmp_path, data), tmp_path)
    targets = []
    for n in range(3):
        xyxy, labels = index.target(n)
        enlarged = torch.from_numpy(xyxy) * torch.tensor([2, 1.5, 2, 1.5])
        targets.append(
            {"boxes": enlarged, "labels": torch.from_numpy(labels), "image_id": 30 - n, "index": n, "scale": (2.0, 1.5)}
        )
    image = torch.zeros(3, 150, 200, dtype=torch.uint8)
    return index, targets, [([image, image], targets[:2]), ([image], targets[2:])]


def test_one_pass_gives_everything(tmp_path):
    index, targets, loader = small_set(tmp_path)
    model, ticks = Oracle(targets).train(), []
    outcome = judge(model, loader, index, tick=ticks.append)
    assert model.training and ticks == [2, 3]
    assert coco_scores(index, outcome.results).numbers["AP"] == pytest.approx(1)
    first = outcome.results[0]
    assert (first["image_id"], first["category_id"]) == (30, 3)
    assert first["bbox"] == pytest.approx([10, 10, 30, 30]) and first["score"] == pytest.approx(0.9)
    assert outcome.losses == {"cls": pytest.approx((2 * 2 + 1 * 1) / 3), "box": pytest.approx(0.5)}
    assert len(outcome.calibration) == 3  # in the pixels of the enlarged image
    assert outcome.calibration.spearman() > 0.8
    json.dumps(outcome.results)
    record = eval_record(3, 120, coco_scores(index, outcome.results), outcome)
    assert record["kind"] == "eval" and record["AP"] == pytest.approx(1) and record["val_loss_box"] == 0.5
    assert record["rank_correlation_within"] is None  # no object with three boxes
    json.dumps(record, allow_nan=False)


def test_diverged_model_is_named_with_its_image(tmp_path):
    index, targets, loader = small_set(tmp_path)
    with pytest.raises(UserError, match="image 29") as caught:
        judge(Oracle(targets, spoil=True), loader, index)
    assert caught.value.code == Exit.DIVERGED


def _share(rank, tmp_path, queue):
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    index, targets, _ = small_set(tmp_path / str(rank))
    mine = [0, 2] if rank == 0 else [1, 0]  # image 0 twice: padding
    loader = [([torch.zeros(3, 150, 200, dtype=torch.uint8)], [targets[n]]) for n in mine]
    outcome = judge(Oracle([targets[n] for n in mine]), loader, index)
    queue.put((rank, outcome.results, outcome.losses, outcome.calibration.spearman(), len(outcome.calibration)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path):
    index, targets, loader = small_set(tmp_path)
    alone = judge(Oracle(targets), loader, index)
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
    workers = [context.Process(target=_share, args=(rank, tmp_path, queue)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    try:
        shares = [queue.get(timeout=120) for _ in workers]
    finally:
        for worker in workers:
            worker.join(30)
            worker.kill()
    for _, results, losses, correlation, pairs in shares:
        assert results == alone.results and pairs == 3
        assert correlation == pytest.approx(alone.calibration.spearman())
        assert losses["box"] == pytest.approx(0.5)


# ------------------------------------------------------------------ the command
def command(*args):
    """As a shell sees it -> exit code"""
    try:
        cli(main, [str(arg) for arg in args])
    except SystemExit as end:
        return end.code
    return 0


def test_command_scores_a_result_file(tmp_path, capsys):
    (tmp_path / "r.json").write_text(json.dumps(GOOD))
    assert command("--results", tmp_path / "r.json", "--val-json", two_objects(tmp_path)) == 0
    assert "AP    1.000" in capsys.readouterr().out
    assert command("--results", tmp_path / "missing.json", "--val-json", two_objects(tmp_path)) == Exit.DATA
    assert command() == Exit.USAGE
    assert "give a checkpoint" in capsys.readouterr().err


def test_command_scores_either_split(tmp_path, capsys):
    """The objects of the two files differ, the detections are those of the first."""
    (tmp_path / "r.json").write_text(json.dumps(GOOD))
    train = two_objects(tmp_path).rename(tmp_path / "train.json")
    data = json.loads(train.read_text())
    data["annotations"] = data["annotations"][:1]
    files = ("--results", tmp_path / "r.json", "--train-json", train, "--val-json", written(tmp_path, data))
    for split, recall in ((("--split", "train"), "AR1   0.500"), ((), "AR1   1.000")):
        assert command(*files, *split) == 0
        assert recall in capsys.readouterr().out
    assert command(*files[:2], "--split", "train", *files[4:]) == Exit.DATA
    assert "no training set is named (give --train-json)" in capsys.readouterr().err


def test_command_scores_a_checkpoint(tmp_path, capsys, monkeypatch):
    index, targets, _ = small_set(tmp_path)
    for name in index.file_names:
        Image.new("RGB", (100, 100)).save(tmp_path / name)
    recipe = recipes.vfnet_r50_1x()
    recipe = replace(recipe, data=replace(recipe.data, test_scale=(200, 200)))
    for target in targets:  # the loader keeps the shape: both sides are doubled
        target["boxes"] = target["boxes"] * torch.tensor([1, 4 / 3, 1, 4 / 3])
    model = Oracle(targets)
    model.classes = index.classes
    monkeypatch.setattr("vfnet_edu.evaluate.zoo.load", lambda path, device: (recipe, model))
    out = tmp_path / "out"
    assert command("x.pt", "--val-json", index.json_path, "--out", out, "--workers", "0", "--device", "cpu") == 0
    assert "AP    1.000" in capsys.readouterr().out
    assert coco_scores(index, out / "results.json").numbers["AP"] == pytest.approx(1)
    assert json.loads((out / "scores.json").read_text())["AP"] == pytest.approx(1)
    assert {"index.html", "config.txt", "pr.png", "predictions.png"} <= {path.name for path in out.iterdir()}

    model.classes = ("dog", "cat")
    assert command("x.pt", "--val-json", index.json_path, "--workers", "0") == Exit.DATA
    assert "dog, cat" in capsys.readouterr().err
