"""Any picture -> (h, w, 3) uint8 RGB: from a file, or from what Python programs hold pictures in."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from vfnet_edu.runtime.errors import Exit, UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")  # of image files, in lower case
MAX_PIXELS = 100_000_000  # a few kilobytes of file can hold a picture that fills the memory
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `read_image` refuses such files itself
ORIENTATION = 0x0112  # the EXIF tag: how the camera was held ...
SIDEWAYS = (5, 6, 7, 8)  # ... these values swap width and height

Picture = str | Path | Image.Image | torch.Tensor | np.ndarray


def as_pixels(picture: Picture) -> np.ndarray:
    """A path, a PIL image, a uint8 tensor (3, h, w) or a uint8 array (h, w, 3) -> (h, w, 3) uint8 RGB

    Raises:
        UserError: code DATA where a file cannot be read as an image; code USAGE where an array is not uint8 (whether
            its values end at 1 or at 255 cannot be known) or has another shape.
    """
    if isinstance(picture, str | Path):
        return read_image(picture)
    if isinstance(picture, Image.Image):
        return _rgb(picture)
    is_tensor = isinstance(picture, torch.Tensor)
    pixels = np.asarray(picture.detach().cpu() if is_tensor else picture)
    if pixels.dtype != np.uint8:
        remedy = "convert it, as in (255 * image).round().astype('uint8') for values from 0 to 1"
        raise UserError(f"an image has to be uint8, 0 to 255, not {pixels.dtype}", remedy=remedy)
    if pixels.ndim != 3 or pixels.shape[0 if is_tensor else 2] != 3:
        wanted = "(3, height, width)" if is_tensor else "(height, width, 3)"
        kind = "a tensor" if is_tensor else "an array"
        raise UserError(f"an image that is {kind} has the shape {wanted}, not {pixels.shape}")
    return pixels.transpose(1, 2, 0) if is_tensor else pixels


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode a whole image file -> (h, w, 3) uint8 RGB.

    Transparent pixels are laid over white; 16-bit greys are scaled to 8 bits; of an animation the first frame is taken.
    The camera's orientation (EXIF) is applied, unless only the picture as stored has the wanted size.

    Args:
        size: (height, width) that the annotations were made for, in pixels.

    Raises:
        UserError: not an image, damaged, over 100 million pixels, or not of the wanted size.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            image.load()  # whole: `verify` would let damaged files pass
            image = _orient(image, size)
            pixels = _rgb(image)
    except FileNotFoundError:
        raise _error(f"{path} is missing", "restore the file or remove its record") from None
    except Image.DecompressionBombError as error:
        what = f"{path} has more than {MAX_PIXELS // 10**6} million pixels: {error}"
        raise _error(what, "reduce it, or remove its record") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged files make Pillow raise OSError, SyntaxError, ValueError, zlib.error, ...
        raise _unreadable(path, error) from error
    if size and pixels.shape[:2] != tuple(size):
        (h, w), (want_h, want_w) = pixels.shape[:2], size
        what = f"{path} is {w} x {h} pixels, but {want_w} x {want_h} in its annotations"
        raise _error(what, "correct width and height, and check that the boxes fit the picture")
    return pixels


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of the pixels that `read_image` returns, from the head of the file alone.

    Raises:
        UserError: not an image.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            # A PNG may tell how it was held only after its pixels: decoding them all for that is not worth it.
            told = image.format != "PNG" or "exif" in image.info
            turned = told and image.getexif().get(ORIENTATION, 1) in SIDEWAYS
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:  # as in `read_image`
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> UserError:
    what = f"{path} cannot be read as an image: {' '.join(str(error).split())}"
    return _error(what, "restore the file, or remove its record; vfnet_edu.check finds all such files")


def _error(what: str, remedy: str) -> UserError:
    return UserError(what, remedy=remedy, code=Exit.DATA)


def _orient(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """Turn as the camera says, unless the annotations were visibly made for the picture as it is stored."""
    orientation = image.getexif().get(ORIENTATION, 1)
    as_stored = size and (image.height, image.width) == tuple(size) and image.height != image.width
    if orientation == 1 or (orientation in SIDEWAYS and as_stored):
        return image
    return ImageOps.exif_transpose(image)


def _rgb(image: Image.Image) -> np.ndarray:
    """Any mode of Pillow -> (h, w, 3) uint8."""
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers of unknown range; convert it to 8 or 16 bits")
    if image.mode.startswith("I;16"):  # Pillow would clip everything above 255 to white
        grey = np.rint(np.asarray(image) / 257).astype(np.uint8)  # 65535 -> 255
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))
