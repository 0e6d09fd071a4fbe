"""Options that several commands have, and what they mean."""

from __future__ import annotations

import argparse

from pipelines.images.options import BROKEN, COLORS, RESIZES, ImageOptions
from sweeps.cli.option_types import image_size


def add_sweep_options(parser: argparse.ArgumentParser) -> None:
    """The options by which a command finds a sweep and its stores."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="the sweep (default: the one that began last)"
    )
    parser.add_argument(
        "--work-dir",
        default=".sweeps",
        metavar="DIR",
        help="where the sweep's files are (default: %(default)s)",
    )
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow server or database (default: the sweep's own)"
    )


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
