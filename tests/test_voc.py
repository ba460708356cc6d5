"""Pascal VOC's folders as they are: every layout, what torchvision and supervision read, every wrong file named."""

import numpy as np
import pytest
import supervision as sv
from PIL import Image
from test_yolo import picture, read, refusal, same, scenes
from torchvision.datasets import VOCDetection

from vfnet_edu.data.annotations import write_coco
from vfnet_edu.data.coco import read_coco
from vfnet_edu.data.paths import find_dataset
from vfnet_edu.data.survey import check_dataset


def thing(name="cat", box=(11, 16, 30, 45), more=""):
    sides = "".join(
        f"<{side}>{value}</{side}>\n" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{more}\n<bndbox>\n{sides}</bndbox></object>\n"


def sheet(path, *things, size="<size><width>80</width><height>60</height><depth>3</depth></size>\n", head="", file=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    named = f"<filename>{file or path.stem + '.jpg'}</filename>\n"
    path.write_text(f"{head}<annotation>\n{named}{size}{''.join(things)}</annotation>\n", encoding="utf-8")


@pytest.fixture
def data(tmp_path):
    """Two images to learn from, one to be judged by, as in VOC2012."""
    for name in "abc":
        picture(tmp_path / f"JPEGImages/{name}.jpg")
        sheet(tmp_path / f"Annotations/{name}.xml", thing("dog"), thing("cat", (1, 1, 80, 60)))
    lists = tmp_path / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("b\na\n")
    (lists / "val.txt").write_text("c  1\n")
    return tmp_path


def test_a_data_set(data):
    index = read(data)
    assert index.classes == ("cat", "dog") and index.category_ids.tolist() == [1, 2]
    assert index.file_names == ("b.jpg", "a.jpg") and index.size(0) == (60, 80) and index.root == data / "JPEGImages"
    assert index.xywh.tolist() == [[10, 15, 20, 30], [0, 0, 80, 60]] * 2 and index.labels.tolist() == [1, 0] * 2
    assert index.where(1) == f"{data / 'Annotations/b.xml'} line 11" and index.notes == ()
    index.check_files()
    assert read(data, "val").file_names == ("c.jpg",) and check_dataset(find_dataset(data))[0].ok


@pytest.mark.parametrize(
    ("image", "xml"),
    [
        ("JPEGImages/a.jpg", "Annotations/a.xml"),
        ("VOCdevkit/VOC2007/JPEGImages/a.jpg", "VOCdevkit/VOC2007/Annotations/a.xml"),
        ("images/a.png", "annotations/a.xml"),
        ("images/a.jpg", "annots/a.xml"),
        ("a.jpg", "Annotations/a.xml"),
        ("train/a.jpg", "train/a.xml"),  # Roboflow
        ("a.jpeg", "a.xml"),  # labelImg
    ],
)
def test_layouts_without_lists(tmp_path, image, xml):
    picture(tmp_path / image)
    sheet(tmp_path / xml, thing())
    index = read(tmp_path)
    assert index.path(0) == tmp_path / image and index.classes == ("cat",) and find_dataset(tmp_path).val is None


def test_lists_of_voc_2007(data):
    for old, new in (("train", "trainval"), ("val", "test")):
        (data / f"ImageSets/Main/{old}.txt").rename(data / f"ImageSets/Main/{new}.txt")
    assert len(read(data)) == 2 and len(read(data, "val")) == 1


def test_folders_with_the_classes_of_the_training_set(tmp_path):
    for split, name in (("train", "dog"), ("train", "cat"), ("valid", "dog")):
        picture(tmp_path / split / f"{name}.jpg")
        sheet(tmp_path / split / f"{name}.xml", thing(name))
    assert read(tmp_path, "val").classes == ("cat", "dog") and read(tmp_path, "val").labels.tolist() == [1]
    assert check_dataset(find_dataset(tmp_path))[0].ok


def test_which_image_an_xml_is_about(tmp_path):
    """Files are renamed, and <filename> still has the old name, or no ending, or a folder of Windows."""
    for name in ("a.jpg", "b.jpg", "b.png", "c.jpg", "d.png"):
        picture(tmp_path / "images" / name)
    for name, file in (("a", "old.jpg"), ("b", "b.png"), ("c", "c"), ("e", "C:\\photos\\d.png")):
        sheet(tmp_path / f"annotations/{name}.xml", thing(), file=file)
    index = read(tmp_path)
    assert index.file_names == ("a.jpg", "b.png", "c.jpg", "d.png")
    assert index.notes == ("images without an xml, and so left out: 1, as b.jpg",)


def test_difficult_objects_and_parts(data):
    head = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    hard = thing("dog", more="<difficult>1</difficult>")
    sheet(data / "Annotations/a.xml", thing("cat", more=head + "<difficult>0</difficult>"), hard)
    index = read(data)
    assert (
        index.crowd.tolist() == [False, False, False, True]
        and "difficult, neither learned nor missed (crowds, in COCO): 1" in index.notes[0]
    )
    assert index.xywh[2].tolist() == [10, 15, 20, 30] and index.classes == ("cat", "dog")
    assert len(index.target(1)[0]) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('<!DOCTYPE a [<!ENTITY x "xx">]>\n<annotation>&x;</annotation>', "a.xml line 1: declares entities"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>\n<annotation>&x;</annotation>', "declares entities"),
        ("<annotation>\n<object>\n</annotation>", "a.xml line 3: not valid xml: mismatched tag"),
        ("", "a.xml line 1: not valid xml: no element found"),
        ("<html></html>", "a.xml line 1: <html> where VOC has <annotation>"),
        ("<annotation></annotation>", "a.xml: the size of the image is missing"),
        ('<?xml version="1.0" encoding="klingon"?>\n<annotation/>', "a.xml cannot be read: unknown encoding"),
    ],
)
def test_a_wrong_file_is_named(data, text, says):
    (data / "Annotations/a.xml").write_text(text)
    error = refusal(data)
    assert says in str(error) and "passwd" not in str(error)


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ("", "a.xml: the size of the image is missing"),
        ("<size><width>0</width><height>0</height></size>", "a.xml line 3: the size"),
        ("<size><width>80</width></size>", "line 3: the size"),
        ("<size><width>wide</width><height>60</height></size>", "line 3: the size"),
        ("<size><width>1e999</width><height>60</height></size>", "line 3: the size"),
    ],
)
def test_a_missing_size(data, size, says):
    sheet(data / "Annotations/a.xml", thing(), size=size)
    error = refusal(data)
    assert says in str(error) and "<width>80</width><height>60</height>" in error.remedy


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (thing("cat", (1, 2, "three", 4)), "line 11: <xmax> is 'three', not a number"),
        (thing("cat", (1, 2, "", 4)), "line 11: <xmax> is ''"),
        (thing("cat", (1, 2, "nan", 4)), "line 11: <bndbox> is"),
        (thing(""), "line 11: the object has no <name>"),
        ("<object><name>cat</name></object>", "line 11: <xmin> is ''"),
    ],
)
def test_a_wrong_object_is_named(data, wrong, says):
    sheet(data / "Annotations/a.xml", thing(), wrong)
    assert says in str(refusal(data))


