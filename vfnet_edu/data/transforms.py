"""Changing images together with their boxes. Everything is numpy: images (h, w, 3) uint8 RGB.

The arithmetic is that of mmdetection 2.10 with mmcv 1.2.7, the pipelines of VFNet and VFNet-X. Normalising and padding
come later, in the detector. All random numbers are a function of (seed, epoch, image): neither the number of worker
processes nor the order in which they are served changes a pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

# The (width, height) that CutOut chooses from, pixels.
HOLES = np.array("4 4 4 8 8 4 8 8 16 8 8 16 16 16 16 32 32 16 32 32 32 48 48 32 48 48".split(), int).reshape(-1, 2)


@dataclass(frozen=True)
class AugmentConfig:
    """How a training image is changed. Ranges are inclusive; lengths are pixels.

    It is resized, keeping its aspect ratio, until its long side or its short side reaches the length drawn for it.
    """

    long_side: tuple[int, int] = (1333, 1333)
    short_side: tuple[int, int] = (800, 800)
    flip: float = 0.5  # probability of mirroring left and right
    crop: float = 0.0  # probability of cropping to a window, before resizing (VFNet-X: 0.5)
    crop_range: tuple[float, float] = (0.75, 0.75)  # least height and width of the window, as fractions of the image's
    cutout: float = 0.0  # probability of blackening 5 to 10 small rectangles, after resizing (VFNet-X: 0.5)
    small_epochs: int = 0  # in so many epochs at the start, images are ...
    small: float = 0.75  # ... this much smaller: quicker steps while there is most to learn (no row of the tables)

    def in_epoch(self, epoch: int) -> "AugmentConfig":
        """With the lengths of this epoch, which counts from 0."""
        if epoch >= self.small_epochs:
            return self
        long, short = (tuple(round(self.small * side) for side in sides) for sides in (self.long_side, self.short_side))
        return replace(self, long_side=long, short_side=short)


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Random numbers that depend on these three alone (a counter-based generator: Salmon et al., "Parallel random
    numbers: as easy as 1, 2, 3", 2011). `index` is that of an image, or -1 for the order of the epoch."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch << 32 | index % 2**32], np.uint64)))


# ---- Changing --------------------------------------------------------------------------------------------------------


def resized_size(height: int, width: int, scale: tuple[int, int]) -> tuple[int, int]:
    """(height, width) after the image is fitted into `scale`: long side <= the larger, short side <= the smaller."""
    ratio = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(int(height * ratio + 0.5), 1), max(int(width * ratio + 0.5), 1)


def resize(
    image: np.ndarray, boxes: np.ndarray, scale: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Fit an image into `scale`, keeping its aspect ratio; bilinear on uint8, without smoothing, as the authors do.

    Returns:
        image, boxes (scaled, then clipped to the image), and the factors (sx, sy): sides are rounded, so they differ.
    """
    h, w = image.shape[:2]
    new_h, new_w = resized_size(h, w, scale)
    if (new_h, new_w) != (h, w):
        image = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    factors = new_w / w, new_h / h
    boxes = boxes * np.array(factors * 2, np.float32)
    return image, clip(boxes, new_h, new_w), factors


def clip(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """(G, 4) xyxy, cut at the border of the image"""
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def flip(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mirror left and right: x -> width - x."""
    boxes = boxes.copy()
    boxes[:, [0, 2]] = image.shape[1] - boxes[:, [2, 0]]
    return cv2.flip(image, 1), boxes


def random_crop(
    rng: np.random.Generator, image: np.ndarray, boxes: np.ndarray, least: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A window at a random place, its sides drawn from `least` .. 1 of the image's.

    Returns:
        image, boxes (moved and clipped; those outside are still there, without area), and which boxes are left (G,).
    """
    h, w = image.shape[:2]
    part = np.asarray(least) + rng.random(2) * (1 - np.asarray(least))
    new_h, new_w = int(h * part[0] + 0.5), int(w * part[1] + 0.5)
    y, x = int(rng.integers(h - new_h + 1)), int(rng.integers(w - new_w + 1))
    boxes = clip(boxes - np.array([x, y, x, y], np.float32), new_h, new_w)
    return image[y : y + new_h, x : x + new_w], boxes, np.all(boxes[:, 2:] > boxes[:, :2], axis=1)


def cutout(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """5 to 10 black rectangles, also over objects (DeVries and Taylor, "CutOut", 2017, with the sizes of VFNet-X)."""
    image = image.copy()
    h, w = image.shape[:2]
    for _ in range(rng.integers(5, 11)):
        x, y, (wide, high) = rng.integers(w), rng.integers(h), HOLES[rng.integers(len(HOLES))]
        image[y : y + high, x : x + wide] = 0
    return image


def augment(
    config: AugmentConfig, rng: np.random.Generator, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float]]:
    """One training image: crop, resize, cut out, flip.

    Args:
        boxes: (G, 4) float32 xyxy, pixels of `image`. labels: (G,).

    Returns:
        image, boxes, labels (of the objects still in sight) and (sx, sy) of the resize.
    """
    for _ in range(100):  # a crop that shows no object is drawn again, the coin that decides on cropping included
        if rng.random() >= config.crop:
            break
        window, moved, left = random_crop(rng, image, boxes, config.crop_range)
        if left.any():
            image, boxes, labels = window, moved[left], labels[left]
            break
    # Long and short side are drawn independently: the picture keeps its aspect ratio, so one of the two decides.
    long, short = (int(rng.integers(low, high + 1)) for low, high in (config.long_side, config.short_side))
    image, boxes, factors = resize(image, boxes, (long, short))
    if rng.random() < config.cutout:
        image = cutout(rng, image)
    if rng.random() < config.flip:
        image, boxes = flip(image, boxes)
    return image, boxes, labels, factors
