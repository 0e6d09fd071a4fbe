"""Options that several commands have, and the types of all options.

Each type states its rule, what it received, and what is possible.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pipelines.images import options as images
from pipelines.images.options import BROKEN, COLORS, RESIZES, ImageOptions
from search_spaces.errors import InputError
from sweeps.engines.pruners.rungs import parse_min_epochs
from sweeps.settings import DEFAULT_NUM_FINALISTS, DEFAULT_NUM_SEEDS, RETRAIN
from sweeps.state.sweep_file import StoredSweep, stored_sweep

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, 1)


def natural_int(text: str) -> int:
    """A whole number of at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least or value > 2**31 - 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least {least}. Received: {text!r}"
        )
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    return _number(text, "a number from 0 to 1", lambda value: 0 <= value <= 1)


def level(text: str) -> float:
    """A level of significance: above 0 and at most 0.5."""
    return _number(text, "a number above 0 and at most 0.5", lambda value: 0 < value <= 0.5)


def margin(text: str) -> float:
    """A tolerated loss of accuracy: above 0 and below 0.5."""
    return _number(text, "a number above 0 and below 0.5", lambda value: 0 < value < 0.5)


def positive_number(text: str) -> float:
    """A number above 0."""
    return _number(text, "a number above 0", lambda value: 0 < value < float("inf"))


def _number(text: str, rule: str, holds: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not holds(value):
        raise argparse.ArgumentTypeError(f"must be {rule}. Received: {text!r}")
    return value


def or_auto(convert: Callable[[str], int]) -> Callable[[str], int | None]:
    """Accepts `auto` for None beside what `convert` accepts."""

    def parse(text: str) -> int | None:
        if text == "auto":
            return None
        try:
            return convert(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error} ('auto' is possible too)") from None

    _SCHEMAS[parse] = {"anyOf": [_SCHEMAS[convert], {"const": "auto"}]}
    return parse


def first_rung(text: str) -> int | str | None:
    """A number of epochs, a fraction of one such as `1/9`, or `auto`."""
    if text == "auto":
        return None
    try:
        found = parse_min_epochs(text)
    except InputError as error:
        rule = str(error).removeprefix("--min-epochs ").rstrip(".")
        raise argparse.ArgumentTypeError(rule) from None
    return int(found) if found >= 1 else str(found)


def timeout(text: str) -> float | Literal["auto"] | None:
    """`90`, `90s`, `15m`, `2h` in seconds, `none` for no limit, or `auto`."""
    if text == "none":
        return None
    if text == "auto":
        return "auto"
    return _seconds(text, "none")


def duration_or_auto(text: str) -> float | None:
    """`90`, `90s`, `15m`, `2h` in seconds, or None for `auto`."""
    return None if text == "auto" else _seconds(text, "auto")


def _seconds(text: str, other: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(
            f"must be a positive duration such as 90s, 15m or 2h, or {other}. Received: {text!r}"
        )
    return seconds


def image_size(text: str) -> str:
    """`64x64` (height x width), or `64` for a square."""
    try:
        return images.image_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


_DURATION = {"type": ["string", "number"], "pattern": r"^(\d+(\.\d+)?[smh]?|none|auto)$"}
_SCHEMAS: dict[Callable[[str], Any], dict[str, Any]] = {
    first_rung: {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]},
    positive_int: {"type": "integer", "minimum": 1},
    natural_int: {"type": "integer", "minimum": 0},
    level: {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
    margin: {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
    fraction: {"type": "number", "minimum": 0, "maximum": 1},
    positive_number: {"type": "number", "exclusiveMinimum": 0},
    timeout: _DURATION,
    duration_or_auto: _DURATION,
}


def schema_of(action: argparse.Action) -> dict[str, Any]:
    """The JSON schema of an option's value."""
    if action.choices is not None:
        return {"enum": list(action.choices)}
    return _SCHEMAS.get(action.type, {"type": "string"})  # type: ignore[arg-type]


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
        type=positive_int,
        nargs="?",
        const=DEFAULT_NUM_FINALISTS,
        default=default,
        metavar="K",
        help=f"compare the best K configurations (default: {DEFAULT_NUM_FINALISTS}{none})",
    )
    group.add_argument(
        "--finalist-seeds",
        type=positive_int,
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
        type=image_size,
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
