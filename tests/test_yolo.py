"""YOLO's folders as they are: every layout, what supervision reads and writes, and every wrong line by its name."""

import json

import numpy as np
import pytest
import supervision as sv
from PIL import Image

from vfnet_edu.data.annotations import read_split, write_coco
from vfnet_edu.data.coco import read_coco
from vfnet_edu.data.paths import DataPaths, find_dataset, find_split
from vfnet_edu.data.survey import check_dataset
from vfnet_edu.runtime.errors import Exit, UserError

BOX = "1 0.5 0.5 0.25 0.5\n"
YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def picture(path, size=(80, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "grey").save(path)


def label(path, text=BOX):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def data(tmp_path):
    """Two images to learn from, one to be judged by, in Ultralytics' layout."""
    (tmp_path / "data.yaml").write_text(YAML)
    for name in ("train/a", "train/b", "val/c"):
        picture(tmp_path / f"images/{name}.jpg")
        label(tmp_path / f"labels/{name}.txt", "0 0.25 0.5 0.25 0.5\n" + BOX)
    return tmp_path


def read(folder, split="train"):
    return read_split(find_split(DataPaths(folder), split))


def refusal(folder, split="train"):
    with pytest.raises(UserError) as caught:
        read(folder, split)
    assert caught.value.code == Exit.DATA and "\n" not in str(caught.value) and caught.value.remedy
    return caught.value


def test_a_data_set(data):
    index = read(data)
    assert index.classes == ("cat", "dog") and index.category_ids.tolist() == [1, 2]
    assert index.file_names == ("images/train/a.jpg", "images/train/b.jpg") and index.size(0) == (60, 80)
    assert index.xywh.tolist() == [[10, 15, 20, 30], [30, 15, 20, 30]] * 2 and index.labels.tolist() == [0, 1] * 2
    assert index.areas.tolist() == [600] * 4 and index.annotation_ids.tolist() == [1, 2, 3, 4] and not index.crowd.any()
    assert index.where(3) == f"{data / 'labels/train/b.txt'} line 2" and index.notes == ()
    index.check_files()
    assert check_dataset(find_dataset(data))[0].ok


@pytest.mark.parametrize(
    ("image", "text", "yaml"),
    [
        ("images/train/a.jpg", "labels/train/a.txt", "train: images/train"),
        ("train/images/a.jpg", "train/labels/a.txt", "train: ../train/images"),  # Roboflow
        ("train/images/a.jpg", "train/labels/a.txt", "train: train"),
        ("train/images/deep/a.JPG", "train/labels/deep/a.txt", "train: [train/images]"),
        ("set/images/train/a.jpg", "set/labels/train/a.txt", "path: set\ntrain: images/train"),
        ("images/train/a.jpg", "labels/train/a.txt", "path: /gone/elsewhere\ntrain: images/train"),
        ("train/a.jpg", "train/a.txt", "train: train"),
        ("images/a.jpg", "labels/a.txt", "train: lists/train.txt"),
    ],
)
def test_layouts(tmp_path, image, text, yaml):
    picture(tmp_path / image)
    label(tmp_path / text)
    label(tmp_path / "lists/train.txt", "../images/a.jpg\n")
    (tmp_path / "data.yaml").write_text(f"{yaml}\nnames: {{0: cat, 1: dog}}\n")
    for place in (tmp_path, tmp_path / "data.yaml"):
        index = read(place)
        assert index.file_names == (image,) and index.labels.tolist() == [1] and index.path(0).exists()
    assert find_dataset(tmp_path).val is None


def test_lists_may_be_relative_to_the_data_set(data):
    label(data / "train.txt", "images/train/b.jpg\n\nimages/train/b.jpg\n./images/train/a.jpg\n")
    (data / "data.yaml").write_text(YAML.replace("images/train", "train.txt"))
    index = read(data)
    assert [name[-5:] for name in index.file_names] == ["b.jpg", "a.jpg"] and index.notes == (
        "images listed more than once: 1",
    )


def test_classes_in_a_text_file(tmp_path):
    """As labelImg and Label Studio export: no data.yaml."""
    label(tmp_path / "classes.txt", "cat\ndog\n\n")
    picture(tmp_path / "images/a.png")
    label(tmp_path / "labels/a.txt")
    assert read(tmp_path).classes == ("cat", "dog") and find_dataset(tmp_path).val is None
    for name in ("val/b", "train/c"):
        picture(tmp_path / f"images/{name}.png")
        label(tmp_path / f"labels/{name}.txt")
    assert read(tmp_path).file_names == ("images/train/c.png",) and read(tmp_path, "val").file_names[0][-5:] == "b.png"


def test_images_elsewhere_are_named(data):
    (data / "images").rename(data / "photos")
    (data / "photos/images").mkdir()
    (data / "photos/train").rename(data / "photos/images/train")
    (data / "labels").rename(data / "photos/labels")
    files = find_split(DataPaths(data, train_images=data / "photos/images/train"), "train")
    assert read_split(files).file_names == ("a.jpg", "b.jpg")


def test_outlines_and_key_points_become_boxes(data):
    label(data / "labels/train/a.txt", "0 0.2 0.1 0.6 0.1 0.4 0.9\n0 .5 .5 .5 .5\n")
    assert np.allclose(read(data).xywh[0], [16, 6, 32, 48])
    label(data / "labels/train/a.txt", "0 0.5 0.5 0.25 0.5 0.1 0.1 0.9 0.9\n")
    assert np.allclose(read(data).xywh[0], [8, 6, 64, 48])  # four corners
    (data / "data.yaml").write_text(YAML + "kpt_shape: [2, 2]\n")
    assert np.allclose(read(data).xywh[0], [30, 15, 20, 30])  # a box and two points
    (data / "data.yaml").write_text(YAML + "kpt_shape: many\n")
    assert "line 4: kpt_shape should be" in str(refusal(data))


def test_images_without_labels_and_labels_without_images(data):
    (data / "labels/train/b.txt").unlink()
    label(data / "labels/train/gone.txt")
    index = read(data)
    assert len(index) == 2 and len(index.labels) == 2
    assert (
        "without a label file, and so without an object: 1, as b.jpg" in index.notes[0] and "gone.txt" in index.notes[1]
    )
    (data / "labels/train/a.txt").unlink()
    error = refusal(data)
    assert "none of the 2 images" in str(error) and str(data / "labels/train/a.txt") in error.remedy


def test_a_turned_photograph_has_the_size_that_is_seen(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 60)).save(data / "images/train/a.jpg", exif=exif)
    index = read(data)
    assert index.size(0) == (80, 60) and index.xywh[0].tolist() == [7.5, 20, 15, 40]
    assert check_dataset(find_dataset(data))[0].ok


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 0.5 0.5 0.2", "line 2: 4 numbers, where a box has five"),
        ("0 0.5 0.5 0.2 0.2 0.9", "line 2: 6 numbers, where a box has five"),
        ("0 320 0.5 0.2 0.2", "line 2: 320 is not between 0 and 1 (numbers are fractions"),
        ("0 0.5 0.5 -0.2 0.2", "line 2: -0.2 is not between 0 and 1"),
        ("0 0.5 0.5 nan 0.2", "line 2: nan is not between 0 and 1"),
        ("0 0.5 0.5 inf 0.2", "line 2: inf is not between 0 and 1"),
        ("2 0.5 0.5 0.2 0.2", "line 2: class 2, but there are 2 classes, 0 to 1"),
        ("0.5 0.5 0.5 0.2 0.2", "line 2: class 0.5, but"),
        ("-1 0.5 0.5 0.2 0.2", "line 2: class -1, but"),
        ("cat 0.5 0.5 0.2 0.2", "line 2: 'cat 0.5 0.5 0.2 0.2' is not a row of numbers"),
        ("0,0.5,0.5,0.2,0.2", "is not a row of numbers"),
        ("0 0.1 0.1 0.5 0.1 0.5 1.7", "line 2: 1.7 is not between"),
    ],
)
def test_a_wrong_line_is_named(data, line, says):
    label(data / "labels/train/a.txt", BOX + line)
    error = refusal(data)
    assert str(error).startswith(str(data / "labels/train/a.txt")) and says in str(error) and error.records == ()


