"""What a user's own source holds, ready to be streamed: labels at once, pixels piece by piece."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from PIL import ExifTags, Image

from pipelines.data.array_files import ArrayFile
from pipelines.data.custom.listing import PictureList
from pipelines.data.custom.pixel_scale import as_bytes, scale_factors
from pipelines.data.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    alike_numbers,
    check_names,
    classes_of,
    some,
)
from pipelines.images.options import MIN_SIDE, ImageOptions, Resize
from pipelines.images.reading import FORMATS, framed_pixels, in_channels, read_pixels
from search_spaces.errors import InputError
from search_spaces.space import Shape

DEFAULT_SIDE = 64
"""At most so many pixels where images differ in size and nothing was asked for: what a small
network on a few cores can learn from, and `--image-size` is one option away."""
MAX_COMMON_SIDE = 256
"""Images of one common size keep it up to here; those of a camera would not fit any memory."""
PICTURES_AT_ONCE = 64
MAX_ARRAY_PIXELS = 4_096**2
"""Of one image in an array: rows are read whole."""
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
Pieces = Iterator[tuple[np.ndarray, np.ndarray]]
"""Numbers of rows (k,), ascending, and their pixels (k, height, width, channels) uint8."""


@dataclass(frozen=True)
class Content:
    """A labelled set of images that is not in memory.

    Attributes:
        labels: (n,) int64; `given` (n,) int8 the part of each.
        pieces: reads the pixels, in order; rows of broken images do not come.
        broken: what could not be read, a phrase each; complete when `pieces` is at its end.
        notes: what else people should know, a phrase each.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    given: np.ndarray
    input_shape: Shape
    pieces: Callable[[], Pieces]
    broken: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Head:
    """What an image's first bytes say."""

    size: tuple[int, int]
    grey: bool


def picture_content(
    listed: PictureList,
    options: ImageOptions,
    origin: str,
    say: Callable[[int, int], None] = lambda *_: None,
) -> Content:
    """The images of a list; their sizes are read at once, their pixels when they are asked for.

    Args:
        say: called with the number of files that were looked at, and how many there are.

    Raises:
        InputError: No classes, or nothing that is an image.
    """
    labels, names = classes_of(np.array(listed.labels), origin)
    heads: list[_Head | None] = []
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for done, path in enumerate(listed.paths, start=1):
            heads.append(_head(path))
            if done % PICTURES_AT_ONCE == 0 or done == len(listed.paths):
                say(done, len(listed.paths))
    known = [head for head in heads if head is not None]
    if not known:
        first = _unreadable(listed.paths[0])
        raise InputError(
            f"A data set must hold images. Received: {origin}, in which none of "
            f"{len(heads):,} files can be read as one{f'; the first: {first}' if first else ''}. "
            "Check the files."
        )
    size, note = _frame([head.size for head in known], options)
    grey = options.color == "grey" or (options.color == "auto" and all(h.grey for h in known))
    shape = (*size, 1 if grey else 3)
    # Known before anything is split: what has no head has no pixels either.
    readable = np.array([head is not None for head in heads])
    paths = [path for path, good in zip(listed.paths, readable, strict=True) if good]
    headless = [path for path, good in zip(listed.paths, readable, strict=True) if not good]
    broken: list[str] = []

    def pieces() -> Pieces:
        for _ in _decoded(headless, shape, cast(Resize, options.resize), broken):
            raise RuntimeError("an image without a head was decoded")  # It changed meanwhile.
        yield from _decoded(paths, shape, cast(Resize, options.resize), broken)

    notes = (*listed.notes, *([note] if note else []), *alike_numbers(names))
    given = listed.given[readable]
    return Content(labels[readable], names, given, shape, pieces, broken, notes)