def test_all_that_is_wrong_is_listed_by_check(data):
    sheet(data / "Annotations/a.xml", thing("cat", (1, 2, "x", 4)), thing("cat", (1, 2, "y", 4)))
    (data / "JPEGImages/b.jpg").unlink()
    (data / "ImageSets/Main/train.txt").write_text("b\na\nzebra\n")
    assert "3 more records are wrong" in str(refusal(data))
    (finding,) = check_dataset(find_dataset(data))[0].findings
    text = "\n".join(finding.examples)
    assert len(finding.examples) == 4 and "train.txt line 3: there is no" in text and "no image b.*" in text


def test_two_files_about_one_image(tmp_path):
    picture(tmp_path / "images/a.jpg")
    sheet(tmp_path / "annotations/a.xml", thing())
    sheet(tmp_path / "annotations/b.xml", thing(), file="a.jpg")
    assert "are about the same image, a.jpg" in str(refusal(tmp_path))


def test_a_class_only_in_val(data):
    sheet(data / "Annotations/c.xml", thing("dog"), thing("Cat"))
    error = refusal(data, "val")
    assert "c.xml line 11: class 'Cat' occurs in no file of the training set (did you mean 'cat'?" in str(error)
    finding = check_dataset(find_dataset(data))[0].findings[0]
    assert finding.level == "error" and finding.split == "val"


