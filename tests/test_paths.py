"""Where a data set keeps its files: every layout is found, explicit paths win, what is missing is named."""

import pytest

from vfnet_edu.data.paths import DataPaths, find_dataset, find_split
from vfnet_edu.runtime.errors import Exit, UserError


@pytest.mark.parametrize(
    ("train", "folder", "val", "val_folder"),
    [
        ("annotations/instances_train2017.json", "train2017", "annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_train2017.json", "images/train2017", "annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_train.json", "train", "annotations/instances_val.json", "val"),
        ("annotations/instances_train.json.gz", "images", "annotations/instances_val.json", "images"),
        ("train/_annotations.coco.json", "train", "valid/_annotations.coco.json", "valid"),
        ("train/_annotations.coco.json", "train", "val/_annotations.coco.json", "val"),
        ("train/_annotations.coco.json", "train", None, None),
    ],
)
def test_layouts(tmp_path, train, folder, val, val_folder):
    for part in filter(None, (folder, val_folder)):
        (tmp_path / part).mkdir(parents=True, exist_ok=True)
    for part in filter(None, (train, val)):
        (tmp_path / part).parent.mkdir(exist_ok=True)
        (tmp_path / part).touch()
    layout = find_dataset(tmp_path)
    assert layout.train == (tmp_path / train, tmp_path / folder)
    assert layout.val == ((tmp_path / val, tmp_path / val_folder) if val else None)


def test_explicit_paths_win(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/_annotations.coco.json").touch()
    (tmp_path / "mine.json").touch()
    layout = find_dataset(DataPaths(tmp_path, val_json=tmp_path / "mine.json", val_images=tmp_path / "train"))
    assert layout.train.json.parent == tmp_path / "train" and layout.val.json == tmp_path / "mine.json"
    assert find_dataset(DataPaths(train_json=tmp_path / "mine.json")).train.images == tmp_path


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "no data set is named"),
        ({"data": "nowhere"}, "no folder nowhere"),
        ({"data": "."}, "no data set of a known layout"),
        ({"train_json": "nowhere.json"}, "no file nowhere.json (check --train-json)"),
        ({"train_images": "."}, "--train-images without --train-json"),
        ({"train_json": "a.json", "train_images": "nowhere"}, "no folder nowhere"),
        ({"train_json": "a.json", "val_json": "nowhere.json"}, "--val-json"),
    ],
)
def test_what_cannot_be_found_is_named(tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").touch()
    with pytest.raises(UserError) as caught:
        find_dataset(DataPaths(**options))
    assert says in str(caught.value) and caught.value.code == Exit.DATA


def test_json_without_images_beside_it(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_train.json").touch()
    with pytest.raises(UserError, match="has no image folder beside it"):
        find_dataset(tmp_path)


def test_images_named_beside_a_folder(tmp_path):
    """The json from the folder, the images from elsewhere: no need to repeat the path of the json."""
    for folder in ("data/annotations", "photos"):
        (tmp_path / folder).mkdir(parents=True)
    json = tmp_path / "data/annotations/instances_val.json"
    json.touch()
    paths = DataPaths(tmp_path / "data", val_images=tmp_path / "photos")
    assert find_split(paths, "val") == (json, tmp_path / "photos")
    assert find_split(paths, "train") is None
