"""Backbones and VFNet-X's neck: against independent implementations, and what is frozen."""

from dataclasses import replace

import pytest
import torch
import torchvision
from recorded import close
from torch import nn

from vfnet_edu import recipes
from vfnet_edu.models.backbones.res2net import Res2Net, Res2NetConfig
from vfnet_edu.models.backbones.resnet import ResNet, ResNetConfig
from vfnet_edu.models.necks import PAFPN, PAFPNConfig
from vfnet_edu.ops.dcn import ModulatedDeformConv2d, deformable_conv2d


def shake(model):
    """Weights of a trained network's size, so that no branch is silent."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            fan_in = tensor[0].numel() if tensor.dim() > 1 else 100
            tensor.copy_(torch.randn_like(tensor) * (2 / fan_in) ** 0.5)
            if name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):
                tensor.abs_().add_(0.5)
    return model.eval()


@torch.no_grad()
def test_resnext_is_torchvisions():
    theirs = shake(
        torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [2, 2, 2, 1], groups=32, width_per_group=4)
    )
    ours = ResNet(ResNetConfig((2, 2, 2, 1), groups=32, group_width=4)).eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    x = torch.randn(1, 3, 70, 90)
    y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    for name, map_ in zip(("layer1", "layer2", "layer3", "layer4"), ours.stages(x), strict=True):
        y = getattr(theirs, name)(y)
        close(map_, y)


@torch.no_grad()
def test_res2net_is_timms_but_for_one_pool():
    timm = pytest.importorskip("timm")
    theirs = shake(timm.models.res2net.ResNet(
        timm.models.res2net.Bottle2neck, [2, 2, 2, 1], base_width=26, stem_width=32, stem_type="deep", avg_down=True,
        block_args=dict(scale=4),
    ))  # fmt: skip
    theirs.layer1[0].pool = nn.Identity()  # the detectors were trained without
    names = {"conv1.": "stem.", "bn1.": "stem.7."}
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    for old, new in names.items():
        state = {new + k[len(old) :] if k.startswith(old) else k: v for k, v in state.items()}
    ours = Res2Net(Res2NetConfig((2, 2, 2, 1))).eval()
    ours.load_state_dict(state)
    x = torch.randn(1, 3, 70, 90)
    y = theirs.maxpool(theirs.act1(theirs.bn1(theirs.conv1(x))))
    for name, map_ in zip(("layer1", "layer2", "layer3", "layer4"), ours.stages(x), strict=True):
        y = getattr(theirs, name)(y)
        close(map_, y)


@pytest.mark.parametrize("config", [ResNetConfig((1, 1, 1, 1)), Res2NetConfig((1, 1, 1, 1))])
def test_what_is_frozen(config):
    kind = ResNet if isinstance(config, ResNetConfig) else Res2Net
    model = kind(config).train()
    trained = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}  # with the scales and shifts of their norms
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    free = kind(replace(config, frozen_stages=-1, frozen_norm=False)).train()
    assert all(p.requires_grad for p in free.parameters())
    assert all(m.training for m in free.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("name", ["vfnet_x101_32x4d_dcn_ms_2x", "vfnet_r2_101_dcn_ms_2x"])
def test_dcn_in_c3_to_c5_also_where_the_stride_is_2(name):
    config = replace(recipes.by_name(name).backbone, blocks=(1, 2, 1, 1))
    model = (ResNet if isinstance(config, ResNetConfig) else Res2Net)(config)
    found = [n for n, m in model.named_modules() if isinstance(m, ModulatedDeformConv2d)]
    assert {n.split(".")[0] for n in found} == {"layer2", "layer3", "layer4"}
    assert any(n.startswith("layer2.0.") for n in found) and any(n.startswith("layer2.1.") for n in found)
    assert [tuple(m.shape[-2:]) for m in model(torch.randn(1, 3, 64, 96))] == [(8, 12), (4, 6), (2, 3)]


def test_every_level_of_vfnetx_passes_its_last_convolution():
    neck = PAFPN((16, 32, 64), PAFPNConfig(channels=64)).eval()
    features = [torch.randn(1, 16, 16, 16), torch.randn(1, 32, 8, 8), torch.randn(1, 64, 4, 4)]
    with torch.no_grad():
        before = neck(features)
        neck.last[0].conv.weight.mul_(2).add_(0.1)
        after = neck(features)
    assert not torch.allclose(before[0], after[0])  # the usual PAFPN returns P3 as it is
    assert all(torch.equal(a, b) for a, b in zip(before[1:], after[1:], strict=True))
    assert [tuple(x.shape[1:]) for x in before] == [(64, 16, 16), (64, 8, 8), (64, 4, 4), (64, 2, 2), (64, 1, 1)]


def test_deformable_convolution_survives_what_is_not_a_number():
    x, weight = torch.randn(1, 4, 6, 6), torch.randn(4, 4, 3, 3)
    offset = torch.zeros(1, 18, 6, 6)
    close(deformable_conv2d(x, offset, weight), torch.nn.functional.conv2d(x, weight, padding=1), atol=1e-5)
    offset[0, 0, 2, 3], offset[0, 5, 1, 1] = torch.nan, torch.inf
    y = deformable_conv2d(x, offset, weight)
    assert y[0, :, 2, 3].isnan().all() and y.isnan().sum() == 4 and y.isfinite()[0, :, 1, 1].all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ModulatedDeformConv2d(4, 8)(x.bfloat16()).dtype == torch.bfloat16
