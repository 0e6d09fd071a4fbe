"""Picture files of every common kind, size and polarity as the pixels of a model."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.images import reading
from pipelines.images.reading import (
    FORMATS,
    check_pictures,
    fitted_pixels,
    inner_size,
    is_to_be_inverted,
    read_picture,
)
from search_spaces.errors import InputError

GREY, COLOUR = (28, 28, 1), (32, 32, 3)
ORIENTATION = 0x0112


def pattern(side: int = 28) -> np.ndarray:
    """A bright F on black: no two of its mirror images and turns are the same."""
    unit = side // 14
    pixels = np.zeros((side, side), np.uint8)
    pixels[2 * unit : 12 * unit, 4 * unit : 6 * unit] = 255
    pixels[2 * unit : 4 * unit, 4 * unit : 11 * unit] = 255
    pixels[6 * unit : 8 * unit, 4 * unit : 9 * unit] = 200
    return pixels


def saved(name: str, image: Image.Image | np.ndarray, **options: object) -> Path:
    path = Path(name)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


def pixels_of(path: Path, shape=GREY, background="dark", polarity="auto") -> np.ndarray:
    picture = read_picture(path, shape, background, polarity)
    assert picture.pixels.shape == shape and picture.pixels.dtype == np.uint8
    return picture.pixels.squeeze()


def test_a_picture_of_the_models_own_size_is_taken_as_it_is():
    picture = read_picture(saved("a.png", pattern()), GREY, "dark")
    np.testing.assert_array_equal(picture.pixels[..., 0], pattern())
    assert picture.steps == () and not picture.inverted and picture.size == (28, 28)


@pytest.mark.parametrize("side", [28, 280, 14, 301])
def test_a_drawing_and_its_negative_give_equal_pixels(side):
    noise = np.random.default_rng(0).integers(0, 100, (side, side), np.uint8)
    noise[side // 4 : side // 2, side // 3 : side // 2] = 250
    white_on_black = read_picture(saved("w.png", noise), GREY, "dark")
    black_on_white = read_picture(saved("b.png", 255 - noise), GREY, "dark")
    np.testing.assert_array_equal(white_on_black.pixels, black_on_white.pixels)
    assert (white_on_black.inverted, black_on_white.inverted) == (False, True)
    assert "inverted" in black_on_white.steps
    light = read_picture(saved("l.png", noise), GREY, "light")
    np.testing.assert_allclose(light.pixels, 255.0 - white_on_black.pixels, atol=1)


@pytest.mark.parametrize(
    ("border", "background", "polarity", "expected"),
    [
        (255, "dark", "auto", True),
        (160, "dark", "auto", True),  # Paper in the light of a lamp.
        (0, "dark", "auto", False),
        (0, "light", "auto", True),
        (255, "light", "auto", False),
        (255, "mixed", "auto", False),
        (0, "mixed", "auto", False),
        (255, None, "auto", False),
        (0, None, "auto", False),
        (255, "dark", "as-is", False),
        (0, "dark", "invert", True),
        (255, None, "invert", True),
    ],
)
def test_polarity(border, background, polarity, expected):
    pixels = np.full((9, 7, 1), border, np.uint8)
    pixels[3:6, 2:5] = 255 - border
    pixels[0, 0] = 255 - border  # One pixel of the border decides nothing.
    assert is_to_be_inverted(pixels, background, polarity) is expected


@pytest.mark.parametrize(
    ("size", "inner"),
    [
        ((28, 28), (28, 28)),
        ((56, 28), (28, 14)),
        ((100, 400), (7, 28)),
        ((1, 10_000), (1, 28)),
        ((7, 3), (28, 12)),
    ],
)
def test_the_aspect_ratio_is_kept(size, inner):
    assert inner_size(size, GREY) == inner


def test_a_wide_picture_is_centred_and_padded_with_its_own_ground():
    wide = np.full((20, 40, 3), (10, 200, 30), np.uint8)
    wide[5:15, 10:30] = (250, 0, 0)
    fitted = fitted_pixels(wide, COLOUR)
    inner = fitted[8:24]
    assert (fitted[:8] == (10, 200, 30)).all() and (fitted[24:] == (10, 200, 30)).all()
    np.testing.assert_allclose(inner.mean(axis=(0, 1)), wide.mean(axis=(0, 1)), atol=2)
    picture = read_picture(saved("wide.png", wide), COLOUR)
    np.testing.assert_array_equal(picture.pixels, fitted)
    assert picture.steps == ("resized from 40x20 to 32x16", "padded to 32x32")


def test_a_large_picture_becomes_the_small_one():
    small = np.kron(np.random.default_rng(0).integers(0, 2, (7, 7)), np.ones((4, 4)))
    large = np.kron(small, np.ones((50, 50))).astype(np.uint8) * 255
    found = pixels_of(saved("large.png", large), background=None).astype(float)
    assert np.corrcoef(found.ravel(), small.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (2, np.fliplr(pattern(112))),
        (3, np.rot90(pattern(112), 2)),
        (6, np.rot90(pattern(112))),
        (8, np.rot90(pattern(112), -1)),
    ],
)
def test_pictures_are_turned_upright(kind, orientation, stored):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(f"turned.{kind}", np.ascontiguousarray(stored), exif=exif, quality=100)
    upright = pixels_of(saved("upright.png", pattern(112))).astype(int)
    found = read_picture(path, GREY, "dark")
    assert np.abs(found.pixels[..., 0].astype(int) - upright).max() < 12
    assert "turned upright" in found.steps


def test_the_size_is_that_of_the_upright_picture():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = saved("tall.jpg", np.zeros((20, 60), np.uint8), exif=exif)
    assert read_picture(path, GREY).size == (20, 60)


def ink(shade: int, alpha: np.ndarray, mode: str = "RGBA") -> Image.Image:
    """Strokes of one shade without paper."""
    image = Image.new("RGBA", alpha.shape[::-1], (shade, shade, shade, 0))
    image.putalpha(Image.fromarray(alpha))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_shows_the_background_of_the_data(mode):
    white = saved("white.png", ink(255, pattern(), mode))
    np.testing.assert_array_equal(pixels_of(white), pattern())
    black = saved("black.png", ink(0, pattern(), mode))
    np.testing.assert_array_equal(pixels_of(black, background="light"), 255 - pattern())
    assert read_picture(black, GREY, "light").steps[0] == "put on white where it is transparent"


def test_ink_that_the_background_would_swallow_is_put_on_the_opposite():
    black = saved("black.png", ink(0, pattern()))
    np.testing.assert_array_equal(pixels_of(black, background="dark"), pattern())
    white = saved("white.png", ink(255, pattern()))
    np.testing.assert_array_equal(pixels_of(white, background="light"), 255 - pattern())
    np.testing.assert_array_equal(pixels_of(black, background=None), 255 - pattern())
    np.testing.assert_array_equal(pixels_of(white, background=None), pattern())


def test_a_palette_with_a_transparent_entry_and_one_without():
    image = Image.fromarray((pattern() > 100).astype(np.uint8), "P")
    image.putpalette([0, 255, 0, 255, 255, 255])
    clear = pixels_of(saved("clear.png", image, transparency=0))
    np.testing.assert_array_equal(clear, np.where(pattern() > 100, 255, 0))
    opaque = pixels_of(saved("opaque.gif", image), (28, 28, 3), None)
    assert set(map(tuple, opaque.reshape(-1, 3))) == {(0, 255, 0), (255, 255, 255)}


def test_nothing_but_transparency_is_a_blank():
    assert (pixels_of(saved("clear.png", ink(0, np.zeros((9, 9), np.uint8)))) == 0).all()


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_sixteen_bits_are_scaled_not_clipped(name):
    steps = np.linspace(0, 65_535, 28 * 28).reshape(28, 28).astype(np.uint16)
    picture = read_picture(saved(name, steps), GREY)
    np.testing.assert_array_equal(picture.pixels[..., 0], np.round(steps / 257))
    assert "16 bits to 8" in picture.steps


def test_big_endian_sixteen_bits():
    steps = np.linspace(0, 65_535, 28 * 28).reshape(28, 28).astype(np.uint16)
    image = Image.frombytes("I;16B", (28, 28), steps.astype(">u2").tobytes())
    np.testing.assert_array_equal(pixels_of(saved("b.tif", image)), np.round(steps / 257))


def test_one_bit():
    image = Image.fromarray(pattern()).point(lambda v: 255 * (v > 100)).convert("1")
    for name in ("bit.png", "bit.tif", "bit.pbm", "bit.bmp"):
        np.testing.assert_array_equal(pixels_of(saved(name, image)), 255 * (pattern() > 100))


def test_cmyk():
    red = Image.new("RGB", (32, 32), (250, 10, 10)).convert("CMYK")
    for name in ("ink.tif", "ink.jpg"):
        found = pixels_of(saved(name, red, quality=100), COLOUR).reshape(-1, 3)
        np.testing.assert_allclose(found, [(250, 10, 10)] * len(found), atol=8)


def test_grey_for_a_coloured_model_and_colours_for_a_grey_one():
    grey = pixels_of(saved("grey.png", pattern()), (28, 28, 3))
    np.testing.assert_array_equal(grey, np.repeat(pattern()[..., None], 3, axis=2))
    red = np.zeros((28, 28, 3), np.uint8)
    red[..., 0] = 255
    assert (pixels_of(saved("red.png", red), background=None) == 76).all()  # ITU-R 601.


@pytest.mark.parametrize("name", ["film.gif", "film.png", "film.webp", "film.tif"])
def test_of_an_animation_the_first_frame_counts(name):
    first, second = Image.fromarray(pattern()), Image.fromarray(255 - pattern())
    options = {"lossless": True} if name.endswith("webp") else {}
    path = saved(name, first, save_all=True, append_images=[second], **options)
    picture = read_picture(path, GREY, "dark")
    np.testing.assert_array_equal(picture.pixels[..., 0], pattern())
    assert "the first of several frames" in picture.steps


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "bmp", "tif", "webp", "ppm", "jp2"])
def test_common_kinds(kind):
    found = pixels_of(saved(f"a.{kind}", pattern(112))).astype(int)
    assert np.abs(found - pixels_of(saved("b.png", pattern(112)))).mean() < 2


def test_the_kind_is_known_by_content_not_by_name():
    saved("a.png", pattern()).rename("a.jpg")
    np.testing.assert_array_equal(pixels_of(Path("a.jpg")), pattern())
    assert "EPS" not in FORMATS


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """The bytes of a PNG that claims a size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        whole = kind + body
        return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_what_is_no_picture_is_refused_by_name():
    whole = saved("whole.jpg", np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8))
    content = whole.read_bytes()
    Path("folder").mkdir()
    for name, body, rule in (
        ("empty.png", b"", "which is empty"),
        ("text.png", b"this is a text\n" * 9, "none of them. Convert it to PNG"),
        ("vector.svg", b"<svg xmlns='x'/>", "common kind"),
        ("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "common kind"),
        ("half.jpg", content[: len(content) // 2], "truncated, corrupt"),
        ("head.jpg", content[:300], "common kind|truncated, corrupt"),
        ("none.png", png(0, 5), "at least one pixel|common kind|truncated"),
        ("cut.png", png(50, 50, b"\x00" * 100), "truncated"),
        ("bomb.png", png(12_000, 12_000), "at most 120 million pixels.*12000x12000"),
        ("worse.png", png(60_000, 60_000), "at most 120 million pixels"),
        ("missing.png", None, "which does not exist"),
        ("folder", None, "which is a folder"),
    ):
        path = Path(name)
        if body is not None:
            path.write_bytes(body)
        for read in (lambda p: check_pictures([whole, p]), lambda p: read_picture(p, GREY)):
            with pytest.raises(InputError, match=rule) as caught:
                read(path)
            assert name in str(caught.value) and "Received: " in str(caught.value)


def test_no_device_or_pipe_is_waited_for():
    with pytest.raises(InputError, match="no regular file"):
        check_pictures([Path("/dev/zero")])


def test_floating_point_pixels_are_refused():
    path = saved("float.tif", np.ones((9, 9), np.float32))
    with pytest.raises(InputError, match="floating-point"):
        check_pictures([path])


def test_damaged_files_never_raise_anything_else():
    random = np.random.default_rng(0)
    noise = random.integers(0, 255, (40, 40, 3), np.uint8)
    refused = 0
    for kind in ("png", "jpg", "gif", "bmp", "tif", "webp", "ico", "jp2"):
        content = saved(f"a.{kind}", noise).read_bytes()
        for k in range(25):
            body = bytearray(content)
            for place in random.integers(0, min(len(body), 400 if k % 2 else len(body)), 6):
                body[place] = random.integers(0, 256)
            path = Path(f"damaged.{kind}")
            path.write_bytes(bytes(body[: random.integers(20, len(body))] if k % 3 else body))
            try:
                pixels_of(path)
            except InputError:
                refused += 1
    assert refused > 100


def test_the_limit_is_below_the_one_at_which_pillow_gives_up():
    assert reading.MAX_PIXELS < 2 * Image.MAX_IMAGE_PIXELS
