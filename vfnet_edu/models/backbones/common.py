"""What ResNet and Res2Net share: four stages of blocks, how they are initialised, and which parts do not learn."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from vfnet_edu.ops.dcn import ModulatedDeformConv2d


def make_stages(
    depths: Sequence[int],
    width: int,
    dcn: bool,
    block: Callable[[int, int, int, bool, bool], nn.Module],
    expansion: int = 4,
) -> list[nn.Sequential]:
    """A backbone's layer1 .. layer4.

    Args:
        depths: blocks of each.
        width: channels that come out of the stem.
        dcn: whether layer2 .. layer4 use DCNv2.
        block: (c_in, planes, stride, first of its stage, dcn) -> a residual block with planes * expansion channels.
        expansion: of the bottleneck; 1 if there is none.
    """
    stages, c_in = [], width
    for stage, depth in enumerate(depths, start=1):
        planes, blocks = width * 2 ** (stage - 1), []
        for i in range(depth):
            stride = 2 if i == 0 and stage > 1 else 1
            blocks.append(block(c_in, planes, stride, i == 0, dcn and stage > 1))
            c_in = planes * expansion
        stages.append(nn.Sequential(*blocks))
    return stages


def run_stages(stages: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """The stem's output through all four.  (B, C, H/4, W/4) -> [C2, C3, C4, C5] at strides 4, 8, 16, 32"""
    maps = []
    for layer in stages:
        x = layer(x)
        maps.append(x)
    return maps


def init_backbone(backbone: nn.Module) -> None:
    """Kaiming-normal convolutions (He et al. 2015), for training from scratch; DCNv2 starts on the regular grid."""
    for m in backbone.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
    for m in backbone.modules():
        if isinstance(m, ModulatedDeformConv2d):
            m.start_as_plain()


def freeze(stem: Sequence[nn.Module], stages: Sequence[nn.Module], n: int) -> None:
    """Stop the gradient of the stem and `n` stages (-1: nowhere): with few images ImageNet's filters beat new ones."""
    for module in [] if n < 0 else [*stem, *stages[:n]]:
        module.requires_grad_(False)


def hold_norms(backbone: nn.Module, everywhere: bool) -> None:
    """BatchNorm in evaluation mode where it must not learn statistics: everywhere, or only where it is frozen."""
    for m in backbone.modules():
        if isinstance(m, nn.BatchNorm2d) and (everywhere or not m.weight.requires_grad):
            m.eval()
