"""Pascal VOC's annotations as they are: an xml per image.

Known layouts: VOC's own (``Annotations/``, ``JPEGImages/``, ``ImageSets/Main/train.txt``), the same without lists or
with other names for the folders, and images with their xml beside them (``train/``, ``valid/``; Roboflow, labelImg).
Of the lists train.txt and val.txt are taken; only where there is no train.txt, trainval.txt and test.txt, as results
on VOC 2007 are usually reported. Format: Everingham and Winn, "The PASCAL Visual Object Classes Challenge 2012
Development Kit". Pixels are counted from 1 and `xmax` is inside of the box, so a box spans xmin - 1 to xmax. (Tools
that count from 0, as labelImg does, write the same tags: their boxes come out one pixel too large at the left and
upper side.) An object marked difficult is neither learned nor missed: it becomes what COCO calls a crowd. So a
detection counts neither way if half of it lies there, where VOC's own tool asks for an IoU of 0.5.

The classes are those of the training set, sorted by name; a file from a stranger can do no harm (defusedxml).
"""

import difflib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler

from defusedxml.common import DefusedXmlException
from defusedxml.sax import parseString

from vfnet_edu.data.coco import CocoIndex, Described, Marked, index_of
from vfnet_edu.data.coco_json import data_error, first_of, read_text
from vfnet_edu.data.images import SUFFIXES, image_size
from vfnet_edu.runtime.errors import UserError

ANNOTATIONS = ("Annotations", "annotations", "annots", "xmls")  # folders of xml files ...
IMAGES = ("JPEGImages", "images", "Images", "imgs", "photos", "")  # ... and of their images; "": the data set itself
LISTS = (("train", "val"), ("trainval", "test"))  # of ImageSets/Main: what is learned, what is judged
FOLDERS = {"train": ("train",), "val": ("val", "valid")}  # of images with their xml beside them


class VocFiles(NamedTuple):
    """The files of one split."""

    source: Path  # a list of names, or the folder of the xml files
    annotations: Path  # the folder of the xml files
    images: Path  # the folder of the images
    learned: Path | None = None  # `source` of the training split, whose classes count; None: it is this one


# ---- Finding ---------------------------------------------------------------------------------------------------------


def find_voc(folder: Path, split: str, images: Path | None = None) -> VocFiles | None:
    """The files of one split, or None where this is no VOC data set or has no such split.

    Args:
        folder: of the data set.
        split: train or val.
        images: folder of the images, in place of the usual one.

    Raises:
        UserError: code DATA where there are several years, or no image folder.
    """
    home = _home(folder)
    if home:
        annotations = _first_with_xml(home, ANNOTATIONS)
        photos = images or next((home / name for name in IMAGES if _has(home / name, SUFFIXES)), None)
        if annotations is None or photos is None:
            what = f"{annotations} has no image folder beside it: looked for {', '.join(IMAGES[:-1])} in {home}"
            raise data_error(what, f"name it: --{split}-images FOLDER")
        train, val = _lists(home) or (annotations, None)
        if split == "train":
            return VocFiles(train, annotations, photos)
        return VocFiles(val, annotations, photos, learned=train) if val else None
    beside = {key: _first_with_xml(folder, names) for key, names in FOLDERS.items()}
    if beside["train"] is None and _has(folder, (".xml",)):  # labelImg: all in one folder
        beside = {"train": folder, "val": None}
    found = beside[split]
    if found is None:
        return None
    return VocFiles(found, found, images or found, learned=beside["train"] if split == "val" else None)


def _home(folder: Path) -> Path | None:
    """The folder that has the folder of annotations: this one, or a year of the devkit inside."""
    years = [*sorted(folder.glob("VOC[0-9]*")), *sorted(folder.glob("VOCdevkit/VOC[0-9]*"))]
    homes = [home for home in (folder, *years) if _first_with_xml(home, ANNOTATIONS)]
    if len(homes) > 1:
        names = ", ".join(str(home) for home in homes)
        raise data_error(f"{folder} holds several data sets: {names}", f"name one, as in --data {homes[-1]}")
    return homes[0] if homes else None


def _first_with_xml(home: Path, names: tuple[str, ...]) -> Path | None:
    return next((home / name for name in names if _has(home / name, (".xml",))), None)


