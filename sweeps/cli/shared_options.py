"""Options that several commands have, and how argparse reads the values of all options."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.images.options import BROKEN, COLORS, RESIZES, ImageOptions
from sweeps.option_values import SCHEMAS, Read, ValueRuleError, image_size, positive_int
from sweeps.options import OPTIONS
from sweeps.settings import DEFAULT_NUM_FINALISTS, DEFAULT_NUM_SEEDS, RETRAIN
from sweeps.state.sweep_file import StoredSweep, stored_sweep


def argument_type(read: Read) -> Read:
    """Reads a value as `read`, with the errors that argparse understands."""
    return partial(_read, read)


def type_of(option: str) -> Read:
    """The type of a sweep's option, by its name with underscores."""
    return argument_type(OPTIONS[option].read)


def _read(read: Read, text: str) -> Any:
    try:
        return read(text)
    except ValueRuleError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def schema_of(action: argparse.Action) -> dict[str, Any]:
    """The JSON schema of an option's value."""
    if action.choices is not None:
        return {"enum": list(action.choices)}
    read = action.type.args[0] if isinstance(action.type, partial) else action.type
    return SCHEMAS.get(read, {"type": "string"})  # type: ignore[arg-type]


def add_sweep_options(parser: argparse.ArgumentParser) -> None:
    """The options by which a command finds a sweep and its stores."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="the sweep (default: the latest)")
    parser.add_argument(
        "--work-dir",
        default=".sweeps",
        metavar="DIR",
        help="folder of the sweep's files (default: %(default)s)",
    )
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow server or database (default: the sweep's own)"
    )


def sweep_named_by(arguments: argparse.Namespace, kind: str | None = None) -> StoredSweep:
    """Returns the sweep that parsed options name.

    Raises:
        InputError: As `stored_sweep`.
    """
    return stored_sweep(
        Path(arguments.work_dir),
        arguments.name,
        tracking_uri=arguments.tracking_uri,
        storage=getattr(arguments, "storage", None),
        # Only a command with that option opens the study.
        needed=[name for name in ("tracking_uri", "storage") if name in vars(arguments)],
        kind=kind,
    )


def add_finalist_options(parser: argparse.ArgumentParser, default: int | None) -> None:
    """Adds the options of a comparison of finalists, which `run` and `finalize` have.

    Args:
        default: finalists without the option; None for what the sweep was given.
    """
    group = parser.add_argument_group("finalists (retrained on fresh seeds)")
    none = "" if default is None else ", or none without the option"
    group.add_argument(
        "--finalists",
        type=argument_type(positive_int),
        nargs="?",
        const=DEFAULT_NUM_FINALISTS,
        default=default,
        metavar="K",
        help=f"compare the best K configurations (default: {DEFAULT_NUM_FINALISTS}{none})",
    )
    group.add_argument(
        "--finalist-seeds",
        type=argument_type(positive_int),
        default=None if default is None else DEFAULT_NUM_SEEDS,
        metavar="S",
        help=f"fresh seeds per finalist, at least 2 (default: {DEFAULT_NUM_SEEDS})",
    )
    group.add_argument(
        "--retrain",
        choices=RETRAIN,
        default=None if default is None else "none",
        help="all: train the winner again on all training data, validation included, for the "
        "epochs that validation chose, and keep that model (default: none)",
    )


def add_image_options(parser: argparse._ActionsContainer) -> None:
    """Adds the four options to a parser or a group of one."""
    default = ImageOptions()
    parser.add_argument(
        "--image-size",
        type=argument_type(image_size),
        metavar="HxW",
        help="height and width of all images (default: their own if all are alike, else one that "
        "is printed)",
    )
    parser.add_argument(
        "--resize",
        choices=RESIZES,
        default=default.resize,
        help="fit pads the whole image, crop keeps its middle, stretch changes its proportions "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--color",
        choices=COLORS,
        default=default.color,
        help="channels: auto is grey if every image is (default: %(default)s)",
    )
    parser.add_argument(
        "--broken",
        choices=BROKEN,
        default=default.broken,
        help="images that cannot be read: refuse the data set, or skip them (default: %(default)s)",
    )


def image_options(arguments: argparse.Namespace) -> ImageOptions:
    """The options that a parsed command line holds."""
    return ImageOptions(arguments.image_size, arguments.resize, arguments.color, arguments.broken)
