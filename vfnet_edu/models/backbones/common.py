"""What ResNet and Res2Net share: four stages of blocks, how they start, and what of them does not learn."""

from collections.abc import Callable

from torch import Tensor, nn

from vfnet_edu.ops.dcn import ModulatedDeformConv2d


def add_stages(
    backbone: nn.Module, block: Callable[[int, int, int, bool, bool], nn.Module], expansion: int = 4
) -> None:
    """Give a backbone its layer1 .. layer4, by `blocks`, `width` and `dcn` of its config.

    Args:
        backbone: its stem leaves `config.width` channels.
        block: (c_in, planes, stride, first of its stage, dcn) -> a residual block with planes * expansion channels.
        expansion: of the bottleneck; 1 if there is none.
    """
    config = backbone.config
    c_in = config.width
    for stage, depth in enumerate(config.blocks, start=1):
        planes, blocks = config.width * 2 ** (stage - 1), []
        for i in range(depth):
            stride = 2 if i == 0 and stage > 1 else 1
            blocks.append(block(c_in, planes, stride, i == 0, config.dcn and stage > 1))
            c_in = planes * expansion
        backbone.add_module(f"layer{stage}", nn.Sequential(*blocks))


def run_stages(backbone: nn.Module, x: Tensor) -> list[Tensor]:
    """What the stem has made, through all four.  (B, C, H/4, W/4) -> [C2, C3, C4, C5] at strides 4, 8, 16, 32"""
    maps = []
    for layer in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
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


def freeze(backbone: nn.Module, stem: list[nn.Module]) -> None:
    """Stop the gradient of `config.frozen_stages`: with few images their ImageNet filters beat new ones."""
    n = backbone.config.frozen_stages
    for module in [] if n < 0 else stem + [getattr(backbone, f"layer{i}") for i in range(1, n + 1)]:
        module.requires_grad_(False)


def hold_norms(backbone: nn.Module) -> nn.Module:
    """BatchNorm in evaluation mode where it must not learn statistics: everywhere (`frozen_norm`), or where frozen."""
    for m in backbone.modules():
        if isinstance(m, nn.BatchNorm2d) and (backbone.config.frozen_norm or not m.weight.requires_grad):
            m.eval()
    return backbone
