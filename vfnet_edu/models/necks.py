"""Feature pyramids: C3, C4, C5 in; P3 and up out, all with the same number of channels."""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vfnet_edu.models.layers import ConvNorm
from vfnet_edu.ops.dcn import ModulatedDeformConv2d


@dataclass(frozen=True)
class FPNConfig:
    """Feature pyramid network (Lin et al. 2017) with extra coarse levels (RetinaNet, section 4)."""

    channels: int = 256
    extra_levels: int = 2  # P6, P7
    extra_from: Literal["p5", "c5"] = "p5"  # VFNet and ATSS: P6 from the P5 output; RetinaNet and kin: from C5
    relu_before_p7: bool = True  # only VFNet
    norm: bool = False  # GroupNorm(32) after every convolution (RepPoints)

    def build(self, in_channels: tuple[int, ...]) -> "FPN":
        """The neck for maps of `in_channels`, with fresh weights."""
        return FPN(in_channels, self)


class FPN(nn.Module):
    """[C3, C4, C5] -> [P3, P4, P5, P6, P7], strides 8 .. 128, each (B, channels, H, W)"""

    def __init__(self, in_channels: tuple[int, ...], config: FPNConfig = FPNConfig()):
        super().__init__()
        self.config, c = config, config.channels
        self.lateral = nn.ModuleList([ConvNorm(n, c, kernel=1, norm=config.norm) for n in in_channels])
        self.output = nn.ModuleList([ConvNorm(c, c, norm=config.norm) for _ in in_channels])
        first = in_channels[-1] if config.extra_from == "c5" else c
        self.extra = nn.ModuleList(
            [ConvNorm(first if i == 0 else c, c, stride=2, norm=config.norm) for i in range(config.extra_levels)]
        )
        init_xavier(self)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        maps = top_down([conv(f) for conv, f in zip(self.lateral, features, strict=True)])
        maps = [conv(m) for conv, m in zip(self.output, maps, strict=True)]
        x = features[-1] if self.config.extra_from == "c5" else maps[-1]
        return maps + coarser(x, self.extra, self.config.relu_before_p7)


@dataclass(frozen=True)
class PAFPNConfig:
    """The pyramid of VFNet-X: FPN, then a second path back up (PANet, Liu et al. 2018), GroupNorm, DCNv2."""

    channels: int = 384
    extra_levels: int = 2

    def build(self, in_channels: tuple[int, ...]) -> "PAFPN":
        """The neck for maps of `in_channels`, with fresh weights."""
        return PAFPN(in_channels, self)


class PAFPN(nn.Module):
    """[C3, C4, C5] -> [P3, P4, P5, P6, P7], strides 8 .. 128, each (B, channels, H, W)

    Unlike the usual PAFPN *all three* levels pass through a last convolution, and that one is a DCNv2.
    """

    def __init__(self, in_channels: tuple[int, ...], config: PAFPNConfig = PAFPNConfig()):
        super().__init__()
        self.config, c = config, config.channels
        self.lateral = nn.ModuleList([ConvNorm(n, c, kernel=1, norm=False) for n in in_channels])
        self.output = nn.ModuleList([ConvNorm(c, c) for _ in in_channels])
        self.down = nn.ModuleList([ConvNorm(c, c, stride=2) for _ in in_channels[1:]])
        self.last = nn.ModuleList([ConvNorm(c, c, dcn=True) for _ in in_channels])
        self.extra = nn.ModuleList([ConvNorm(c, c, stride=2) for _ in range(config.extra_levels)])
        init_xavier(self)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        maps = top_down([conv(f) for conv, f in zip(self.lateral, features, strict=True)])
        maps = [conv(m) for conv, m in zip(self.output, maps, strict=True)]
        for i, conv in enumerate(self.down):  # in order: level 2 sees the level 1 that has just been updated
            maps[i + 1] = maps[i + 1] + conv(maps[i])
        maps = [conv(m) for conv, m in zip(self.last, maps, strict=True)]
        return maps + coarser(maps[-1], self.extra, relu_before_last=True)


def top_down(laterals: list[Tensor]) -> list[Tensor]:
    """Coarse meaning flows down: every map receives the next coarser one, enlarged to its size (nearest).

    Derived in chapter 4.
    """
    maps = laterals[-1:]
    for lateral in reversed(laterals[:-1]):
        maps.insert(0, lateral + F.interpolate(maps[0], size=lateral.shape[-2:], mode="nearest"))
    return maps


def coarser(x: Tensor, convs: nn.ModuleList, relu_before_last: bool) -> list[Tensor]:
    """P6, P7, ... by convolutions of stride 2.  The ReLU feeds the next level only; the level itself stays linear.

    Why, and which published row has which: chapter 4.
    """
    maps = []
    for i, conv in enumerate(convs):
        x = conv(x.relu() if i > 0 and relu_before_last else x)
        maps.append(x)
    return maps


def init_xavier(neck: nn.Module) -> None:
    """Xavier-uniform convolutions, biases 0."""
    for m in neck.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    for m in neck.modules():
        if isinstance(m, ModulatedDeformConv2d):
            m.start_as_plain()
