"""BatchNorm folded into the convolution before it: one pass over each map fewer, for a detector that only answers.

In evaluation mode a BatchNorm multiplies every channel by a constant and adds another.  A convolution can do both with
its own weights and a bias, so the result is the same up to rounding.  GroupNorm cannot be folded: its statistics are
those of the image.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from vfnet_edu.ops.dcn import ModulatedDeformConv2d
from vfnet_edu.runtime.errors import UserError

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def fold_norms(model: AnyModule) -> AnyModule:
    """A copy in evaluation mode, whose BatchNorms are part of their convolutions.  `model` itself stays as it is.

    A norm belongs to the convolution that its module names right before it (``conv1``, ``bn1``), in two lists of equal
    length to the one at its place (``convs``, ``bns``).  The copy has no checkpoint: save the original.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    done = set()
    for conv, norm in _pairs(folded):
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias
        )
        done.add(norm)
    for module in list(folded.modules()):
        for name, child in module.named_children():
            if child in done:
                setattr(module, name, nn.Identity())
    folded.register_state_dict_pre_hook(_refuse)
    return folded


def _refuse(*_) -> None:
    raise UserError("a detector with folded norms cannot be saved", remedy="save the one that it is a copy of")


def _pairs(model: nn.Module) -> Iterator[tuple[nn.Conv2d | ModulatedDeformConv2d, nn.BatchNorm2d]]:
    """Every convolution with the BatchNorm that follows it."""
    for module in model.modules():
        for first, second in pairwise(module.children()):
            pairs = [(first, second)]
            if isinstance(first, nn.ModuleList) and isinstance(second, nn.ModuleList):
                pairs = zip(first, second, strict=False)
            for conv, norm in pairs:
                if isinstance(conv, nn.Conv2d | ModulatedDeformConv2d) and isinstance(norm, nn.BatchNorm2d):
                    yield conv, norm
