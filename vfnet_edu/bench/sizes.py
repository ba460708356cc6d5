"""How much there is to do in the rows of `bench peers`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sizes:
    """How much there is to do; what is not said in the titles of the rows."""

    answer: tuple[int, int] = (800, 1333)
    """height and width of the image to find objects in"""
    learn: tuple[int, int] = (480, 640)
    """height and width of the images to learn from"""
    batch: int = 2
    """images to learn from at once"""
    pyramid: tuple[int, int] = (800, 1344)
    """height and width of the image whose pyramid the star and the assigner see"""
    channels: int = 256
    """of that pyramid"""
    boxes: int = 50
    """objects to assign in it"""
    scenes: int = 100
    """images of 480 x 640 to load"""
    batches: int = 20
    """batches of two images to load"""
    scored: int = 1000
    """images to score detections in"""
    detections: int = 100_000
    """detections to score"""
    json_mb: float = 40.0
    """size of the annotations to read; those of train2017 are 448"""
    folder: Path = Path("runs/peers")
    """where the images and the annotations are written"""


QUICK = Sizes((64, 96), (64, 96), 1, (64, 96), 32, 3, 8, 2, 8, 80, 1.2)