def _has(folder: Path, suffixes: tuple[str, ...]) -> bool:
    return folder.is_dir() and any(path.suffix.lower() in suffixes for path in folder.iterdir())


def _lists(home: Path) -> tuple[Path, Path | None] | None:
    """The lists of the training and of the validation set; None where there are none."""
    for train, val in LISTS:
        first, second = (home / "ImageSets" / "Main" / f"{name}.txt" for name in (train, val))
        if first.is_file():
            return first, second if second.is_file() else None
    return None


# ---- Reading ---------------------------------------------------------------------------------------------------------


@dataclass
class _Node:
    """An element of an xml."""

    tag: str
    line: int
    text: str = ""
    children: list["_Node"] = field(default_factory=list)

    def all(self, tag: str) -> list["_Node"]:
        """The children of this name; an <object> can have <part>s with boxes of their own, which do not count."""
        return [child for child in self.children if child.tag == tag]

    def get(self, path: str) -> str:
        """The text under a path of names; "" where there is none."""
        first, _, rest = path.partition("/")
        found = self.all(first)
        return "" if not found else found[0].get(rest) if rest else found[0].text.strip()


class _Tree(ContentHandler):
    """Makes a tree of :class:`_Node`, with lines, which the usual readers of xml forget."""

    def __init__(self):
        super().__init__()
        self.top = _Node("", 0)
        self.open = [self.top]
        self.locator = None

    def setDocumentLocator(self, locator):
        self.locator = locator

    def startElement(self, name, attrs):
        self.open[-1].children.append(_Node(name, (self.locator.getLineNumber() or 0) if self.locator else 0))
        self.open.append(self.open[-1].children[-1])

    def characters(self, content):
        self.open[-1].text += content

    def endElement(self, name):
        self.open.pop()


def read_voc(files: VocFiles) -> CocoIndex:
    """Read and check the xml files of one split.

    Raises:
        UserError: no xml at all, or wrong ones: the first is named by file and line, all of them are in its `records`.
    """
    errors: list[UserError] = []
    trees = _read_all(files.source, files.annotations, errors)
    taught = _read_all(files.learned, files.annotations, []) if files.learned else trees
    names = sorted({thing.get("name") for tree in taught.values() for thing in tree.all("object")} - {""})
    photos, images = _Photos(files.images), []
    for xml, tree in trees.items():
        try:
            images.append(_describe(xml, tree, photos, names, errors))
        except UserError as error:
            errors.append(error)
    if errors:
        raise first_of(errors)
    if not names or not images:
        raise data_error(f"{files.learned or files.source} shows no object", "is it the right folder?")
    hard = sum(marked.crowd for image in images for marked in image.objects)
    left = sorted(photos.names - photos.taken.keys()) if files.source.is_dir() else []
    return index_of(files.source, files.images, list(enumerate(names, 1)), images, [
        *([f"objects marked difficult, neither learned nor missed (crowds, in COCO): {hard}"] if hard else []),
        *([f"images without an xml, and so left out: {len(left)}, as {left[0]}"] if left else []),
    ])  # fmt: skip


def _read_all(source: Path, annotations: Path, errors: list[UserError]) -> dict[Path, _Node]:
    """xml file -> its <annotation>, for all files of a folder or of a list; `errors` receives what is wrong."""
    trees = {}
    for xml in _listed(source, annotations, errors) if source.is_file() else sorted(source.glob("*.xml")):
        try:
            if not xml.name.startswith("."):
                trees[xml] = _read_xml(xml)
        except UserError as error:
            errors.append(error)
    return trees


def _listed(source: Path, annotations: Path, errors: list[UserError]) -> list[Path]:
    """The xml files that a list of ImageSets/Main names, a line each: a name without its ending."""
    found = []
    for number, line in enumerate(read_text(source).splitlines(), 1):
        if not (name := line.strip()):
            continue
        words = (name, name.split()[0])  # lists of single classes have a second column
        xml = next((annotations / f"{word}.xml" for word in words if (annotations / f"{word}.xml").is_file()), None)
        if xml is None:
            what = f"{source} line {number}: there is no {annotations / name}.xml"
            errors.append(data_error(what, "restore it, or remove the line"))
        else:
            found.append(xml)
    return found


