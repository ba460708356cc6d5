"""ResNet and ResNeXt, with or without DCNv2.  Parameter names are torchvision's, so ImageNet weights just load."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from vfnet_edu.models.backbones.common import freeze, hold_norms, init_backbone, make_stages, run_stages
from vfnet_edu.ops.dcn import ModulatedDeformConv2d


@dataclass(frozen=True)
class ResNetConfig:
    """Shape and training rule of a ResNet (He et al. 2016) or ResNeXt (Xie et al. 2017)."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)  # residual blocks of layer1 .. layer4
    block: Literal["bottleneck", "basic"] = "bottleneck"  # basic: two 3x3 (ResNet-18, -34, and smaller)
    width: int = 64  # channels of the stem
    groups: int = 1  # ResNeXt: 32 or 64
    group_width: int = 64  # ResNeXt: 4
    style: Literal["pytorch", "caffe"] = "pytorch"  # stride 2 in the 3x3 (pytorch) or in the first 1x1 (caffe)
    dcn: bool = False  # DCNv2 in layer2, layer3, layer4
    frozen_stages: int = 1  # -1: train all; 0: freeze the stem; n: the stem and layer1 .. layer n
    frozen_norm: bool = True  # BatchNorm keeps its ImageNet statistics (its scale and shift are still trained)

    @property
    def out_channels(self) -> tuple[int, int, int]:
        """Channels of C3, C4, C5."""
        grow = self.width * (4 if self.block == "bottleneck" else 1)
        return (2 * grow, 4 * grow, 8 * grow)

    def build(self) -> "ResNet":
        """The backbone, with fresh weights."""
        return ResNet(self)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up, plus the shortcut.  (B, c_in, H, W) -> (B, 4*planes, H/stride, W/stride)"""

    def __init__(self, c_in: int, planes: int, stride: int, config: ResNetConfig, dcn: bool):
        super().__init__()
        c_out, mid = planes * 4, planes * config.group_width // 64 * config.groups
        first, second = (1, stride) if config.style == "pytorch" else (stride, 1)
        self.conv1, self.bn1 = nn.Conv2d(c_in, mid, 1, first, bias=False), nn.BatchNorm2d(mid)
        if dcn:
            self.conv2 = ModulatedDeformConv2d(mid, mid, second, config.groups)
        else:
            self.conv2 = nn.Conv2d(mid, mid, 3, second, 1, groups=config.groups, bias=False)
        self.bn2 = nn.BatchNorm2d(mid)
        self.conv3, self.bn3 = nn.Conv2d(mid, c_out, 1, bias=False), nn.BatchNorm2d(c_out)
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu_()
        x = self.bn2(self.conv2(x)).relu_()
        x = self.bn3(self.conv3(x))
        x += shortcut
        return x.relu_()


class BasicBlock(nn.Module):
    """Two 3x3, plus the shortcut.  (B, c_in, H, W) -> (B, planes, H/stride, W/stride)"""

    def __init__(self, c_in: int, planes: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or c_in != planes:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu_()
        x = self.bn2(self.conv2(x))
        x += shortcut
        return x.relu_()


class ResNet(nn.Module):
    """Image to feature maps.  (B, 3, H, W) normalised -> [C3, C4, C5] at strides 8, 16, 32"""

    def __init__(self, config: ResNetConfig = ResNetConfig()):
        super().__init__()
        self.config = config
        self.conv1, self.bn1 = nn.Conv2d(3, config.width, 7, 2, 3, bias=False), nn.BatchNorm2d(config.width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)

        def block(c_in: int, planes: int, stride: int, first: bool, dcn: bool) -> nn.Module:
            if config.block == "basic":
                return BasicBlock(c_in, planes, stride)
            return Bottleneck(c_in, planes, stride, config, dcn)

        stages = make_stages(config.blocks, config.width, config.dcn, block, 1 if config.block == "basic" else 4)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        init_backbone(self)
        freeze([self.conv1, self.bn1], stages, config.frozen_stages)

    def stages(self, x: Tensor) -> list[Tensor]:
        """All four: [C2, C3, C4, C5] at strides 4, 8, 16, 32"""
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        return run_stages(layers, self.maxpool(self.bn1(self.conv1(x)).relu_()))

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.stages(x)[1:]

    def train(self, mode: bool = True) -> "ResNet":
        super().train(mode)
        hold_norms(self, everywhere=self.config.frozen_norm)
        return self
