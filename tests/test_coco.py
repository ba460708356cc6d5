"""The index of a COCO data set: what is kept, what is learned, and one clear sentence for everything that is wrong."""

import copy
import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from vfnet_edu.data import coco_stream
from vfnet_edu.data.coco import read_coco, same_classes
from vfnet_edu.data.coco_json import _read_with_care
from vfnet_edu.runtime.errors import Exit, UserError

GOOD = {
    "images": [
        {"id": 20, "file_name": "a.jpg", "width": 100, "height": 60},
        {"id": 10, "file_name": "sub/b.jpg", "width": 60, "height": 100},
        {"id": 30, "file_name": "c.jpg", "width": 100, "height": 100},
    ],
    "annotations": [
        {"id": 5, "image_id": 10, "category_id": 90, "bbox": [1, 2, 30, 40], "area": 700.5, "iscrowd": 0},
        {"id": 3, "image_id": 20, "category_id": 7, "bbox": [10.5, 20, 30, 30.25], "area": 900, "iscrowd": 0},
        {"id": 8, "image_id": 10, "category_id": 7, "bbox": [-5, 50, 20, 20], "area": 400, "iscrowd": 1},
        {"id": 9, "image_id": 10, "category_id": 13, "bbox": [0, 0, 60, 100], "area": 6000, "iscrowd": 0},
    ],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 7, "name": "train"}, {"id": 13, "name": "stop sign"}],
}


@pytest.fixture
def content():
    return copy.deepcopy(GOOD)