def _read_xml(xml: Path) -> _Node:
    tree = _Tree()
    try:
        parseString(xml.read_bytes(), tree)
    except DefusedXmlException as error:
        line = tree.locator.getLineNumber() if tree.locator else 0
        what = f"{xml} line {line}: declares entities, which can fill the memory ({type(error).__name__})"
        raise data_error(what, "remove the <!DOCTYPE ...> from the file") from None
    except SAXParseException as error:
        what = f"{xml} line {error.getLineNumber()}: not valid xml: {error.getMessage()}"
        raise data_error(what, "correct it, or remove the file") from None
    except (OSError, LookupError, ValueError) as error:  # an encoding that nobody knows is a LookupError
        raise data_error(f"{xml} cannot be read: {error}", "restore the file, or remove it") from None
    top = tree.top.children[0]
    if top.tag != "annotation":
        raise data_error(f"{xml} line {top.line}: <{top.tag:.30}> where VOC has <annotation>", "remove the file")
    return top


class _Photos:
    """The images of a folder, by name."""

    def __init__(self, folder: Path):
        self.folder = folder
        files = [path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
        self.names = {name for name in files if not name.startswith(".")}
        self.taken: dict[str, Path] = {}  # by which xml
        self.of_stem: dict[str, list[str]] = {}
        for name in sorted(self.names):
            self.of_stem.setdefault(Path(name).stem, []).append(name)

    def take(self, xml: Path, tree: _Node) -> str:
        """The image that an xml is about: the one of its name, else the one that it names, as renamed files often lie.

        Raises:
            UserError: there is none, or another xml is about it.
        """
        named = tree.get("filename").replace("\\", "/").rsplit("/", 1)[-1]
        same = self.of_stem.get(xml.stem, [])
        image = named if named in same or (not same and named in self.names) else same[0] if same else None
        if image is None:
            what = f"{xml}: there is no image {xml.stem}.* in {self.folder}" + f", nor {named!r:.80}" * bool(named)
            raise data_error(what, "restore the image, or remove the xml")
        if image in self.taken:
            raise data_error(f"{xml} and {self.taken[image]} are about the same image, {image}", "remove one of them")
        self.taken[image] = xml
        return image


def _describe(xml: Path, tree: _Node, photos: _Photos, names: list[str], errors: list[UserError]) -> Described:
    """An image and its objects; `errors` receives what is wrong with an object.

    Raises:
        UserError: something is wrong with the image.
    """
    image = photos.take(xml, tree)
    size = tree.all("size")
    line = f" line {size[0].line}" if size else ""
    try:
        height, width = (int(float(tree.get(f"size/{side}"))) for side in ("height", "width"))
    except (ValueError, OverflowError):
        height = width = 0
    if min(height, width) < 1:
        h, w = image_size(photos.folder / image)
        what = f"{xml}{line}: the size of the image is missing or not a number of pixels"
        raise data_error(what, f"write <size><width>{w}</width><height>{h}</height></size>, the size of {image}")
    objects = []
    for thing in tree.all("object"):
        try:
            objects.append(_object(thing, names))
        except ValueError as error:
            what, remedy = error.args
            errors.append(data_error(f"{xml} line {thing.line}: {what}", remedy))
    return Described(image, (height, width), str(xml), objects)


def _object(thing: _Node, names: list[str]) -> Marked:
    """An <object>.

    Raises:
        ValueError: (what is wrong, a remedy).
    """
    name = thing.get("name")
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}? else " if near else ""
        what = f"class {name!r:.60} occurs in no file of the training set" if name else "the object has no <name>"
        raise ValueError(what, f"{hint}move a photograph of it to the training set" if name else "name its class")
    corners = []
    for side in ("xmin", "ymin", "xmax", "ymax"):
        text = thing.get(f"bndbox/{side}")
        try:
            corners.append(float(text))
        except ValueError:
            raise ValueError(
                f"<{side}> is {text!r:.30}, not a number", "correct <bndbox>, or remove the object"
            ) from None
    if not all(map(math.isfinite, corners)):
        raise ValueError(f"<bndbox> is {corners}: not finite", "correct it, or remove the object")
    x1, y1, x2, y2 = corners
    box = (x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1)
    return Marked(thing.line, names.index(name) + 1, box, crowd=thing.get("difficult") == "1")
