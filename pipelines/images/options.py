"""How a user's own images become the arrays of one shape that a model takes: the options."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from search_spaces.errors import InputError, shown, unknown_name

Resize = Literal["fit", "crop", "stretch"]
Color = Literal["auto", "grey", "rgb"]
Broken = Literal["refuse", "skip"]
RESIZES: tuple[Resize, ...] = get_args(Resize)
COLORS: tuple[Color, ...] = get_args(Color)
BROKEN: tuple[Broken, ...] = get_args(Broken)
MIN_SIDE, MAX_SIDE = 4, 1024


@dataclass(frozen=True)
class ImageOptions:
    """What was asked for.

    Attributes:
        image_size: `HxW` in pixels; None for the common size of the images, or a chosen one.
        resize: `fit` keeps the whole image and pads it, `crop` keeps its middle, `stretch`
            changes its proportions.
        color: `grey` is one channel, `rgb` three; `auto` is grey where every image is.
        broken: what happens where an image cannot be read.
    """

    image_size: str | None = None
    resize: str = "fit"
    color: str = "auto"
    broken: str = "refuse"

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width, where they were asked for."""
        if self.image_size is None:
            return None
        height, _, width = image_size(self.image_size).partition("x")
        return int(height), int(width)

    def check(self) -> None:
        """Raises InputError for a value that there is not."""
        for name, value, valid in (
            ("resize", self.resize, RESIZES),
            ("color", self.color, COLORS),
            ("broken", self.broken, BROKEN),
        ):
            if value not in valid:
                raise unknown_name(name, value, valid)
        if self.image_size is not None:
            try:
                image_size(self.image_size)
            except ValueError as error:
                raise InputError(f"--image-size {error}.") from error

    def given(self) -> list[str]:
        """The options that are not at their default, as they are typed."""
        default = asdict(ImageOptions())
        return [
            f"--{name.replace('_', '-')} {value}"
            for name, value in asdict(self).items()
            if value != default[name]
        ]


def image_size(text: str) -> str:
    """`64x64` (height x width) of `64x64`, or of `64` for a square.

    Raises:
        ValueError: It is no size, or one beyond the limits; the text says what it must be.
    """
    match = re.fullmatch(r"([0-9]{1,5})(?:[xX]([0-9]{1,5}))?", text)
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in (height, width)):
        raise ValueError(
            f"must be height x width in pixels, {MIN_SIDE} to {MAX_SIDE} each, such as 64x64. "
            f"Received: {shown(text)}"
        )
    return f"{height}x{width}"
