"""How a user's own pictures become the arrays of one shape that a model takes: the options."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from search_spaces.errors import InputError, unknown_name

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
        image_size: `HxW` in pixels; None for the common size of the pictures, or a chosen one.
        resize: `fit` keeps the whole picture and pads it, `crop` keeps its middle, `stretch`
            changes its proportions.
        color: `grey` is one channel, `rgb` three; `auto` is grey where every picture is.
        broken: what happens where a picture cannot be read.
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
            except argparse.ArgumentTypeError as error:
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
    """`64x64` (height x width), or `64` for a square."""
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", text)
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in (height, width)):
        raise argparse.ArgumentTypeError(
            f"must be height x width in pixels, {MIN_SIDE} to {MAX_SIDE} each, such as 64x64. "
            f"Received: {text!r}"
        )
    return f"{height}x{width}"


def add_image_options(parser: argparse._ActionsContainer) -> None:
    """Adds the four options to a parser or a group of one."""
    default = ImageOptions()
    parser.add_argument(
        "--image-size",
        type=image_size,
        metavar="HxW",
        help="height and width that every picture gets (default: their own where all agree, else "
        "one that is said)",
    )
    parser.add_argument(
        "--resize",
        choices=RESIZES,
        default=default.resize,
        help="fit keeps all of a picture and pads it, crop keeps the middle, stretch changes its "
        "proportions (default: %(default)s)",
    )
    parser.add_argument(
        "--color",
        choices=COLORS,
        default=default.color,
        help="channels: auto is grey where every picture is (default: %(default)s)",
    )
    parser.add_argument(
        "--broken",
        choices=BROKEN,
        default=default.broken,
        help="pictures that cannot be read: refuse the data set, or skip them (default: "
        "%(default)s)",
    )


def image_options(arguments: argparse.Namespace) -> ImageOptions:
    """The options that a parsed command line holds."""
    return ImageOptions(arguments.image_size, arguments.resize, arguments.color, arguments.broken)
