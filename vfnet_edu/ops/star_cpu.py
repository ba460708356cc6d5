"""The star-deformable convolution for the CPU: stretch the map threefold, then convolve it with stride 3.

In the stretched map the nine samples of a location lie side by side, a 3x3 block of their own, so what remains is an
ordinary convolution that visits each block once. The stretching reads whole rows of C numbers with ``embedding_bag``. That
function is made for word vectors, but its weighted sum of a few table rows is just what interpolation needs, when the
table is the feature map with one row per cell.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vfnet_edu.ops.star_reference import star_conv2d_reference, star_reads

CHUNK = 1024  # locations stretched at a time: 9 C numbers each, which then stay in the cache; 9 MB for C = 256


def star_conv2d_embedding_bag(x: Tensor, ltrb: Tensor, weight: Tensor, stride: int) -> Tensor:
    """See :func:`vfnet_edu.ops.star.star_conv2d`. Fastest when x is channels_last.

    Inference holds one chunk of the stretched map. Training keeps all of it for the weight's gradient.
    """
    if x.numel() == 0:
        return star_conv2d_reference(x, ltrb, weight, stride)
    channels, _, width = x.shape[1:]
    cells, factors = (_interleave(reads) for reads in star_reads(ltrb, stride))  # (B, H, 25 W)
    tables = x.permute(0, 2, 3, 1).to(factors.dtype).contiguous().flatten(1, 2)  # (B, HW, C), at least float32
    weight = weight.contiguous(memory_format=torch.channels_last)
    rows = max(1, CHUNK // width)
    bag_sizes = torch.tensor(([4, 2, 4] * width + [2, 1, 2] * width + [4, 2, 4] * width) * rows, device=x.device)
    bag_starts = bag_sizes.cumsum(0) - bag_sizes
    images = []
    for table, image_cells, image_factors in zip(tables, cells, factors, strict=True):
        strips = []
        for cell, factor in zip(image_cells.split(rows), image_factors.split(rows), strict=True):  # (rows, 25 W)
            starts = bag_starts[: 9 * width * len(cell)]
            bags = F.embedding_bag(cell.flatten(), table, starts, mode="sum", per_sample_weights=factor.flatten())
            stretched = bags.view(1, 3 * len(cell), 3 * width, channels).permute(0, 3, 1, 2).to(x.dtype)
            strips.append(F.conv2d(stretched, weight, stride=3))  # (1, O, rows, W)
        images.append(torch.cat(strips, 2))
    return torch.cat(images)  # (B, O, H, W)


def _interleave(reads: Tensor) -> Tensor:
    """(B, H, W, 25) in the order of the stretched map: a row of W locations becomes three rows of 3 W samples each.

    Those take 10 W, 5 W and 10 W reads: (B, H, 25 W).
    """
    return torch.cat([row.flatten(2) for row in reads.split((10, 5, 10), -1)], 2)
