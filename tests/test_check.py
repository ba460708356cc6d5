"""The report on a data set: every fault that was put in is found, named, and nothing is made up."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vfnet_edu.check import main
from vfnet_edu.data.paths import find_dataset
from vfnet_edu.data.survey import check_dataset
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.viz.data_report import as_html, as_text


@pytest.fixture
def data(tmp_path):
    """A sound data set of 6 + 3 images with 2 objects each; `content` is written by `check`."""
    rng = np.random.default_rng(0)
    content = {}
    for split, count in (("train", 6), ("val", 3)):
        (tmp_path / split).mkdir()
        images, annotations = [], []
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(
                tmp_path / split / f"{split}{i}.jpg"
            )
            images.append({"id": i + 1, "file_name": f"{split}{i}.jpg", "width": 80, "height": 60})
            for k in range(2):
                box = [10 * k, 5, 20 * (k + 1), 30]
                record = {"image_id": i + 1, "category_id": k + 1, "bbox": box, "area": box[2] * 30, "iscrowd": 0}
                annotations.append(record | {"id": 2 * i + k + 1})
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        content[split] = {"images": images, "annotations": annotations, "categories": categories}
    return tmp_path, content


def check(data, **options):
    folder, content = data
    (folder / "annotations").mkdir(exist_ok=True)
    for split, records in content.items():
        (folder / f"annotations/instances_{split}.json").write_text(json.dumps(records))
    return check_dataset(find_dataset(folder), **options)


def only(report):
    (finding,) = report.findings
    return finding


def test_a_sound_data_set(data):
    report, indices = check(data)
    assert report.ok and report.findings == () and set(indices) == {"train", "val"}
    train = report.splits["train"]
    assert (train.images, train.objects, train.crowds, train.images_without_objects) == (6, 12, 0, 0)
    assert train.per_class == {"cat": (6, 6), "dog": (6, 6)}
    assert train.coco_sizes == {"small": 6, "medium": 6, "large": 0}  # 20 x 30 and 40 x 30
    assert train.sizes == (0, 0, 6, 6, 0, 0, 0, 0, 0) and train.aspects == (0, 0, 0, 6, 6, 0, 0, 0)
    assert train.size_percentiles["50"] == pytest.approx((600**0.5 + 1200**0.5) / 2)
    assert train.image_sizes == {"smallest": (80, 60), "median": (80, 60), "largest": (80, 60)}
    assert train.per_image == {"mean": 2, "median": 2, "most": 2}


def break_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (break_half, "cannot be read as an image"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.unlink(), "is missing"),
        (lambda path: Image.new("RGB", (81, 60)).save(path), "is 81 x 60 pixels, but 80 x 60 in its annotations"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), "is a link that leaves"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_broken_images(data, split, fault, says):
    fault(data[0] / split / f"{split}1.jpg")
    report, _ = check(data)
    finding = only(report)
    assert not report.ok and finding.level == "error" and finding.split == split
    assert "1 image cannot be used" in finding.what
    assert finding.examples[0].startswith("image id 2: ") and says in finding.examples[0]


def test_all_missing_images_and_where_they_are(data):
    (data[0] / "train").rename(data[0] / "photos")
    (data[0] / "train").mkdir()
    for i in range(6):
        shutil.move(data[0] / f"photos/train{i}.jpg", data[0])
    finding = only(check(data)[0])
    assert len(finding.examples) == 6 and f"is {data[0]} the image folder?" in finding.what


def test_unreadable_json(data):
    data[1]["val"]["annotations"][3]["bbox"] = [1, 2, float("nan"), 4]
    report, indices = check(data)
    assert (
        not report.ok and "annotations[3].bbox" in only(report).what and set(indices) == set(report.splits) == {"train"}
    )


def test_boxes(data):
    objects = data[1]["train"]["annotations"]
    objects[0]["bbox"] = [5, 5, 0, 10]
    objects[2]["bbox"] = [200, 5, 10, 10]
    objects[4]["bbox"] = [50, 20, 40, 20]
    objects[6]["bbox"] = [60, 20, 20.8, 20]  # sticks out by less than a pixel: a rounding error
    objects[9]["bbox"], objects[9]["category_id"] = objects[8]["bbox"], objects[8]["category_id"]
    report, _ = check(data)
    assert report.ok and {finding.level for finding in report.findings} == {"warning"}
    found = {finding.what: finding.examples for finding in report.findings}
    assert found["1 box narrower or lower than 1 pixel: not learned"] == (
        "annotation id 1: [5, 5, 0, 10] in train0.jpg (80 x 60)",
    )
    assert found["1 box outside of the image: not learned"][0].startswith("annotation id 3:")
    assert [text[:16] for text in found["1 box more than a pixel out of the image: clipped"]] == ["annotation id 5:"]
    assert found["1 object annotated twice (same class, same box)"][0].startswith("annotation id 10:")
    assert len(found) == 4 and report.splits["train"].objects == 10


def test_images_and_classes_without_objects(data):
    train = data[1]["train"]
    train["annotations"] = [a for a in train["annotations"] if a["category_id"] == 1 and a["image_id"] != 4]
    found = {finding.what: finding for finding in check(data)[0].findings}
    assert found["1 class without an object"].examples == ("dog",)
    empty = found["1 image without an object: not learned from"]
    assert empty.level == "note" and empty.examples == ("image id 4",)
    train["annotations"] = []
    report, _ = check(data)
    assert not report.ok and "no image to learn from" in only(report).what


def test_validation_without_objects(data):
    data[1]["val"]["annotations"] = []
    assert "average precision is not defined" in only(check(data)[0]).what


def test_twins_and_leaks(data):
    folder, _ = data
    shutil.copy(folder / "train/train0.jpg", folder / "train/train5.jpg")
    shutil.copy(folder / "train/train2.jpg", folder / "val/val1.jpg")
    twins, leaks = check(data)[0].findings
    assert twins.examples == ("train0.jpg = train5.jpg",) and "more than once" in twins.what
    assert leaks.examples == ("train train2.jpg = val val1.jpg",) and "flatter" in leaks.what


def test_classes_differ(data):
    data[1]["val"]["categories"][0]["name"] = "cow"
    report, _ = check(data)
    assert not report.ok and "only val has 'cow'" in only(report).what


def test_no_validation_set(data):
    del data[1]["val"]
    report, _ = check(data)
    assert report.ok and only(report).level == "note" and "no validation set" in only(report).what


def test_peculiar_images(data):
    folder, content = data
    grey = np.linspace(0, 65535, 60 * 80).astype(np.uint16).reshape(60, 80)
    Image.fromarray(grey).save(folder / "train/train0.jpg", "PNG")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (80, 60), "red").save(folder / "train/train1.jpg", exif=exif)
    exif[0x0112] = 6
    Image.new("RGB", (80, 60), "blue").save(folder / "train/train2.jpg", exif=exif)
    Image.new("RGB", (1300, 40)).save(folder / "train/train3.jpg")
    content["train"]["images"][3] |= {"width": 1300, "height": 40}
    report, _ = check(data)
    assert report.ok and {finding.level for finding in report.findings} == {"note"}
    found = {finding.what.split(": ")[1][:20]: finding.examples for finding in report.findings}
    assert found["16-bit pictures, sca"] == ("image id 1: train0.jpg",)
    assert found["turned as the camera"] == ("image id 2: train1.jpg",)
    assert found["not turned as the ca"] == ("image id 3: train2.jpg",)
    assert found["more than 20 times a"] == ("image id 4: train3.jpg",)


# ---- What the user sees


def test_text(data):
    break_half(data[0] / "train/train1.jpg")
    for record in data[1]["train"]["annotations"]:
        record["bbox"] = [60, 20, 40, 20]
    text = as_text(check(data)[0])
    assert "6, 0 of them without an object" in text and re.search(r"cat +6 objects in +6 images", text)
    assert "ERROR   train: 1 image cannot be used" in text and "and 7 more" in text
    assert text.endswith("Training would stop.")


def test_many_classes_fit_on_the_screen(data):
    for split in data[1].values():
        split["categories"] = [{"id": i + 1, "name": f"class {i}"} for i in range(500)]
    text = as_text(check(data)[0])
    assert "... 476 classes between ..." in text and text.count("\n") < 100


def test_names_cannot_do_harm(data):
    folder, content = data
    nasty = "<img src=x onerror=alert(1)>\n\x1b[31m 🎈.jpg"
    (folder / "train/train0.jpg").rename(folder / "train" / nasty)
    content["train"]["images"][0]["file_name"] = nasty
    for split in content.values():
        split["categories"][0]["name"] = "<script>alert(1)</script>"
    content["train"]["annotations"][0]["bbox"] = [60, 5, 40, 10]
    report, indices = check(data)
    page, text = as_html(report, indices), as_text(report)
    assert "<script" not in page and "<img src=x" not in page and "&lt;script&gt;" in page
    assert "\x1b" not in text and "onerror" in text


def test_html_is_one_file_with_pictures(data):
    page = as_html(*check(data))
    assert page.count("data:image/jpeg;base64,") == 9 and "http" not in page and "Nothing would stop training" in page


def pictures(page):
    return [
        Image.open(io.BytesIO(base64.b64decode(code)))
        for code in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    ]


@pytest.mark.parametrize("allowed", [False, True])
def test_pictures_from_outside_are_not_shown(data, allowed, tmp_path_factory):
    """A link could pull any picture of this machine into a report that is then passed on."""
    outside, link = tmp_path_factory.mktemp("outside") / "secret.png", data[0] / "train/train0.jpg"
    Image.new("RGB", (80, 60), (255, 0, 0)).save(outside)
    link.unlink()
    link.symlink_to(outside)
    data[1]["train"]["annotations"] = [a | {"bbox": [60, 40, 15, 15]} for a in data[1]["train"]["annotations"]]
    report, sound = check(data, allow_outside=allowed)
    assert report.ok == allowed and len(sound["train"]) == 5 + allowed and len(sound["val"]) == 3
    page = as_html(report, sound)
    red = [photo for photo in pictures(page) if np.abs(np.array(photo.getpixel((20, 20))) - (255, 0, 0)).max() < 20]
    assert len(pictures(page)) == 8 + allowed and len(red) == allowed
    assert ("is a link that leaves the image folder" in page) != allowed


def test_pictures_in_the_page_are_small(data):
    """However large, small or long the file: at most 480 pixels a side."""
    sizes = [(1500, 1000), (4, 3), (2000, 20)]
    for i, (width, height) in enumerate(sizes):
        Image.effect_noise((width, height), 200).convert("RGB").save(data[0] / f"val/val{i}.jpg", "PNG")
        data[1]["val"]["images"][i] |= {"width": width, "height": height}
        data[1]["val"]["annotations"][2 * i] |= {"bbox": [1, 1, 2, 2]}
    report, sound = check(data)
    page = as_html(report, {"val": sound["val"]})
    assert [photo.size for photo in pictures(page)] == [(480, 320), (480, 360), (480, 5)]
    assert len(page) < 1_000_000


def test_a_report_without_any_split_or_any_image(data):
    data[1]["train"]["annotations"][0]["bbox"] = data[1]["val"]["annotations"][0]["bbox"] = "none"
    assert "annotations[0].bbox" in as_html(*check(data)).replace("&#x27;", "'")
    shutil.rmtree(data[0] / "val")
    (data[0] / "val").mkdir()
    data[1]["val"]["annotations"][0]["bbox"] = [1, 1, 9, 9]
    report, sound = check(data)
    assert len(sound["val"]) == 0 and not pictures(as_html(report, sound))


def test_command_line(data, capsys):
    check(data)
    folder = data[0]
    page, numbers = folder / "report.html", folder / "report.json"
    main([str(folder), "--html", str(page), "--json", str(numbers), "--no-estimate"])
    assert "Nothing here would stop training" in capsys.readouterr().out
    assert page.read_text().startswith("<!doctype html>")
    record = json.loads(numbers.read_text())
    assert record["ok"] and record["splits"]["train"]["per_class"]["cat"] == [6, 6] and record["findings"] == []
    with pytest.raises(UserError) as caught:
        main([str(folder), "--html", str(folder / "nowhere/report.html"), "--no-estimate"])
    assert caught.value.code == Exit.STORAGE


def test_the_folder_is_named_once_and_files_may_be_named(data, capsys):
    check(data)
    folder, annotations = str(data[0]), data[0] / "annotations"
    main(["--data", folder, "--no-estimate"])
    as_option = capsys.readouterr().out
    main([folder, "--no-estimate"])
    assert capsys.readouterr().out == as_option and f"--data {folder} --optim.epochs" in as_option
    train = ["--train-json", str(annotations / "instances_train.json"), "--train-images", str(data[0] / "train")]
    main([*train, "--no-estimate"])
    assert "there is no validation set" in capsys.readouterr().out
    with pytest.raises(UserError, match="named twice"):
        main([folder, "--data", folder])


def test_exit_code(data):
    break_half(data[0] / "val/val0.jpg")
    check(data)
    command = [sys.executable, "-m", "vfnet_edu.check", str(data[0])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3 and "val0.jpg cannot be read" in done.stdout
    assert done.stderr.strip() == "error: 1 problem would stop training (see the lines that begin with ERROR)"
