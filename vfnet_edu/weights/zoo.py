"""One door to every model: `load` takes a run folder, a file, or the name of a shipped, published or shared model.

The published files that OpenMMLab hosts are downloaded, checked by their SHA-256, converted and kept in the cache.  The
others are on the authors' Google Drive, where only a browser can fetch them; an error says where, and what to do with
the file.
"""

import difflib
from pathlib import Path

import torch

from vfnet_edu import recipes
from vfnet_edu.models.detector import Detector, build
from vfnet_edu.recipe import Recipe
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.runtime.files import cache_folder
from vfnet_edu.weights import hub, ours
from vfnet_edu.weights.download import alone, fetch
from vfnet_edu.weights.mmdet import load_mmdet

SERVER = "https://download.openmmlab.com/mmdetection/v2.0/vfnet"
SHIPPED = Path(__file__).parent / "shipped"  # small trained models that come with the package
BEST_FIRST = ("best.safetensors", "last.pt")  # the weights in a run folder


def load(what: Path | str, device: torch.device | str = "cpu") -> tuple[Recipe, Detector]:
    """Any model that has weights -> its recipe and its detector, in evaluation mode.

    Args:
        what: a run folder (its best weights, else its last), a file (``best.safetensors``, ``last.pt``), a small model
            that comes with the package (``"vfnet_tiny"``, ``"vfnet_tiny_focal"``), a row of the results tables
            (``"vfnet_r50_1x"``) with the weights its authors published, or a model that somebody shares on the Hugging
            Face hub (``"hf:owner/name"``, ``"hf:owner/name@revision"``).  A path that exists wins over a name.
        device: where the detector goes.

    Raises:
        UserError: no such file or name, no network, a broken file, or one that is not ours.
    """
    return ours.load_file(find(what), device)


def pretrained(name: Path | str) -> Detector:
    """The detector that :func:`load` finds, without its recipe."""
    return load(name)[1]


def find(what: Path | str) -> Path:
    """The file that :func:`load` reads; shared weights are downloaded first, published ones also converted.

    Raises:
        UserError: no such file or name, no published weights, or no network.
    """
    path, name = Path(what), Path(what).as_posix()
    if path.is_dir():
        return _in_run_folder(path)
    if path.exists():
        return path
    if name.startswith(hub.PREFIX):
        return hub.fetch_from_hub(name)
    if name in shipped():
        return SHIPPED / f"{name}.safetensors"
    if name in recipes.names():
        return _published(recipes.by_name(name))
    near = difflib.get_close_matches(name, [*shipped(), *recipes.names()], n=1)
    raise UserError(
        f"{name}: no such file or run folder, no model that comes with the package ({', '.join(shipped())}),"
        " and no row of the results tables",
        remedy=f"did you mean {near[0]}?" if near else "`vfnet_edu.recipes.names()` lists the rows",
        code=Exit.CHECKPOINT,
    )


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(file.stem for file in SHIPPED.glob("*.safetensors"))


def _in_run_folder(folder: Path) -> Path:
    for name in BEST_FIRST:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder}: no {' and no '.join(BEST_FIRST)} in this folder", code=Exit.CHECKPOINT)


def _published(recipe: Recipe) -> Path:
    """The converted weights of a row, from the cache, where they are put when they are first wanted."""
    cached, file = cached_file(recipe.name), recipe.published.checkpoint
    with alone(cached):
        if cached.exists():
            return cached
        if not file:
            raise _not_hosted(recipe, cached)
        folder = file.split("_2020")[0]  # the configuration's name: what comes before the date
        path = fetch(f"{SERVER}/{folder}/{file}")
        model, _ = load_mmdet(path, recipe.name)
        ours.save(cached, model, {"source": file})
        path.unlink()
    return cached


def cached_file(name: str) -> Path:
    """Where the converted weights of a row are kept; put them there by hand, and `load` finds them."""
    return cache_folder() / f"{name}.safetensors"


def _not_hosted(recipe: Recipe, cached: Path) -> UserError:
    if not recipe.published.drive:
        remedy = f"train it: python -m vfnet_edu.train {recipe.name}"
        return UserError(f"{recipe.name}: no weights are published", remedy=remedy, code=Exit.CHECKPOINT)
    return UserError(
        f"{recipe.name}: its weights are on Google Drive only",
        remedy=f"fetch https://drive.google.com/file/d/{recipe.published.drive} in a browser, then run"
        f" python -m vfnet_edu.convert FILE --recipe {recipe.name} --out {cached}",
        code=Exit.CHECKPOINT,
    )


