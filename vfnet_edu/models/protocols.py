"""What a backbone, a neck and a head are: anything with these methods fits into a :class:`Detector`.

Nobody inherits from them.  A class that has the methods *is* one (PEP 544), and the type checker holds it to that.
Each is an ``nn.Module`` as well, whose ``__call__`` runs ``forward``.
"""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from vfnet_edu.postprocess import Candidates


@runtime_checkable
class Backbone(Protocol):
    """An image to feature maps.

    Its config names the channels of the three maps (``out_channels``), and its keys are those of the ImageNet weights
    that it can start from.
    """

    def __call__(self, x: Tensor, /) -> list[Tensor]: ...

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised, H and W multiples of 32 -> C3, C4, C5: (B, C_i, H/s, W/s) for s = 8, 16, 32"""
        ...


@runtime_checkable
class Neck(Protocol):
    """Feature maps to a pyramid whose levels all have the same number of channels."""

    def __call__(self, features: list[Tensor], /) -> list[Tensor]: ...

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """C3, C4, C5 -> P3, P4, ...: L maps (B, channels, H_i, W_i), each half the size of the one before"""
        ...


@runtime_checkable
class HeadOutput(Protocol):
    """What every head's predictions hold, one row per prior, all levels one after the other; each adds its own."""

    @property
    def logits(self) -> Tensor:
        """(B, P, K) float32, before the sigmoid"""
        ...

    @property
    def boxes(self) -> Tensor:
        """(B, P, 4) float32, xyxy, pixels of the network's input"""
        ...

    @property
    def level_shapes(self) -> list[tuple[int, int]]:
        """(H_i, W_i) of each of the L levels"""
        ...


@runtime_checkable
class Head(Protocol):
    """A pyramid to boxes with scores, and the losses that teach them.  It never sees a data set."""

    def __call__(self, pyramid: list[Tensor], /) -> HeadOutput: ...

    def forward(self, pyramid: list[Tensor]) -> HeadOutput:
        """L maps (B, channels, H_i, W_i) -> predictions for all P priors"""
        ...

    def loss(self, out: Any, targets: list[dict[str, Tensor]], image_sizes: list[tuple[int, int]]) -> dict[str, Tensor]:
        """Loss terms by name, float32 scalars that are summed.

        Args:
            out: what ``forward`` returned for the batch.
            targets: per image ``{"boxes": (G, 4) xyxy, pixels, "labels": (G,) int64}``; G may be 0.
            image_sizes: (height, width) of each image without padding, pixels.
        """
        ...

    def candidates(self, out: Any, image_sizes: list[tuple[int, int]]) -> Candidates:
        """Scores (B, P, K) in [0, 1] and boxes (B, P, 4) of all priors, before any selection

        Where all images have one size, a single one in `image_sizes` will do.
        """
        ...