def array_content(arrays: dict[str, ArrayFile], options: ImageOptions, origin: str) -> Content:
    """Arrays `x_train`, `y_train` and perhaps `x_val`, `y_val`, `x_test`, `y_test`; or `x`, `y`.

    Raises:
        InputError: Something is missing, or is not images with labels.
    """
    pairs = _pairs(arrays, origin)
    values = [pair[1].whole() for pair in pairs.values()]
    try:
        joined = np.concatenate(values)
    except ValueError as error:
        raise InputError(
            f"All labels must be of one form. Received: shapes {[v.shape for v in values]} in "
            f"{origin}."
        ) from error
    labels, names = classes_of(joined, origin)
    names = _given_names(arrays, joined, names, origin)
    if "class_names" in arrays and joined.dtype.kind in "iu":
        labels = joined.reshape(-1).astype(np.int64)  # Named classes keep their numbers.
    given = np.concatenate([
        np.full(len(y), part, np.int8) for part, y in zip(pairs, values, strict=True)
    ])  # fmt: skip
    pixels = [pair[0] for pair in pairs.values()]
    own_shape = _pixel_shape(pixels, origin)
    factors, scale_notes = scale_factors(pixels, origin)
    size = options.size or own_shape[:2]
    grey = options.color == "grey" or (options.color == "auto" and own_shape[2] == 1)
    shape = (*size, 1 if grey else 3)

    def pieces() -> Pieces:
        first = 0
        for file, factor in zip(pixels, factors, strict=True):
            for rows in file.rows():
                plain = as_bytes(rows.reshape(len(rows), *own_shape), factor)
                yield (
                    np.arange(first, first + len(rows)),
                    _framed(plain, shape, cast(Resize, options.resize)),
                )
                first += len(rows)

    notes = (*alike_numbers(names), *scale_notes)
    return Content(labels, names, given, shape, pieces, notes=notes)


# Images


def _head(path: Path) -> _Head | None:
    """What an image says of itself; None where it does not, which decoding will explain."""
    try:
        if not path.is_file():
            return None  # Opening a pipe would wait for its other end.
        with Image.open(path, formats=[n for n in FORMATS if n in Image.OPEN]) as file:
            width, height = file.size
            if file.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9):
                width, height = height, width
            return _Head((height, width), _is_grey(file))
    except Exception:  # Pillow's decoders raise whatever they stumble over.
        return None


