"""Image files of any kind and size as the raw pixels that a model takes.

A file becomes an upright image of 8 bits, then grey or coloured like the model's data, inverted
where its polarity is the opposite of the data's, and fitted into the model's frame. It is inverted
before it is resized, so a drawing and its negative give the very same pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pipelines.data.prepared import DARK, Background
from pipelines.images.options import Resize
from search_spaces.errors import InputError
from search_spaces.space import Shape

Polarity = Literal["auto", "as-is", "invert"]
POLARITIES: tuple[Polarity, ...] = get_args(Polarity)
FORMATS = (
    "PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "PPM", "ICO", "JPEG2000",
)  # fmt: skip
"""The only ones that are tried: Pillow would start Ghostscript for a file that says EPS."""
_FILE_RULE = "An image must be a file that can be read."
MAX_PIXELS = 120_000_000
"""A 108-megapixel camera's images fit; a file of some bytes that claims more is a bomb."""
MAX_EXPANSION, EXPANSION_FLOOR = 500, 16_000_000
"""Pixels for each byte of a file, which photos are far from: an empty page of some kilobytes would
take gigabytes in every thread. Smaller images are read whatever their file."""
BLACK, MIDDLE, WHITE = 0, 127.5, 255
SIXTEEN_TO_EIGHT = 257
"""65,535 / 255."""


@dataclass(frozen=True)
class Picture:
    """An image file as a model gets it.

    Attributes:
        pixels: (height, width, channels) uint8, of the model's shape.
        size: width and height of the upright image in the file.
        steps: what was done to it, one phrase each, in order.
    """

    path: Path
    pixels: np.ndarray
    size: tuple[int, int]
    inverted: bool
    steps: tuple[str, ...]


def check_pictures(paths: Sequence[Path]) -> None:
    """Decodes every file and forgets it: what is wrong with one is known before anything starts.

    Raises:
        InputError: As `read_picture`.
    """
    for path in paths:
        _decoded(path)


def read_pixels(path: Path, channels: int) -> np.ndarray:
    """An image file as it is: upright, (height, width, channels) uint8, grey for one channel.

    Raises:
        InputError: As `read_picture`.
    """
    image, steps = _decoded(path)
    return in_channels(_without_transparency(image, None, steps), channels)


def read_picture(
    path: Path,
    input_shape: Shape,
    background: Background | None = None,
    polarity: Polarity = "auto",
    resize: Resize = "fit",
) -> Picture:
    """An image file, fitted to a model's input.

    Args:
        background: what surrounds the objects in the model's data; None where it is not known.
        resize: how the model's training images came into their frame.

    Raises:
        InputError: No file, or none that can be read as an image; the message names it.
    """
    image, steps = _decoded(path)
    pixels = _without_transparency(image, background, steps)
    channels = input_shape[2]
    if pixels.shape[2] != channels:
        steps.append("colours to grey" if channels == 1 else "grey to RGB")
        pixels = in_channels(pixels, channels)
    inverted = is_to_be_inverted(pixels, background, polarity)
    if inverted:
        pixels = WHITE - pixels
        steps.append("inverted")
    height, width = pixels.shape[:2]
    inner = inner_size((height, width), input_shape)
    if resize != "fit":
        inner = input_shape[:2]
        if resize == "crop" and width * inner[0] != height * inner[1]:
            steps.append("cropped to its middle")
    if inner != (height, width):
        steps.append(f"resized from {width}x{height} to {inner[1]}x{inner[0]}")
    if inner != input_shape[:2]:
        steps.append(f"padded to {input_shape[1]}x{input_shape[0]}")
    fitted = framed_pixels(pixels, input_shape, resize)
    return Picture(path, fitted, (width, height), inverted, tuple(steps))


def ground_colour(pixels: np.ndarray) -> np.ndarray:
    """The colour that surrounds what is shown: per channel the median of the border. Pure."""
    border = np.concatenate([
        pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]
    ])  # fmt: skip
    return np.asarray(np.median(border, axis=0))


