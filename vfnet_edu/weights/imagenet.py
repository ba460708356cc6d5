"""ImageNet weights for backbones: downloaded as the authors used them, or from a file."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import ResNet50_Weights, ResNet101_Weights

from vfnet_edu.models.backbones.res2net import Res2NetConfig
from vfnet_edu.models.backbones.resnet import ResNet, ResNetConfig
from vfnet_edu.models.detector import STD, Detector
from vfnet_edu.runtime.errors import UserError
from vfnet_edu.weights.download import fetch
from vfnet_edu.weights.ours import load_state, read_pickle, read_safetensors

log = logging.getLogger(__name__)

OPENMMLAB = "https://download.openmmlab.com/pretrain/third_party/"
IMAGENET = {  # what the authors started from
    ResNetConfig((3, 4, 6, 3)): ResNet50_Weights.IMAGENET1K_V1.url,
    ResNetConfig((3, 4, 23, 3)): ResNet101_Weights.IMAGENET1K_V1.url,
    ResNetConfig((3, 4, 23, 3), groups=32, group_width=4): OPENMMLAB + "resnext101_32x4d-a5af3160.pth",
    ResNetConfig((3, 4, 23, 3), groups=64, group_width=4): OPENMMLAB + "resnext101_64x4d-ee2c6f71.pth",
    Res2NetConfig(): OPENMMLAB + "res2net101_v1d_26w_4s_mmdetv2-f0a600f9.pth",  # v1b, despite its name
}
FAINT = 0.1  # a first layer with less gain was trained on images of caffe: one such file has 0.03 (57 times 0.03: 1.6)


def load_backbone(model: Detector, source: str) -> str:
    """ImageNet weights into the backbone.  A file that looks as if it were of the other style is warned about.

    Args:
        model: the detector.
        source: ``"imagenet"`` downloads the weights that the authors started from, ``"none"`` keeps the fresh start,
            else a file (``.pth``, ``.safetensors``) with torchvision's key names, or for Res2Net those of its authors,
            mmdetection or timm.  ``style="caffe"`` files expect RGB minus the mean, not divided: their first filters
            are scaled by the standard deviation, so that they take our input.

    Returns:
        what was loaded, from where and in which style, in one line; "" for ``"none"``.

    Raises:
        UserError: no such file, no network, or keys that do not fit.
    """
    if source == "none":
        return ""
    config = model.recipe.backbone
    url = _imagenet_url(config) if source == "imagenet" else ""
    path = fetch(url) if url else Path(source)
    state = _read_backbone(path)
    style = getattr(config, "style", "pytorch")
    if isinstance(config, Res2NetConfig):  # the deep stem of its authors: `conv1` is six modules, `bn1` the seventh
        state = {re.sub(r"^conv1\.(?=\d)", "stem.", re.sub(r"^bn1\.", "stem.7.", k)): v for k, v in state.items()}
    elif style == "caffe" and "conv1.weight" in state:
        state["conv1.weight"] = state["conv1.weight"] * torch.tensor(STD).view(1, 3, 1, 1)
    backbone = model.get_submodule("backbone")
    own = backbone.state_dict()
    count = len(state)
    state |= {k: v for k, v in own.items() if ".conv_offset." in k}  # ImageNet weights have no offsets: they start at 0
    load_state(backbone, state, path)
    if isinstance(backbone, ResNet) and (other := _other_style(backbone)):
        said = "%s looks like weights in %s style, and was loaded in %s style: if so, give --backbone.style %s"
        log.warning(said, path, other, style, other)
    return f"backbone: {count} tensors of {path}{f', from {url}' if url else ''}, in {style} style"


def _other_style(backbone: ResNet) -> str:
    """The style that the first layer speaks for, if it is not the backbone's own; else "".

    The images of caffe are not divided by their standard deviation, about 57, so its filters and norm together are
    that much weaker.  Whether the statistics of the norm are folded into its scale makes no difference.
    """
    filters, scale, variance = backbone.conv1.weight, backbone.bn1.weight, backbone.get_buffer("bn1.running_var")
    gains = filters.flatten(1).norm(dim=1) * scale / (variance + backbone.bn1.eps).sqrt()
    gain = gains.square().mean().sqrt()
    if backbone.config.style == "pytorch":
        return "caffe" if gain < FAINT else ""
    return "pytorch" if gain > FAINT * sum(STD) / 3 else ""  # `load_backbone` has multiplied by STD


def _read_backbone(path: Path) -> dict[str, Tensor]:
    content = read_safetensors(path)[0] if path.suffix == ".safetensors" else read_pickle(path)
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    pairs = content.items() if isinstance(content, dict) else ()
    state = {str(k): v for k, v in pairs if isinstance(v, Tensor) and not str(k).startswith("fc.")}
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _imagenet_url(config: ResNetConfig | Res2NetConfig) -> str:
    plain = type(config)()
    key = replace(config, dcn=False, frozen_stages=plain.frozen_stages, frozen_norm=plain.frozen_norm)
    if key not in IMAGENET:
        raise UserError(
            "no published ImageNet weights for this backbone", remedy="give --backbone-weights FILE, or none"
        )
    return IMAGENET[key]