def test_all_wrong_lines_are_listed_by_check(data):
    label(data / "labels/train/a.txt", "7 0.5 0.5 0.2 0.2\n" * 3)
    (data / "labels/train/b.txt").write_bytes(b"\xff\xfe0")
    (data / "images/train/c.jpg").write_bytes(b"<html>")
    error = refusal(data)
    assert (
        "line 1: class 7" in str(error) and "4 more records are wrong" in str(error) and "check lists" in error.remedy
    )
    (finding,) = check_dataset(find_dataset(data))[0].findings
    assert finding.level == "error" and len(finding.examples) == 5
    assert "b.txt: byte 0 is not UTF-8" in finding.examples[3] and "c.jpg cannot be read" in finding.examples[4]


def test_a_box_that_nobody_should_learn_from_is_named_by_its_line(data):
    label(data / "labels/train/a.txt", BOX + "0 0.5 0.5 0 0.1\n0 1.005 0.5 0.1 0.1\n" + BOX)
    findings = {finding.what: finding.examples[0] for finding in check_dataset(find_dataset(data))[0].findings}
    assert f"{data / 'labels/train/a.txt'} line 2" in findings["1 box narrower or lower than 1 pixel: not learned"]
    assert "a.txt line 3" in findings["1 box more than a pixel out of the image: clipped"]
    assert "a.txt line 4" in findings["1 object annotated twice (same class, same box)"]


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("train: nowhere\nnames: [a]", "data.yaml line 1: train: nowhere does not exist"),
        ("names: [a]\ntrain: /content/data/images/train", "line 2: train: /content/data/images/train does not exist"),
        ("train: 7\nnames: [a]", "train is 7, not a path"),
        ("train: ../..\nnames: [a]", "leads out of"),
        ("names: [a]", "names no training images"),
        ("train: images/train", "names no classes"),
        (
            "train: images/train\nnames: [cat, no]",
            "line 2: names: class 1 is False, not a name (put the name in quotes",
        ),
        ("train: images/train\nnames: {zero: cat}", "'zero' is not the number of a class"),
        ("train: images/train\nnames: [[a], b]", "class 0 is a list, not a name"),
        ("train: images/train\nnc: 3\nnames: [cat, dog]", "line 2: nc says 3 classes, but there are 2 names"),
        ("train: [images/train\nnames: [cat]", "line 2: not valid yaml"),
        ("- cat\n- dog", "holds no table"),
        ("train: !!python/object/apply:os.system ['exit 1']", "could not determine a constructor"),
        ("train: " + "[" * 1000, "not valid yaml"),
        ("a: &a [x,x]\nb: &b [*a,*a]\nnames: [*b]\ntrain: images/train", "class 0 is a list"),
        ("train: lists/train.txt\nnames: [a]", "lists/train.txt line 2: there is no images/gone.jpg"),
        ("train: lists/out.txt\nnames: [a]", "out.txt line 1: ../../out.jpg leads out of"),
    ],
)
def test_a_data_yaml_that_leads_nowhere(data, yaml, says):
    label(data / "lists/train.txt", "images/train/a.jpg\nimages/gone.jpg\n")
    label(data / "lists/out.txt", "../../out.jpg\n")
    picture(data.parent / "out.jpg")
    (data / "data.yaml").write_text(yaml)
    error = refusal(data)
    assert says in str(error)
    if "/content" in yaml:
        assert error.remedy == "write train: images/train, which exists"


