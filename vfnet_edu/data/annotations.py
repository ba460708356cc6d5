"""Annotations of any known format -> one index, and from there into a COCO json."""

import json
from pathlib import Path

from vfnet_edu.data.coco import CocoIndex, read_coco
from vfnet_edu.data.paths import Files
from vfnet_edu.data.voc import VocFiles, read_voc
from vfnet_edu.data.yolo import YoloFiles, read_yolo
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.runtime.files import write_atomically


def read_split(files: Files | YoloFiles | VocFiles) -> CocoIndex:
    """Read and check the annotations of one split, as :func:`vfnet_edu.data.paths.find_split` finds them.

    Raises:
        UserError: wrong records; the first is named, with its file and line.
    """
    match files:
        case YoloFiles():
            return read_yolo(files)
        case VocFiles():
            return read_voc(files)
        case _:
            return read_coco(*files)


def write_coco(index: CocoIndex, path: Path) -> None:
    """Write an index as a COCO json; reading it gives an equal one. Outlines are not kept.

    Raises:
        UserError: the file is there already, or cannot be written.
    """
    if path.exists():
        raise UserError(f"{path} exists already", remedy="name another folder: no file is changed", code=Exit.BUSY)
    columns = zip(
        index.annotation_ids.tolist(), index.image_ids[index.rows].tolist(), index.labels.tolist(),
        index.xywh.tolist(), index.areas.tolist(), index.crowd.tolist(), index.ignore.tolist(), strict=True,
    )  # fmt: skip
    images = zip(index.image_ids.tolist(), index.file_names, index.widths.tolist(), index.heights.tolist(), strict=True)
    content = {
        "images": [{"id": i, "file_name": name, "width": w, "height": h} for i, name, w, h in images],
        "annotations": [
            {"id": i, "image_id": image, "category_id": int(index.category_ids[label]), "bbox": box, "area": area}
            | {"iscrowd": int(crowd)}
            | ({"ignore": 1} if ignore else {})
            for i, image, label, box, area, crowd, ignore in columns
        ],
        "categories": [
            {"id": i, "name": name} for i, name in zip(index.category_ids.tolist(), index.classes, strict=True)
        ],
    }
    write_atomically(path, json.dumps(content, ensure_ascii=False), remedy="choose another place")