@pytest.fixture
def read(tmp_path):
    def write_and_read(content, name="instances.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return read_coco(path, tmp_path / "images")

    return write_and_read


def refused(read, content) -> str:
    with pytest.raises(UserError) as caught:
        read(content)
    assert caught.value.code == Exit.DATA and caught.value.remedy
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_columns(read, content):
    index = read(content)
    assert len(index) == 3 and index.image_ids.tolist() == [20, 10, 30]
    assert index.classes == ("train", "stop sign", "toothbrush") and index.category_ids.tolist() == [7, 13, 90]
    assert index.starts.tolist() == [0, 1, 4, 4]
    assert index.annotation_ids.tolist() == [3, 5, 8, 9]  # of one image: in the order of the file
    assert index.labels.tolist() == [0, 2, 0, 1]
    assert index.boxes.dtype == np.float32
    assert index.boxes.tolist()[0] == [10.5, 20, 40.5, 50.25]
    assert index.boxes.tolist()[2] == [-5, 50, 15, 70]  # not clipped
    assert index.areas.tolist() == [900, 700.5, 400, 6000]
    assert index.path(1).parts[-3:] == ("images", "sub", "b.jpg") and index.size(0) == (60, 100)
    boxes, labels = index.target(1)
    assert boxes.tolist() == [[1, 2, 31, 42], [0, 0, 60, 100]] and labels.tolist() == [2, 1]  # without the crowd
    assert index.target(2)[0].shape == (0, 4)


def test_agrees_with_pycocotools(read, content, tmp_path, capsys):
    index = read(content)
    referee = COCO(tmp_path / "instances.json")
    assert sorted(index.category_ids) == sorted(referee.getCatIds())
    for row, image_id in enumerate(index.image_ids):
        these = slice(index.starts[row], index.starts[row + 1])
        theirs = referee.loadAnns(referee.getAnnIds(imgIds=int(image_id)))
        assert [a["id"] for a in theirs] == index.annotation_ids[these].tolist()
        assert [a["bbox"] for a in theirs] == index.xywh[these].tolist()


def test_what_is_learned(read, content):
    def add(bbox, **more):
        number = len(content["annotations"]) + 100
        record = {"id": number, "image_id": 30, "category_id": 7, "bbox": bbox, "area": 100, "iscrowd": 0}
        content["annotations"].append(record | more)
        return number

    ignored = add([1, 1, 10, 10], ignore=1)
    thin = [add([1, 1, 0.9, 10]), add([1, 1, 10, 0]), add([5, 5, -3, 4])]
    outside = [add([100, 10, 20, 20]), add([-30, 1, 30, 10])]
    no_area = add([1, 1, 10, 10], area=0)
    content["images"].append({"id": 40, "file_name": "tiny.jpg", "width": 31, "height": 400})
    add([1, 1, 10, 10], image_id=40)
    index = read(content)
    training, dropped = index.for_training()
    assert training.image_ids.tolist() == [20, 10]
    assert dropped.boxes == {
        "flagged ignore": (ignored,),
        "narrower or lower than 1 pixel": tuple(thin),
        "outside of the image": tuple(outside),
        "of no area": (no_area,),
    }
    assert dropped.images == {"with a side under 32 pixels": (40,), "without an object": (30,)}
    assert "1 image without an object (id 30)" in str(dropped) and "3 boxes narrower" in str(dropped)
    assert len(index) == 4 and len(index.annotation_ids) == 12  # an evaluation still sees all of the file


def test_one_pixel_is_enough(read, content):
    content["annotations"][1]["bbox"] = [100 - 0.37, 20, 1.0, 1.0]  # x + w - x would round to less than 1
    assert read(content).for_training()[0].image_ids.tolist() == [20, 10]


def test_image_with_only_a_crowd_is_not_learned_from(read, content):
    content["annotations"].append(content["annotations"][2] | {"id": 11, "image_id": 30})
    assert read(content).for_training()[0].image_ids.tolist() == [20, 10]


def test_select(read, content):
    index = read(content).select([2, 1])
    assert index.image_ids.tolist() == [30, 10] and index.starts.tolist() == [0, 0, 3]
    assert index.annotation_ids.tolist() == [5, 8, 9] and index.file_names == ("c.jpg", "sub/b.jpg")
    assert index.target(1)[1].tolist() == [2, 1]
    assert len(index.select([])) == 0


def test_repairs(read, content):
    first, second, third, _ = content["annotations"]
    first["id"] = second["id"]
    del second["area"], second["iscrowd"]
    third["image_id"], third["category_id"] = "10", 7.0
    index = read(content)
    assert index.annotation_ids.tolist() == [1, 2, 3, 4]  # a second object of an id, or one with id 0, is never found
    assert index.areas[0] == 30 * 30.25 and not index.crowd[0]
    assert "1 of 4 objects" in index.notes[0] and "not unique" in index.notes[1]
    content["annotations"][0]["id"] = 0
    assert 0 not in read(content).annotation_ids


@pytest.mark.parametrize("encode", [lambda s: b"\xef\xbb\xbf" + s.encode(), lambda s: s.encode("utf-16")])
def test_encodings(read, content, encode):
    assert len(read(encode(json.dumps(content)))) == 3


def test_gzip(read, content, tmp_path):
    packed = gzip.compress(json.dumps(content).encode())
    assert len(read(packed, "instances.json.gz")) == 3
    assert "damaged gzip" in refused(read, packed[:-20])


def test_fingerprint_follows_the_content(read, content):
    first = read(content).fingerprint
    assert first == read(content).fingerprint and len(first) == 16
    content["annotations"][0]["bbox"][0] += 1
    assert first != read(content).fingerprint


NAN = float("nan")


@pytest.mark.parametrize(
    ("table", "place", "change", "says"),
    [
        ("annotations", 2, {"bbox": [1, NAN, 3, 4]}, "annotations[2].bbox is [1.0, nan, 3.0, 4.0]"),
        ("annotations", 2, {"bbox": [1, 2, float("inf"), 4]}, "annotations[2].bbox"),
        ("annotations", 2, {"bbox": [1, 2, 3]}, "annotations[2].bbox is [1, 2, 3]"),
        ("annotations", 2, {"bbox": ["1", "2", "3", "4"]}, "annotations[2].bbox"),
        ("annotations", 2, {"bbox": None}, "annotations[2].bbox is None"),
        ("annotations", 2, {"bbox": ...}, "annotations[2] has no bbox"),
        ("annotations", 2, {"image_id": ...}, "annotations[2] has no image_id"),
        ("annotations", 2, {"image_id": 77}, "annotations[2].image_id is 77, but no image"),
        ("annotations", 2, {"category_id": 1}, "annotations[2].category_id is 1, but no category"),
        ("annotations", 2, {"category_id": "cat"}, "annotations[2].category_id is 'cat'"),
        ("annotations", 2, {"area": "big"}, "annotations[2]"),
        ("images", 1, {"id": 20}, "images[0] and images[1] have the same id 20"),
        ("images", 1, {"file_name": "a.jpg"}, "images[0] and images[1] have the same file_name"),
        ("images", 1, {"file_name": "../../etc/passwd"}, "leads out of the image folder"),
        ("images", 1, {"file_name": "/etc/passwd"}, "leads out of the image folder"),
        ("images", 1, {"file_name": 3}, "images[1].file_name is 3"),
        ("images", 1, {"width": ...}, "images[1] has no width"),
        ("images", 1, {"height": 0}, "images[1] (id 10) is 60 x 0 pixels"),
        ("images", 1, {"id": "b"}, "images[1].id is 'b'"),
        ("categories", 1, {"id": 90}, "categories[0] and categories[1] have the same id 90"),
        ("categories", 1, {"name": ...}, "categories[1] is"),
    ],
)
def test_bad_records_are_named(read, content, table, place, change, says):
    record = content[table][place]
    for key, value in change.items():
        if value is ...:
            del record[key]
        else:
            record[key] = value
    assert says in refused(read, content)


def test_bad_files_are_named(read, content, tmp_path):
    text = json.dumps(content, indent=1)
    assert "ends too early" in refused(read, text[: len(text) // 2].encode())
    assert "line " in refused(read, text[: len(text) // 2].encode())
    assert "version https://git-lfs" in refused(read, b"version https://git-lfs.github.com/spec/v1")
    assert "nested too deeply" in refused(read, b"[" * 100_000)
    assert "holds a list" in refused(read, content["annotations"])
    assert "not valid json" in refused(read, b"\xff\xff\xff\xff\xff")
    for key in GOOD:
        assert f'no list "{key}"' in refused(read, {k: v for k, v in content.items() if k != key})
    assert '"images" is empty' in refused(read, content | {"images": [], "annotations": []})
    assert '"categories" is empty' in refused(read, content | {"categories": [], "annotations": []})
    with pytest.raises(UserError, match="there is no file"):
        read_coco(tmp_path / "nowhere.json", tmp_path)
    with pytest.raises(UserError, match="no image to learn from"):
        read(content | {"annotations": []}).for_training()


def test_same_classes(read, content):
    train = read(content)
    same_classes(train, read(content))
    content["categories"][1]["name"] = "tram"
    with pytest.raises(UserError, match="only train has 'train'; only val has 'tram'"):
        same_classes(train, read(content))
    content["categories"] = [{"id": i, "name": name} for i, name in enumerate(("stop sign", "train", "toothbrush"))]
    content["annotations"] = []
    with pytest.raises(UserError, match="class 0 is 'train' in train and 'stop sign' in val"):
        same_classes(train, read(content))


# ---- The fast reader and the careful one -----------------------------------------------------------------------------
TRAPS = {  # what looks like a place to cut
    "info": {"annotations": 3, "description": '"annotations": [{"id": 1}, {"id": 2}], '},
    "licenses": [{"annotations": [{"id": 1}]}, {"name": "}, {"}, {"name": "}]"}],
}
OUTLINES = ([[1.5, 2, 30, 4.25, 5, 6]], {"counts": [1, 2], "size": [9, 9]}, {"counts": "a], [b]]", "size": [9, 9]}, [])


def both(path):
    """What the fast reader and the careful one make of a file; they must agree unless the fast one declines."""
    fast, careful = coco_stream.stream_tables(path), _read_with_care(path)
    if fast:
        assert fast[0] == careful[0] and fast[1] == careful[1] and fast[3] == careful[3]
        assert fast[2].dtype == careful[2].dtype
        for name in fast[2].dtype.names:
            np.testing.assert_array_equal(fast[2][name], careful[2][name])
    return fast, careful


@pytest.mark.parametrize("block", [1, 7, 100, 10_000])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_usual_files_are_read_fast(content, tmp_path, monkeypatch, block, pack):
    monkeypatch.setattr(coco_stream, "BLOCK", block)
    for record, outline in zip(content["annotations"], OUTLINES, strict=True):
        record["segmentation"] = outline
    del content["annotations"][1]["area"], content["annotations"][2]["id"]
    content["annotations"][3] |= {"iscrowd": True, "ignore": None, "area": None, "attributes": {"by": "me"}}
    images, objects, classes = ({key: content[key]} for key in ("images", "annotations", "categories"))
    for i, order in enumerate((images | objects | classes, classes | objects | images, objects | images | classes)):
        for indent in (None, 2):
            path = tmp_path / f"{i}{indent}.json"
            path.write_bytes(pack(json.dumps(order, indent=indent).encode()))
            assert both(path)[0], path


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("block", [50, 10_000])
def test_places_that_only_look_like_a_cut(content, tmp_path, monkeypatch, trap, block):
    monkeypatch.setattr(coco_stream, "BLOCK", block)
    path = tmp_path / "instances.json"
    for order in ({trap: TRAPS[trap]} | content, content | {trap: TRAPS[trap]}):
        path.write_text(json.dumps(order))
        both(path)
    content["annotations"][1]["parts"] = [{"id": 1}, {"id": 2}]  # nested records
    path.write_text(json.dumps(content))
    both(path)
    content["info"] = {"annotations": content.pop("annotations")}  # not where it belongs
    path.write_text(json.dumps(content))
    assert coco_stream.stream_tables(path) is None


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30)
IDS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([7.0, "7", 2**63, None])
FLAGS = st.sampled_from([0, 1, True, False, None, 2, "1", 0.5])
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text() | st.sampled_from(["},{", "]}", '"annotations": [']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("id"), inner, max_size=3),
    max_leaves=6,
)
ANNOTATIONS = st.fixed_dictionaries(
    {"image_id": st.just(10) | IDS, "category_id": st.just(7), "bbox": st.lists(NUMBERS, min_size=4, max_size=4)},
    optional={
        "id": IDS, "area": NUMBERS | st.none(), "iscrowd": FLAGS, "ignore": FLAGS,
        "segmentation": ANYTHING, "attributes": ANYTHING,
    },
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    st.lists(ANNOTATIONS, max_size=5),
    st.dictionaries(st.sampled_from(["info", "annotation", "licenses", "a"]), ANYTHING),
    st.sampled_from([None, 0, 1]),
    st.integers(1, 400),
)
def test_the_fast_reader_never_differs(tmp_path_factory, objects, more, indent, block):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(more | GOOD | {"annotations": objects} | more, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_stream, "BLOCK", block)
        try:
            both(path)
        except UserError:
            assert coco_stream.stream_tables(path) is None


@pytest.fixture
def files(tmp_path):
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg", "c.jpg"):
        Image.new("RGB", (8, 8)).save(root / name)
    return root


def test_files(read, content, files, tmp_path):
    index = read(content)
    index.check_files()

    def says(part):
        with pytest.raises(UserError) as caught:
            index.check_files()
        assert part in str(caught.value) and "c.jpg" in str(caught.value) and "image id 30" in str(caught.value)

    (files / "c.jpg").rename(files / "C.JPG")
    says("is missing (there is 'C.JPG'")
    (files / "C.JPG").rename(tmp_path / "c.jpg")
    says(f"is {tmp_path} the image folder?")
    (files / "c.jpg").symlink_to(tmp_path / "c.jpg")
    says("leaves the image folder")
    index.check_files(allow_outside=True)
    (files / "c.jpg").unlink()
    (files / "c.jpg").symlink_to(files / "a.jpg")
    index.check_files()  # a link that stays inside is fine
    (files / "c.jpg").unlink()
    (files / "c.jpg").touch()
    says("is empty")
    (files / "c.jpg").unlink()
    (files / "c.jpg").mkdir()
    says("is not a file")


def test_linked_folder_that_leaves_is_refused(read, content, files, tmp_path):
    (files / "sub").rename(tmp_path / "elsewhere")
    (files / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leaves the image folder"):
        read(content).check_files()


def test_many_missing_files_are_counted(read, content, tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="so are 2 more of 3 images"):
        read(content).check_files()


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units")
def test_outlines_do_not_fill_the_memory(tmp_path):
    """100,000 objects with outlines of 26 points, 50 MB of text: the peak grows by less than 60 MB."""
    outline = [[round(0.37 * i, 2) for i in range(52)]]
    objects = [
        {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 9, "iscrowd": 0}
        for i in range(100)
    ]
    text = ",".join(json.dumps(record | {"segmentation": outline}) for record in objects)
    image = {"id": 1, "file_name": "a.jpg", "width": 99, "height": 99}
    head = json.dumps({"images": [image], "categories": [{"id": 1, "name": "x"}]})[:-1]
    path = tmp_path / "large.json"
    path.write_text(head + ', "annotations": [' + ",".join([text] * 1000) + "]}")
    code = """
import resource, sys
from vfnet_edu.data.coco import read_coco
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak(); index = read_coco(sys.argv[1], "."); print(len(index.labels), (peak() - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    count, megabytes = map(int, done.stdout.split())
    assert count == 100_000 and megabytes < 60