def test_several_data_sets_in_one_folder(data):
    (data / "data.yaml").rename(data / "one.yaml")
    assert read(data).classes == ("cat", "dog")
    (data / "two.yml").write_text(YAML)
    (data / "workflow.yaml").write_text("on: push\n")
    assert "several data sets: one.yaml, two.yml (name one: --data" in str(refusal(data))


def test_a_class_only_in_val(data):
    label(data / "labels/train/a.txt", "0 0.5 0.5 0.2 0.2\n")
    label(data / "labels/train/b.txt", "0 0.5 0.5 0.2 0.2\n")
    findings = {finding.what: finding.examples for finding in check_dataset(find_dataset(data))[0].findings}
    (example,) = findings["1 class with objects in val but none in train: cannot be learned"]
    assert example.startswith(f"dog: {data / 'labels/val/c.txt'} line 2")


# ---- supervision -----------------------------------------------------------------------------------------------------


def scenes(folder, rng, count=6):
    """A data set of supervision's, with images in `folder`, of whole and broken boxes."""
    images, annotations = {}, {}
    for i in range(count):
        path = folder / f"{i}.png"
        height, width = rng.integers(40, 90, 2).tolist()
        picture(path, (width, height))
        corners = np.sort(rng.uniform(0, 1, (i, 2, 2)), axis=1).reshape(-1, 4) * [width, height, width, height]
        images[str(path)] = np.asarray(Image.open(path))
        annotations[str(path)] = sv.Detections(corners.astype(np.float32), class_id=rng.integers(0, 3, i))
    return sv.DetectionDataset(["cat", "dog", "öwl"], list(images), annotations)


def same(index, dataset, tolerance):
    """As many images, objects, classes and the same boxes in both."""
    assert list(index.classes) == dataset.classes and len(index) == len(dataset)
    for path, _, found in dataset:
        row = [index.path(row).name for row in range(len(index))].index(path.rsplit("/", 1)[-1])
        these = slice(index.starts[row], index.starts[row + 1])
        assert index.labels[these].tolist() == found.class_id.tolist()
        assert np.allclose(index.boxes[these], found.xyxy, atol=tolerance)


def test_round_trip_through_supervision(tmp_path):
    """What it writes, we read; what we write, it reads; and both read the same files alike."""
    dataset = scenes(tmp_path / "drawn", np.random.default_rng(0))
    places = [str(tmp_path / part) for part in ("set/images/train", "set/labels/train", "set/data.yaml")]
    dataset.as_yolo(*places)
    (tmp_path / "set/data.yaml").write_text("train: images/train\n" + (tmp_path / "set/data.yaml").read_text())
    index = read(tmp_path / "set")
    same(index, dataset, 1e-3)
    same(index, sv.DetectionDataset.from_yolo(*places), 1e-3)
    write_coco(index, tmp_path / "train.json")
    same(index, sv.DetectionDataset.from_coco(str(index.root), str(tmp_path / "train.json")), 1e-4)


def test_the_json_is_the_index(data):
    index = read(data)
    path = data / "out.json"
    write_coco(index, path)
    again = read_coco(path, index.root)
    for name in (
        "image_ids",
        "heights",
        "widths",
        "starts",
        "xywh",
        "labels",
        "crowd",
        "ignore",
        "areas",
        "category_ids",
    ):
        assert np.array_equal(getattr(index, name), getattr(again, name)), name
    assert index.classes == again.classes and index.file_names == again.file_names
    assert set(json.loads(path.read_text())) == {"images", "annotations", "categories"}
    with pytest.raises(UserError, match="exists already"):
        write_coco(index, path)
