"""Reading and changing images: arithmetic against cv2 and against numbers worked out by hand."""

import dataclasses
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from vfnet_edu.data.images import read_image
from vfnet_edu.data.transforms import (
    HOLES,
    AugmentConfig,
    augment,
    clip,
    cutout,
    flip,
    generator,
    random_crop,
    resize,
    resized_size,
)
from vfnet_edu.runtime.errors import Exit, UserError

RNG = np.random.default_rng(0)
PHOTO = cv2.GaussianBlur(RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8), (0, 0), 3)
NO_BOXES, NO_LABELS = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
PLAIN = AugmentConfig(flip=0.0)


def stored(tmp_path, image: Image.Image, name="x.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


# ---- Reading


def test_jpeg_is_decoded_as_cv2_does(tmp_path):
    path = stored(tmp_path, Image.fromarray(PHOTO), "x.jpg", quality=80)
    assert np.array_equal(read_image(path), cv2.imread(str(path))[..., ::-1])


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "LA", "RGBA", "I;16"])
def test_modes(tmp_path, mode):
    grey = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    if mode == "I;16":
        image, name = Image.fromarray(grey.astype(np.uint16) * 257), "x.png"
    elif mode == "1":
        image, name = Image.fromarray(grey).point(lambda v: 255 * (v > 127)).convert("1"), "x.png"
    else:
        image, name = Image.fromarray(grey).convert(mode), "x.tif" if mode == "CMYK" else "x.png"
    pixels = read_image(stored(tmp_path, image, name), (48, 64))
    assert pixels.shape == (48, 64, 3) and pixels.dtype == np.uint8 and pixels.flags.writeable
    if mode == "1":
        assert set(np.unique(pixels)) == {0, 255}
    else:
        assert (pixels == grey[..., None]).all()  # the ramp stays a ramp, even with 16 bits


def test_transparency_is_white(tmp_path):
    colours = np.zeros((2, 2, 4), np.uint8)
    colours[0] = 10, 20, 30, 255
    colours[1] = 10, 20, 30, 0
    colours[0, 1, 3] = 51  # a fifth
    pixels = read_image(stored(tmp_path, Image.fromarray(colours)))
    assert pixels[0, 0].tolist() == [10, 20, 30] and pixels[1, 0].tolist() == [255, 255, 255]
    assert pixels[0, 1].tolist() == [206, 208, 210]  # 255 - (255 - v) / 5


def test_32_bit_pixels_are_refused(tmp_path):
    path = stored(tmp_path, Image.fromarray(np.ones((4, 4), np.float32)), "x.tif")
    with pytest.raises(UserError, match="unknown range"):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = stored(tmp_path, Image.fromarray(PHOTO), exif=exif)
    as_cv2 = cv2.imread(str(path))[..., ::-1]  # applies it, as mmcv does
    assert np.array_equal(read_image(path), as_cv2)
    assert np.array_equal(read_image(path, as_cv2.shape[:2]), as_cv2)
    sideways = orientation > 4
    assert np.array_equal(read_image(path, (48, 64)), PHOTO if sideways else as_cv2)  # boxes of the stored picture
    with pytest.raises(UserError, match="but 63 x 48 in its annotations"):
        read_image(path, (48, 63))


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    path = stored(tmp_path, frames[0], "x.gif", save_all=True, append_images=frames[1:])
    assert (read_image(path) == (255, 0, 0)).all()