def is_to_be_inverted(
    pixels: np.ndarray, background: Background | None, polarity: Polarity
) -> bool:
    """Whether an image is turned into its negative. Pure.

    `auto` does so where the model's data have a dark or a light background and the image's
    border is nearer to the other; never where the data are mixed or not known.
    """
    if polarity != "auto":
        return polarity == "invert"
    ground = float(ground_colour(pixels).mean())
    if background == "dark":
        return ground > MIDDLE
    return background == "light" and ground < MIDDLE


def inner_size(size: tuple[int, int], input_shape: Shape) -> tuple[int, int]:
    """Height and width of an image of this height and width inside the model's frame. Pure."""
    height, width = size
    scale = min(input_shape[0] / height, input_shape[1] / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def fitted_pixels(pixels: np.ndarray, input_shape: Shape) -> np.ndarray:
    """The pixels scaled into the frame, centred and padded with the image's own ground. Pure."""
    inner = inner_size((pixels.shape[0], pixels.shape[1]), input_shape)
    scaled = pixels
    if inner != pixels.shape[:2]:
        # Pillow widens the filter when it scales down, so thin strokes fade instead of breaking.
        scaled = _pixels(_image(pixels).resize(inner[::-1], Image.Resampling.BICUBIC))
    frame = np.empty(input_shape, np.uint8)
    frame[:] = np.round(ground_colour(pixels))
    top, left = (input_shape[0] - inner[0]) // 2, (input_shape[1] - inner[1]) // 2
    frame[top : top + inner[0], left : left + inner[1]] = scaled
    return frame


def framed_pixels(pixels: np.ndarray, input_shape: Shape, resize: Resize) -> np.ndarray:
    """The pixels in the frame: padded, cropped to their middle, or stretched. Pure."""
    if resize == "fit":
        return fitted_pixels(pixels, input_shape)
    height, width = input_shape[:2]
    if pixels.shape[:2] == (height, width):
        return pixels
    size = (width, height)
    if resize == "stretch":
        return _pixels(_image(pixels).resize(size, Image.Resampling.BICUBIC))
    return _pixels(ImageOps.fit(_image(pixels), size, Image.Resampling.BICUBIC))


def in_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """The pixels in grey (one channel) or RGB (three). Pure."""
    if pixels.shape[-1] == channels:
        return pixels
    return _pixels(_image(pixels).convert("L" if channels == 1 else "RGB"))


def _decoded(path: Path) -> tuple[Image.Image, list[str]]:
    """The upright image in 8 bits (mode L, RGB or RGBA), and what was done for that."""
    _check_file(path)
    known = [name for name in FORMATS if name in _known_formats()]
    try:
        with warnings.catch_warnings():
            # Of large sizes, for which the limit is ours, and of tags that nobody reads.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=known) as file:
                _check_size(path, file.size, path.stat().st_size)
                # Asked first: of a TIFF it is gone once the pixels are loaded, and turned.
                turned = file.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
                file.load()
                image, steps = _plain_mode(file)
                return image, ["turned upright", *steps] if turned else steps
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(path, "even more") from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"An image must be a file of a common kind (PNG, JPEG, GIF, BMP, TIFF, WebP ...). "
            f"Received: {path}, which is none of them. Convert it to PNG or JPEG.",
            reason="is in no image format that is read",
        ) from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over.
        raise InputError(
            f"An image must be readable to its end. Received: {path}, which is truncated, "
            f"corrupt or of a rare kind ({type(error).__name__}: {error}). Save it again as PNG "
            "or JPEG.",
            reason=str(error),
        ) from error


