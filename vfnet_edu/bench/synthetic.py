"""Annotations and detections that nobody drew or found, for measurements of what reads and scores them."""

import json
import random
from pathlib import Path

from vfnet_edu.runtime.files import write_atomically

CLASSES = 80
OBJECTS = 7  # per image, as COCO has on average
IMAGE_BYTES = 3550  # of json, for an image and its objects; in train2017 it is 3790


def annotations(folder: Path, images: int) -> Path:
    """A COCO json of images of 640 x 480, written unless it is there; its outlines are as long as COCO's."""
    path = folder / f"annotations_{images}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng = random.Random(0)
        pictures, objects = [], []
        for number in range(1, images + 1):
            name = f"{number:012}.jpg"
            picture = {"id": number, "file_name": name, "height": 480, "width": 640, "license": 1}
            pictures.append(json.dumps(picture | {"coco_url": f"http://images.cocodataset.org/train2017/{name}"}))
            objects += [json.dumps(_object(rng, number) | {"id": OBJECTS * number + i}) for i in range(OBJECTS)]
        kinds = json.dumps([{"supercategory": "thing", "id": k, "name": f"class {k}"} for k in range(1, CLASSES + 1)])
        lists = f'"images": [{", ".join(pictures)}], "annotations": [{", ".join(objects)}], "categories": {kinds}'
        write_atomically(path, "{" + lists + "}")
    return path


def _object(rng: random.Random, image: int) -> dict:
    w, h = rng.uniform(4, 300), rng.uniform(4, 200)
    box = [round(v, 2) for v in (rng.uniform(0, 640 - w), rng.uniform(0, 480 - h), w, h)]
    outline = [round(rng.uniform(0, 480), 2) for _ in range(2 * rng.randint(4, 40))]
    more = {"image_id": image, "bbox": box, "category_id": rng.randint(1, CLASSES)}
    return {"segmentation": [outline], "area": round(w * h / 2, 4), "iscrowd": 0} | more


def detections(path: Path, count: int) -> list[dict]:
    """So many COCO results for the annotations at `path`, spread evenly: copies of objects that miss by some pixels."""
    rng = random.Random(1)
    objects, found = json.loads(path.read_bytes())["annotations"], []
    for i in range(count):
        true = objects[i % len(objects)]
        miss = rng.choice((2, 10, 40))  # pixels
        x, y, w, h = true["bbox"]
        box = [x + rng.gauss(0, miss), y + rng.gauss(0, miss), w * rng.uniform(0.8, 1.25), h * rng.uniform(0.8, 1.25)]
        label = true["category_id"] if rng.random() < 0.8 else rng.randint(1, CLASSES)
        score = round(rng.random() / miss**0.5, 5)
        found.append({"image_id": true["image_id"], "category_id": label, "bbox": box, "score": score})
    return found
