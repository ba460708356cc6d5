"""Res2Net v1b (Gao et al. 2021): the 3x3 of a bottleneck split into a ladder of small ones, so a block sees many sizes.

Parameter names are those of the authors' ImageNet weights, but for the stem (see `vfnet_edu.weights.imagenet`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vfnet_edu.models.backbones.common import freeze, hold_norms, init_backbone, make_stages, run_stages
from vfnet_edu.ops.dcn import ModulatedDeformConv2d


@dataclass(frozen=True)
class Res2NetConfig:
    """Shape and training rule; the defaults are Res2Net-101 v1b 26w4s."""

    blocks: tuple[int, ...] = (3, 4, 23, 3)  # residual blocks of layer1 .. layer4
    width: int = 64  # channels after the stem
    scales: int = 4  # parts a bottleneck is split into
    base_width: int = 26  # channels of a part in layer1
    dcn: bool = False  # DCNv2 in layer2, layer3, layer4
    frozen_stages: int = 1  # -1: train all; 0: freeze the stem; n: the stem and layer1 .. layer n
    frozen_norm: bool = True  # BatchNorm keeps its ImageNet statistics (its scale and shift are still trained)

    @property
    def out_channels(self) -> tuple[int, int, int]:
        """Channels of C3, C4, C5."""
        return (8 * self.width, 16 * self.width, 32 * self.width)

    def build(self) -> "Res2Net":
        """The backbone, with fresh weights."""
        return Res2Net(self)


class Bottle2neck(nn.Module):
    """1x1 down, a ladder of 3x3, 1x1 up, plus the shortcut.  (B, c_in, H, W) -> (B, 4*planes, H/stride, W/stride)

    The first block of a stage has no ladder: its parts do not see each other.
    """

    def __init__(self, c_in: int, planes: int, stride: int, first: bool, config: Res2NetConfig, dcn: bool):
        super().__init__()
        c_out, self.width, self.first = planes * 4, planes * config.base_width // 64, first
        mid = self.width * config.scales
        self.conv1, self.bn1 = nn.Conv2d(c_in, mid, 1, bias=False), nn.BatchNorm2d(mid)
        convs, width = range(config.scales - 1), self.width
        if dcn:
            self.convs = nn.ModuleList([ModulatedDeformConv2d(width, width, stride) for _ in convs])
        else:
            self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, stride, 1, bias=False) for _ in convs])
        self.bns = nn.ModuleList([nn.BatchNorm2d(width) for _ in convs])
        # the original also pools where the stride is 1 (layer1.0); detectors were trained without it
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        self.conv3, self.bn3 = nn.Conv2d(mid, c_out, 1, bias=False), nn.BatchNorm2d(c_out)
        self.downsample = None
        if first:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(c_in, c_out, 1, bias=False),
                nn.BatchNorm2d(c_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        parts = self.bn1(self.conv1(x)).relu_().split(self.width, dim=1)  # `scales` times (B, width, H, W)
        done = []
        for i, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            part = parts[i] if i == 0 or self.first else parts[i] + done[-1]
            done.append(bn(conv(part)).relu_())
        x = torch.cat([*done, self.pool(parts[-1])], dim=1)  # (B, scales*width, H/stride, W/stride)
        x = self.bn3(self.conv3(x))
        x += shortcut
        return x.relu_()


class Res2Net(nn.Module):
    """Image to feature maps.  (B, 3, H, W) normalised -> [C3, C4, C5] at strides 8, 16, 32"""

    def __init__(self, config: Res2NetConfig = Res2NetConfig()):
        super().__init__()
        self.config, half = config, config.width // 2
        self.stem = nn.Sequential(
            nn.Conv2d(3, half, 3, 2, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, 1, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True),
            nn.Conv2d(half, config.width, 3, 1, 1, bias=False), nn.BatchNorm2d(config.width), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.maxpool = nn.MaxPool2d(3, 2, 1)

        def block(c_in: int, planes: int, stride: int, first: bool, dcn: bool) -> nn.Module:
            return Bottle2neck(c_in, planes, stride, first, config, dcn)

        stages = make_stages(config.blocks, config.width, config.dcn, block)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        init_backbone(self)
        freeze([self.stem], stages, config.frozen_stages)

    def stages(self, x: Tensor) -> list[Tensor]:
        """All four: [C2, C3, C4, C5] at strides 4, 8, 16, 32"""
        return run_stages((self.layer1, self.layer2, self.layer3, self.layer4), self.maxpool(self.stem(x)))

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.stages(x)[1:]

    def train(self, mode: bool = True) -> "Res2Net":
        super().train(mode)
        hold_norms(self, everywhere=self.config.frozen_norm)
        return self