def _detector(name: str, published: bool, classes: tuple[str, ...] | None) -> Detector:
    if not published:
        return build(recipes.by_name(name), classes)
    model = pretrained(name)
    return model if classes is None else ours.change_classes(model, classes)


# ---- One function per backbone or method -----------------------------------------------------------------------------
# Each returns a detector: with fresh weights, in training mode; or `pretrained` on COCO, in evaluation mode.  `classes`
# are the names of other classes: the last layers then start fresh.


def vfnet_r50(pretrained: bool = False, dcn: bool = False, classes: tuple[str, ...] | None = None) -> Detector:
    """VarifocalNet, ResNet-50: 44.5 AP; with DCN 47.8."""
    return _detector("vfnet_r50_dcn_ms_2x" if dcn else "vfnet_r50_ms_2x", pretrained, classes)


def vfnet_r101(pretrained: bool = False, dcn: bool = False, classes: tuple[str, ...] | None = None) -> Detector:
    """VarifocalNet, ResNet-101: 46.2 AP; with DCN 49.0."""
    return _detector("vfnet_r101_dcn_ms_2x" if dcn else "vfnet_r101_ms_2x", pretrained, classes)


def vfnet_x101_32x4d(pretrained: bool = False, dcn: bool = False, classes: tuple[str, ...] | None = None) -> Detector:
    """VarifocalNet, ResNeXt-101 32x4d: 47.4 AP; with DCN 49.7."""
    return _detector("vfnet_x101_32x4d_dcn_ms_2x" if dcn else "vfnet_x101_32x4d_ms_2x", pretrained, classes)


def vfnet_x101_64x4d(pretrained: bool = False, dcn: bool = False, classes: tuple[str, ...] | None = None) -> Detector:
    """VarifocalNet, ResNeXt-101 64x4d: 48.2 AP; with DCN 50.4."""
    return _detector("vfnet_x101_64x4d_dcn_ms_2x" if dcn else "vfnet_x101_64x4d_ms_2x", pretrained, classes)


def vfnet_r2_101(pretrained: bool = False, dcn: bool = False, classes: tuple[str, ...] | None = None) -> Detector:
    """VarifocalNet, Res2Net-101: 49.2 AP; with DCN 51.1."""
    return _detector("vfnet_r2_101_dcn_ms_2x" if dcn else "vfnet_r2_101_ms_2x", pretrained, classes)


def vfnet_x(pretrained: bool = False, classes: tuple[str, ...] | None = None) -> Detector:
    """VarifocalNet-X, Res2Net-101 with DCN: 53.4 AP on images of 1333 x 800."""
    return _detector("vfnetx_r2_101_800", pretrained, classes)


def retinanet_r50(
    pretrained: bool = False, loss: str = "varifocal", classes: tuple[str, ...] | None = None
) -> Detector:
    """RetinaNet, ResNet-50: 37.4 AP; with the focal loss 36.5."""
    return _detector(f"retinanet_r50_{_short(loss)}_1x", pretrained, classes)


def foveabox_r50(pretrained: bool = False, loss: str = "varifocal", classes: tuple[str, ...] | None = None) -> Detector:
    """FoveaBox, ResNet-50: 37.2 AP; with the focal loss 36.3."""
    return _detector(f"foveabox_r50_{_short(loss)}_1x", pretrained, classes)


def reppoints_r50(
    pretrained: bool = False, loss: str = "varifocal", classes: tuple[str, ...] | None = None
) -> Detector:
    """RepPoints, ResNet-50: 39.7 AP; with the focal loss 38.3."""
    return _detector(f"reppoints_r50_{_short(loss)}_1x", pretrained, classes)


def atss_r50(pretrained: bool = False, loss: str = "varifocal", classes: tuple[str, ...] | None = None) -> Detector:
    """ATSS, ResNet-50: 40.2 AP; with the focal loss 39.3."""
    return _detector(f"atss_r50_{_short(loss)}_1x", pretrained, classes)


def _short(loss: str) -> str:
    known = {"varifocal": "vfl", "focal": "fl"}
    if loss not in known:
        raise UserError(f"no loss {loss!r} here", remedy=f"choose one of {', '.join(known)}")
    return known[loss]