def png_header(width, height):
    """A PNG of a few bytes that claims to be of any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def jpeg(quality=90):
    stream = io.BytesIO()
    Image.fromarray(PHOTO).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (jpeg()[: len(jpeg()) // 2], "cannot be read as an image"),
        (jpeg()[:-2], "truncated"),
        (b"", "cannot identify"),
        (b"<html>Quota exceeded</html>", "cannot identify"),
        (png_header(8, 8), "cannot be read as an image"),
        (png_header(10001, 10000), "more than 100 million pixels"),
        (png_header(60000, 60000), "more than 100 million pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify"),  # would start another program
        (None, "is missing"),
    ],
)
def test_bad_files_are_named(tmp_path, content, says):
    path = tmp_path / "photo.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_image(path)
    assert says in str(caught.value) and str(path) in caught.value.what and "\n" not in str(caught.value)
    assert caught.value.code == Exit.DATA and caught.value.remedy


def test_odd_names(tmp_path):
    path = stored(tmp_path, Image.fromarray(PHOTO), "a b#%20 ящик 🎈\n.png")
    assert np.array_equal(read_image(path), PHOTO)


# ---- Changing


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((480, 640), (1333, 800), (800, 1067)),  # 640 * 800 / 480 = 1066.67
        ((640, 480), (1333, 800), (1067, 800)),
        ((427, 640), (1333, 800), (800, 1199)),
        ((300, 900), (1333, 800), (444, 1333)),  # the long side decides
        ((480, 640), (800, 1333), (800, 1067)),  # whichever is larger is for the long side
        ((800, 1333), (1333, 800), (800, 1333)),
        ((1, 5000), (1333, 800), (1, 1333)),  # never 0 pixels
    ],
)
def test_resized_size(size, scale, expected):
    assert resized_size(*size, scale) == expected


def bilinear(image, height, width):
    """Half-pixel centres, no smoothing: the definition, in float64."""

    def places(new, old):
        at = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
        low = np.minimum(at.astype(int), max(old - 2, 0))
        return low, np.minimum(low + 1, old - 1), at - low

    top, bottom, fy = places(height, image.shape[0])
    left, right, fx = places(width, image.shape[1])
    fy, fx = fy[:, None, None], fx[None, :, None]
    rows = image[top] * (1 - fy) + image[bottom] * fy
    return rows[:, left] * (1 - fx) + rows[:, right] * fx


@pytest.mark.parametrize("scale", [(133, 80), (1333, 800), (50, 30), (64, 48)])
def test_resize(scale):
    boxes = np.array([[1, 2, 33, 40], [-8, 5, 70, 60]], np.float32)
    image, moved, (sx, sy) = resize(PHOTO, boxes, scale)
    h, w = resized_size(48, 64, scale)
    assert image.shape == (h, w, 3) and image.dtype == np.uint8
    assert (sx, sy) == (w / 64, h / 48)
    assert np.abs(image - bilinear(PHOTO, h, w)).max() < 1
    assert np.array_equal(image, cv2.resize(PHOTO, (w, h), interpolation=cv2.INTER_LINEAR))
    assert np.allclose(moved, [[sx, 2 * sy, 33 * sx, 40 * sy], [0, 5 * sy, w, h]])  # scaled, then clipped
    assert moved.dtype == np.float32


def test_factors_are_those_of_the_rounded_sides():
    _, boxes, (sx, sy) = resize(
        np.zeros((427, 640, 3), np.uint8), np.array([[10, 10, 20, 20]], np.float32), (1333, 800)
    )
    assert (sx, sy) == (1199 / 640, 800 / 427) and sx != sy
    assert np.allclose(boxes, [[18.734375, 18.735363, 37.46875, 37.470726]])


def test_flip():
    image, boxes = flip(PHOTO, np.array([[0, 1, 10, 20], [60.5, 3, 64, 9]], np.float32))
    assert np.array_equal(image, PHOTO[:, ::-1])
    assert boxes.tolist() == [[54, 1, 64, 20], [0, 3, 3.5, 9]]
    assert flip(PHOTO, NO_BOXES)[1].shape == (0, 4)


def test_clip():
    boxes = np.array([[-1, -2, 70, 50], [5, 6, 7, 8]], np.float32)
    assert clip(boxes, 48, 64).tolist() == [[0, 0, 64, 48], [5, 6, 7, 8]]


def test_crop():
    image = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60, 1).repeat(3, 2)  # every pixel tells its place
    sizes, corners = [], []
    for index in range(400):
        boxes = np.array([[0, 0, 60, 40], [0, 0, 1, 1], [10, 20, 50, 30]], np.float32)
        window, moved, left = random_crop(generator(0, 0, index), image, boxes, (0.75, 0.5))
        h, w = window.shape[:2]
        y, x = divmod(int(window[0, 0, 0]), 60)
        assert 30 <= h <= 40 and 30 <= w <= 60 and y + h <= 40 and x + w <= 60
        assert moved[0].tolist() == [0, 0, w, h] and left[0]
        assert moved[2].tolist() == [max(10 - x, 0), max(20 - y, 0), min(50 - x, w), min(30 - y, h)]
        assert left[1] == (x < 1 and y < 1)
        sizes.append((h, w))
        corners.append((y / max(40 - h, 1), x / max(60 - w, 1)))
    assert np.allclose(np.mean(sizes, 0), (35, 45), atol=1.2) and np.min(sizes, 0).tolist() == [30, 30]
    assert np.allclose(np.mean(corners, 0), 0.5, atol=0.06) and np.max(corners, 0).tolist() == [1, 1]


def test_cutout():
    holes, blackened = [], np.zeros((90, 120))
    for index in range(300):
        image = cutout(generator(0, 0, index), np.full((90, 120, 3), 200, np.uint8))
        black = (image == 0).all(2)
        assert (black == (image == 0).any(2)).all()
        holes.append(black.sum())
        blackened += black
    # 7.5 holes of 427 pixels on average: at most 3203 of them, less what overlaps or lies outside
    assert 1800 < np.mean(holes) < 3203 and min(holes) > 0
    assert blackened[45:, 60:].mean() > 1.5 * blackened[:20, :20].mean()  # holes grow to the right and down
    assert (
        HOLES.shape == (13, 2)
        and (HOLES * [1, 1]).sum() == 8 + 12 + 12 + 16 + 24 + 24 + 32 + 48 + 48 + 64 + 80 + 80 + 96
    )


def draws(config, count=600):
    image = np.zeros((48, 64, 3), np.uint8)
    boxes, labels = np.array([[8, 8, 40, 40]], np.float32), np.array([3])
    return [augment(config, generator(0, 0, i), image, boxes, labels) for i in range(count)]


def test_sides_are_drawn_from_the_whole_range():
    config = AugmentConfig(long_side=(1000, 1000), short_side=(48, 52), flip=0)
    heights = [image.shape[0] for image, *_ in draws(config)]
    values, counts = np.unique(heights, return_counts=True)
    assert values.tolist() == [48, 49, 50, 51, 52] and counts.min() > 80


def test_images_are_smaller_in_the_first_epochs():
    config = AugmentConfig(long_side=(100, 200), short_side=(100, 100), small_epochs=2, small=0.75)
    assert [config.in_epoch(epoch).long_side for epoch in range(4)] == [(75, 150)] * 2 + [(100, 200)] * 2
    assert config.in_epoch(1).short_side == (75, 75)
    assert AugmentConfig().in_epoch(0) == AugmentConfig()


def test_sides_are_drawn_independently():
    config = AugmentConfig(long_side=(64, 96), short_side=(48, 72), flip=0)
    factors = np.array([sy for *_, (_, sy) in draws(config)])  # min of two uniform draws on 1 .. 1.5: mean 1.1667
    assert abs(factors.mean() - (1 + 0.5 / 3)) < 0.012
    assert (np.quantile(factors, [0.25, 0.75]) - [1.067, 1.25]).max() < 0.03  # 1 - sqrt(.75), 1 - sqrt(.25) of .5


def test_probabilities():
    config = AugmentConfig((64, 64), (48, 48), flip=0.25, crop=0.5, crop_range=(0.75, 0.75))
    results = draws(config, 1000)
    cropped = np.array([sx != 1 or sy != 1 for *_, (sx, sy) in results])
    assert abs(cropped.mean() - 0.5) < 0.05
    whole = [boxes[0, 0] == 64 - 40 for (_, boxes, *_), c in zip(results, cropped, strict=True) if not c]
    assert abs(np.mean(whole) - 0.25) < 0.06
    black = [image.min() == 0 for image, *_ in (
        augment(AugmentConfig((64, 64), (48, 48), cutout=0.5), generator(0, 0, i), np.full((48, 64, 3), 9, np.uint8),
                NO_BOXES, NO_LABELS) for i in range(600))]  # fmt: skip
    assert abs(np.mean(black) - 0.5) < 0.07


def test_a_crop_without_objects_is_drawn_again():
    image, box, label = np.zeros((100, 100, 3), np.uint8), np.array([[0, 0, 2, 2]], np.float32), np.array([5])
    config = AugmentConfig((100, 100), (100, 100), crop=0.5, crop_range=(0.1, 0.1))
    for index in range(100):
        _, boxes, labels, _ = augment(config, generator(0, 0, index), image, box, label)
        assert len(boxes) == 1 and labels.tolist() == [5] and (boxes[:, 2:] > boxes[:, :2]).all()
    always = dataclasses.replace(config, crop=1.0)  # gives up after a while, instead of hanging
    assert len(augment(always, generator(0, 0, 0), image, NO_BOXES, NO_LABELS)[1]) == 0


def test_objects_stay_on_their_pixels():
    """One bright rectangle in the dark: after all of crop, resize and flip, its box still surrounds it."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[30:75, 40:100] = 255
    config = AugmentConfig((130, 260), (100, 180), crop=0.7, crop_range=(0.6, 0.6))
    for index in range(60):
        box, label = np.array([[40, 30, 100, 75]], np.float32), np.array([0])
        out, boxes, _, _ = augment(config, generator(1, 2, index), image, box, label)
        ys, xs = np.nonzero(out[..., 0] > 127)
        assert np.abs(boxes[0] - [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).max() <= 1


def test_the_given_arrays_are_left_alone():
    image, boxes = PHOTO.copy(), np.array([[1, 2, 30, 40]], np.float32)
    for index in range(10):
        augment(
            AugmentConfig((64, 64), (48, 48), crop=0.5, cutout=1.0), generator(0, 0, index), image, boxes, np.array([1])
        )
    assert np.array_equal(image, PHOTO) and boxes.tolist() == [[1, 2, 30, 40]]


def test_images_without_objects():
    config = AugmentConfig((70, 90), (50, 60), crop=0.9, cutout=0.5)
    _, boxes, labels, _ = augment(config, generator(0, 0, 1), PHOTO, NO_BOXES, NO_LABELS)
    assert boxes.shape == (0, 4) and boxes.dtype == np.float32 and labels.shape == (0,)


def test_random_numbers_are_a_function_of_seed_epoch_and_image():
    def first(*key):
        return generator(*key).random(4).tolist()

    assert first(1, 2, 3) == first(1, 2, 3)
    keys = [(s, e, i) for s in (0, 1) for e in (0, 1, 2**31) for i in (-1, 0, 1, 2**31)]
    assert len({tuple(first(*key)) for key in keys}) == len(keys)
    assert first(0, 0, 0)[0] == pytest.approx(0.011546754286331062)  # the stream is part of the promise


def test_augment_is_deterministic():
    config = AugmentConfig((50, 90), (40, 60), crop=0.5, cutout=0.5)
    boxes, labels = np.array([[8, 8, 40, 40]], np.float32), np.array([3])
    a, b = (augment(config, generator(7, 3, 11), PHOTO, boxes, labels) for _ in range(2))
    assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) and a[3] == b[3]
