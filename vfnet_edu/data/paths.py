"""Where a data set keeps its files: as the user names them, or as they are found in its folder.

Known layouts: COCO 2017 (``annotations/instances_train2017.json`` + ``train2017/`` or ``images/train2017/``), the same
with ``train`` and ``val``, Roboflow's (``train/_annotations.coco.json``; ``valid/`` or ``val/``), Pascal VOC's (xml)
and YOLO's (``data.yaml``): see :mod:`vfnet_edu.data.voc` and :mod:`vfnet_edu.data.yolo`.  They are tried in this order.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from vfnet_edu.data.coco_json import data_error
from vfnet_edu.data.voc import VocFiles, find_voc
from vfnet_edu.data.yolo import YoloFiles, find_yolo

NAMES = {"train": ("train2017", "train"), "val": ("val2017", "val", "valid")}


@dataclass(frozen=True)
class DataPaths:
    """What the user says about it: the folder, single files, or both. ``DataPaths()`` is a user who said nothing."""

    data: Path | None = None
    """data set folder, in the layout of COCO, Roboflow, YOLO (or its data.yaml) or Pascal VOC"""
    train_json: Path | None = None
    """annotations to learn from, in place of those in the folder"""
    train_images: Path | None = None
    """their image folder; by default the folder of the json"""
    val_json: Path | None = None
    """annotations to evaluate on, in place of those in the folder"""
    val_images: Path | None = None
    """their image folder; by default the folder of the json"""


class Files(NamedTuple):
    """The files of one split in COCO's format; what :func:`vfnet_edu.data.coco.read_coco` reads."""

    json: Path
    images: Path  # the folder


@dataclass(frozen=True)
class Layout:
    """What is there."""

    train: Files | YoloFiles | VocFiles
    val: Files | YoloFiles | VocFiles | None = None  # None: nothing to evaluate on


def find_dataset(paths: DataPaths | str | Path) -> Layout:
    """Find the files of a data set, by its folder or by what the user says. Explicit paths win over the folder.

    Raises:
        UserError: code DATA where a folder or file is missing, or no training set is found.
    """
    if not isinstance(paths, DataPaths):
        paths = DataPaths(Path(paths))
    train = find_split(paths, "train")
    if train is None:
        looked = (
            "annotations/instances_train.json + train/, train/_annotations.coco.json, data.yaml, or Annotations/*.xml"
        )
        what = f"{paths.data} holds no data set of a known layout" if paths.data else "no data set is named"
        raise data_error(what, f"give a folder with {looked}, or --train-json and --train-images")
    return Layout(train, find_split(paths, "val"))


def find_split(paths: DataPaths, split: Literal["train", "val"]) -> Files | YoloFiles | VocFiles | None:
    """The files of one split, or None where the data set does not have it.

    Raises:
        UserError: code DATA where a folder or file is missing.
    """
    of = {"train": (paths.train_json, paths.train_images), "val": (paths.val_json, paths.val_images)}
    json, images = of[split]
    if images and not json and not paths.data:
        raise data_error(f"--{split}-images without --{split}-json", f"name the json too: --{split}-json")
    if json and not Path(json).is_file():
        raise data_error(f"there is no file {json}", f"check --{split}-json")
    if images and not Path(images).is_dir():
        raise data_error(f"there is no folder {images}", f"check --{split}-images")
    if json:
        return Files(Path(json), Path(images or Path(json).parent))
    return _look_in(Path(paths.data), split, images and Path(images)) if paths.data else None


def _look_in(folder: Path, split: str, images: Path | None) -> Files | YoloFiles | VocFiles | None:
    """The files in the first of the known layouts that is there; `images` in place of the usual folder."""
    if folder.is_file() and folder.suffix in (".yaml", ".yml"):
        return find_yolo(folder, split, images)
    if not folder.is_dir():
        raise data_error(f"there is no folder {folder}", "check the path; a json is given with --train-json")
    return _coco(folder, split, images) or find_voc(folder, split, images) or find_yolo(folder, split, images)


def _coco(folder: Path, split: str, images: Path | None) -> Files | None:
    """A json and its images, as COCO or Roboflow name them."""
    places = [
        place
        for name in NAMES[split]
        for place in (
            (f"annotations/instances_{name}.json", (name, f"images/{name}", "images")),
            (f"{name}/_annotations.coco.json", (name,)),
        )
    ]
    for file, usual in places:
        json = next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)
        if json is None:
            continue
        found = images or next((folder / name for name in usual if (folder / name).is_dir()), None)
        if found is None:
            what = f"{json} has no image folder beside it: looked for {', '.join(map(repr, usual))} in {folder}"
            raise data_error(what, f"name it: --{split}-images FOLDER")
        return Files(json, Path(found))
    return None
