"""DCNv2: a convolution that looks at its input to decide where, and how much, to look."""

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class ModulatedDeformConv2d(nn.Module):
    """Modulated deformable 3x3 convolution, no bias.  (B, C, H, W) -> (B, C', H/stride, W/stride)

    Source: Zhu et al. 2019 (Deformable ConvNets v2), equation 1.  One plain convolution predicts 27 numbers per
    place: nine (dy, dx) offsets, then nine masks.  Offsets start at 0 and masks at sigmoid(0) = 0.5, so at first it
    is half a plain convolution; published weights expect exactly this, without a factor of two.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(c_out, c_in // groups, 3, 3))
        self.conv_offset = nn.Conv2d(c_in, 27, 3, stride, padding=1)
        bound = (9 * c_in) ** -0.5  # the authors divide by all input channels, also with groups
        nn.init.uniform_(self.weight, -bound, bound)
        self.start_as_plain()

    def start_as_plain(self) -> None:
        """Offsets 0 and masks one half: the regular grid."""
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        # torchvision samples in one precision and knows no bfloat16: leave autocast here, in float32
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(self.weight.dtype)
            offset, mask = self.conv_offset(wide).split([18, 9], dim=1)  # (B, 18, H', W'), (B, 9, H', W')
            y = deform_conv2d(wide, offset, self.weight, stride=self.stride, padding=1, mask=mask.sigmoid())
        return y.to(x.dtype)