def _is_grey(file: Image.Image) -> bool:
    if file.mode == "P":
        palette = np.array(file.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return file.mode in GREY_MODES


def _frame(sizes: Sequence[tuple[int, int]], options: ImageOptions) -> tuple[tuple[int, int], str]:
    """Height and width for all, and what to say where they were chosen for the user."""
    if options.size is not None:
        return options.size, ""
    if len(set(sizes)) == 1 and MIN_SIDE <= min(sizes[0]) <= max(sizes[0]) <= MAX_COMMON_SIDE:
        return sizes[0], ""
    sides = np.sort([min(size) for size in sizes])
    side = int(np.clip(sides[len(sides) // 2], 8, DEFAULT_SIDE))
    small, large = min(sizes), max(sizes)
    how = {"fit": "fitted into", "crop": "cropped to", "stretch": "stretched to"}[options.resize]
    span = f"{small[0]}x{small[1]}"
    if large != small:
        span = f"{len(set(sizes)):,} sizes ({span} to {large[0]}x{large[1]})"
    note = f"images of {span} are {how} {side}x{side}; --image-size HxW asks for another"
    return (side, side), note


def _decoded(paths: Sequence[Path], shape: Shape, resize: Resize, broken: list[str]) -> Pieces:
    """The images in their order, decoded by as many threads as there are cores."""
    import joblib

    def decode(path: Path) -> np.ndarray | InputError:
        try:
            return framed_pixels(read_pixels(path, shape[2]), shape, resize)
        except InputError as error:
            return error

    # Around all threads: the filters of warnings are one per process.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, joblib.cpu_count())) as pool:
        for first in range(0, len(paths), PICTURES_AT_ONCE):
            some_paths = paths[first : first + PICTURES_AT_ONCE]
            rows, pixels = [], []
            for row, found in enumerate(pool.map(decode, some_paths), start=first):
                if isinstance(found, InputError):
                    broken.append(_reason(paths[row], found))
                else:
                    rows.append(row)
                    pixels.append(found)
            if rows:
                yield np.array(rows), np.stack(pixels)


def _unreadable(path: Path) -> str:
    """Why a file is no image."""
    try:
        read_pixels(path, 1)
    except InputError as error:
        return _reason(path, error)
    return ""


def _reason(path: Path, error: InputError) -> str:
    """`cats/7.jpg (truncated ...)`: the file, and what is wrong with it."""
    place = Path(*path.parts[-2:])
    return f"{place} ({error.reason})" if error.reason else str(place)


# Arrays


def _pairs(arrays: dict[str, ArrayFile], origin: str) -> dict[int, tuple[ArrayFile, ArrayFile]]:
    """Part -> pixels and labels."""
    forms = {
        TRAIN: [("x_train", "y_train"), ("x", "y")],
        VALIDATION: [("x_val", "y_val"), ("x_validation", "y_validation"), ("x_valid", "y_valid")],
        TEST: [("x_test", "y_test")],
    }
    pairs = {}
    for part, names in forms.items():
        for x, y in names:
            if x in arrays and y in arrays and part not in pairs:
                pairs[part] = arrays[x], arrays[y]
            elif x in arrays or y in arrays:
                there, lacks = (x, y) if x in arrays else (y, x)
                what = "Labels without images" if lacks == x else "Images without labels"
                raise InputError(
                    f"{what} cannot be used. Received: {there} without {lacks} in {origin}, or "
                    "the same part twice. Give both once."
                )
    if TRAIN not in pairs:
        raise InputError(
            "Arrays must be x_train and y_train (and x_val, y_val, x_test, y_test), or x and y. "
            f"Received: {some(sorted(arrays)) or 'nothing'} in {origin}. Rename them."
        )
    for pixels, labels in pairs.values():
        num_pixels, num_labels = (f.shape[0] if f.shape else 0 for f in (pixels, labels))
        if num_pixels != num_labels or num_pixels == 0:
            raise InputError(
                f"There must be one label per image. Received: {num_pixels:,} images "
                f"({pixels.name}) and {num_labels:,} labels. Make them match."
            )
    return pairs


def _given_names(
    arrays: dict[str, ArrayFile], values: np.ndarray, found: tuple[str, ...], origin: str
) -> tuple[str, ...]:
    """The class names: those in `class_names` for labels from 0, else what the labels say."""
    if "class_names" not in arrays:
        return found
    if not arrays["class_names"].shape:
        raise InputError(
            f"class_names must be an array of names. Received: a single value in {origin}. Write "
            "them as a list."
        )
    names = tuple(str(name) for name in arrays["class_names"].whole().reshape(-1).tolist())
    whole = values.dtype.kind in "iu" and (values.ndim == 1 or values.shape[1] == 1)
    if not whole or values.min() < 0 or values.max() >= len(names):
        raise InputError(
            "class_names must have a name for every label, which are whole numbers from 0. "
            f"Received: {len(names)} names for labels {some(found)} in {origin}. Leave class_names "
            "out, or name all."
        )
    check_names(names, origin)
    missing = [names[k] for k in range(len(names)) if not (values == k).any()]
    if missing:
        raise InputError(
            f"Every class must have images. Received: class_names with {some(missing)} in "
            f"{origin}, which no image has. Leave these names out and number the rest from 0."
        )
    return names


def _pixel_shape(pixels: Sequence[ArrayFile], origin: str) -> Shape:
    """Height, width, channels that all arrays share."""
    shapes = {file.shape[1:] for file in pixels}
    kinds = {file.dtype.kind for file in pixels}
    if kinds - set("biuf"):
        found = ", ".join(sorted({str(file.dtype) for file in pixels}))
        raise InputError(
            f"Pixels must be numbers. Received: {found} in {origin}. Convert them to uint8."
        )
    (shape, *others) = shapes
    plain = (*shape, 1) if len(shape) == 2 else shape
    if others or len(plain) != 3 or plain[2] not in (1, 3) or min(plain) < 1:
        listed = ", ".join(str(file.shape) for file in pixels)
        raise InputError(
            "Images must be of shape (n, height, width), or (n, height, width, channels) with 1 "
            f"or 3 channels, alike in every part. Received: {listed} in {origin}. Reshape them."
        )
    if plain[0] * plain[1] > MAX_ARRAY_PIXELS:
        raise InputError(
            f"Images in arrays must have at most {MAX_ARRAY_PIXELS:,} pixels each. Received: "
            f"{plain[0]:,}x{plain[1]:,} in {origin}. Scale them down."
        )
    if min(plain[:2]) < 2:
        raise InputError(
            f"Images must be at least 2x2 pixels. Received: {plain[0]}x{plain[1]} in {origin}."
        )
    return plain[0], plain[1], plain[2]


def _framed(pixels: np.ndarray, shape: Shape, resize: Resize) -> np.ndarray:
    if pixels.shape[1:] == shape:
        return pixels
    return np.stack([
        framed_pixels(in_channels(image, shape[2]), shape, resize) for image in pixels
    ])  # fmt: skip