def _check_file(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError:
        pass  # Said below.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _no_file(path, f"cannot be read ({reason})", "Check its name.") from None
    if path.is_dir():
        raise _no_file(path, "is a folder", "Name the files in it.")
    if not path.exists():
        raise _no_file(path, "does not exist", "Check its name.")
    if not path.is_file():
        raise _no_file(path, "is no regular file", "Save it as one.")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(
            f"{_FILE_RULE} Received: {path} ({error.strerror}). Allow it to be read, or name a "
            "copy.",
            reason=str(error.strerror),
        ) from error
    if empty:
        raise _no_file(path, "is empty", "Save the image again.")


def _no_file(path: Path, reason: str, way_out: str) -> InputError:
    return InputError(f"{_FILE_RULE} Received: {path}, which {reason}. {way_out}", reason=reason)


def _check_size(path: Path, size: tuple[int, int], num_bytes: int) -> None:
    """Raises InputError for a size that a file's head must not claim."""
    width, height = size
    if width < 1 or height < 1:
        raise InputError(
            f"An image must have at least one pixel. Received: {path} of {width}x{height}. Save "
            "it again.",
            reason=f"of {width}x{height}",
        )
    if width * height > MAX_PIXELS:
        raise _too_large(path, f"{width}x{height}")
    if width * height > max(EXPANSION_FLOOR, MAX_EXPANSION * num_bytes):
        raise InputError(
            f"An image of more than {EXPANSION_FLOOR // 1_000_000} million pixels must have at "
            f"most {MAX_EXPANSION:,} for each byte of its file. Received: {path}, which claims "
            f"{width}x{height} in {num_bytes:,} bytes. Scale it down, or save it as JPEG.",
            reason=f"claims {width}x{height} in {num_bytes:,} bytes",
        )


def _too_large(path: Path, found: str) -> InputError:
    return InputError(
        f"An image must have at most {MAX_PIXELS // 1_000_000} million pixels. Received: {path}, "
        f"which claims {found}. Scale it down.",
        reason=f"claims {found}",
    )


def _known_formats() -> Sequence[str]:
    Image.init()
    return list(Image.OPEN)


def _plain_mode(file: Image.Image) -> tuple[Image.Image, list[str]]:
    steps = []
    image = ImageOps.exif_transpose(file)
    if getattr(file, "is_animated", False):
        steps.append("the first of several frames")
    if image.mode.startswith("I"):
        steps.append("16 bits to 8")
        return _from_sixteen_bits(image), steps
    if image.mode == "F":
        # Nothing says what is black and what is white in floating-point numbers.
        raise ValueError("its pixels are floating-point numbers")
    if image.has_transparency_data:
        return image.convert("RGBA"), steps
    if image.mode in ("1", "L"):
        return image.convert("L"), steps
    return image.convert("RGB"), steps


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits; mode I holds them as well (PGM), in 32 of which the rest must be unused."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > WHITE * SIXTEEN_TO_EIGHT:
        raise ValueError("its pixels have more than 16 bits")
    return Image.fromarray(np.round(values / SIXTEEN_TO_EIGHT).astype(np.uint8))


def _without_transparency(
    image: Image.Image, background: Background | None, steps: list[str]
) -> np.ndarray:
    """Pixels (height, width, 1 or 3); what is transparent shows the background of the data.

    Where what is visible would hardly stand out from it (black ink without paper, and data on
    black), the opposite is taken.
    """
    if image.mode != "RGBA":
        return _pixels(image)
    alpha = np.asarray(image.getchannel("A"), np.float32)
    if (alpha == WHITE).all():
        return _pixels(image.convert("RGB"))
    paper = BLACK if background == "dark" else WHITE
    shades = np.asarray(image.convert("RGB").convert("L"), np.float32)
    if alpha.any() and float(np.average(np.abs(shades - paper), weights=alpha)) < DARK:
        paper = WHITE - paper
    steps.append(f"put on {'black' if paper == BLACK else 'white'} where it is transparent")
    ground = Image.new("RGBA", image.size, (paper, paper, paper, WHITE))
    return _pixels(Image.alpha_composite(ground, image).convert("RGB"))


def _pixels(image: Image.Image) -> np.ndarray:
    """Pixels (height, width, channels) of an image in mode L or RGB."""
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


def _image(pixels: np.ndarray) -> Image.Image:
    """The reverse of `_pixels`."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