def test_a_name_in_two_spellings(data):
    sheet(data / "Annotations/a.xml", thing("Cat"))
    found = {finding.what: finding.examples for finding in check_dataset(find_dataset(data))[0].findings}
    assert found["classes that differ only in upper and lower case"] == ("Cat", "cat")


def test_boxes_without_area_are_named_by_their_line(data):
    sheet(data / "Annotations/a.xml", thing("cat"), thing("dog", (30, 16, 20, 45)))
    report, _ = check_dataset(find_dataset(data))
    (finding,) = (finding for finding in report.findings if "narrower" in finding.what)
    assert report.ok and finding.level == "warning"
    assert f"{data / 'Annotations/a.xml'} line 11" in finding.examples[0]


def test_no_object_no_image_folder_several_years(tmp_path):
    sheet(tmp_path / "VOC2007/Annotations/a.xml")
    assert "has no image folder beside it" in str(refusal(tmp_path))
    picture(tmp_path / "VOC2007/JPEGImages/a.jpg")
    assert "shows no object" in str(refusal(tmp_path))
    sheet(tmp_path / "VOC2012/Annotations/a.xml")
    assert "several data sets" in str(refusal(tmp_path))


# ---- torchvision and supervision -------------------------------------------------------------------------------------


def test_torchvision_reads_the_same(tmp_path):
    """Its raw records, with VOC's rule for pixels applied by hand."""
    home, rng = tmp_path / "VOCdevkit/VOC2012", np.random.default_rng(0)
    boxes = {f"{i}": np.sort(rng.integers(1, 60, (i, 2, 2)), axis=1).reshape(-1, 4) for i in range(1, 5)}
    for name, corners in boxes.items():
        picture(home / f"JPEGImages/{name}.jpg")
        hard = "<difficult>1</difficult>"
        things = [thing("ab"[i % 2], box, more=hard if i == 2 else "") for i, box in enumerate(corners.tolist())]
        sheet(home / f"Annotations/{name}.xml", *things)
    (home / "ImageSets/Main").mkdir(parents=True)
    (home / "ImageSets/Main/train.txt").write_text("\n".join(reversed(boxes)) + "\n")
    theirs, index = VOCDetection(str(tmp_path), "2012", "train"), read(tmp_path)
    assert len(theirs) == len(index) == 4
    for row, (image, target) in enumerate(theirs):
        assert image.size == index.size(row)[::-1] and target["annotation"]["filename"] == index.file_names[row]
        these = slice(index.starts[row], index.starts[row + 1])
        for i, record in zip(range(these.start, these.stop), target["annotation"]["object"], strict=True):
            x1, y1, x2, y2 = (int(record["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax"))
            assert index.boxes[i].tolist() == [x1 - 1, y1 - 1, x2, y2]
            assert index.classes[index.labels[i]] == record["name"]
            assert index.crowd[i] == (record.get("difficult") == "1")


def test_round_trip_through_supervision(tmp_path):
    """What it writes (in whole pixels), we read; and both read the same files alike, also as our json."""
    dataset = scenes(tmp_path / "drawn", np.random.default_rng(0))
    images, xmls = tmp_path / "set/images", tmp_path / "set/annotations"
    dataset.as_pascal_voc(str(images), str(xmls))
    index = read(tmp_path / "set")
    same(index, dataset, 1)
    theirs = sv.DetectionDataset.from_pascal_voc(str(images), str(xmls))
    order = [theirs.classes.index(name) for name in index.classes]  # theirs are in the order of their appearance
    for found in theirs.annotations.values():
        found.class_id = np.argsort(order)[found.class_id]
    same(index, sv.DetectionDataset(list(index.classes), theirs.image_paths, theirs.annotations), 1e-4)
    write_coco(index, tmp_path / "train.json")
    same(read_coco(tmp_path / "train.json", images), dataset, 1)
    assert Image.open(index.path(0)).size == index.size(0)[::-1]
