"""Options that several commands have, and how argparse reads the values of all options."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.images.options import BROKEN, COLORS, RESIZES, ImageOptions
from search_spaces.errors import InputError
from sweeps.option_values import (
    SCHEMAS,
    Read,
    ValueRuleError,
    image_size,
    names,
    natural_int,
    path,
    positive_int,
)
from sweeps.options import OPTIONS
from sweeps.settings import DEFAULT_NUM_FINALISTS, DEFAULT_NUM_SEEDS, RETRAIN
from sweeps.state.lock import is_driven
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import (
    StoredSweep,
    find_sweep,
    passing,
    read_sweep_file,
    stored_sweep,
)

if TYPE_CHECKING:
    from sweeps.history.recorded_sweep import RecordedSweep


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
        type=argument_type(path),
        default=".sweeps",
        metavar="DIR",
        help="folder of the sweep's files (default: %(default)s)",
    )
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow server or database (default: the sweep's own)"
    )


def add_work_dir(parser: argparse.ArgumentParser) -> None:
    """The folder in which a command finds sweeps."""
    parser.add_argument(
        "--work-dir",
        type=argument_type(path),
        default=".sweeps",
        metavar="DIR",
        help="folder of the sweeps' files (default: %(default)s)",
    )


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """The options of a command that reads what sweeps have recorded."""
    add_work_dir(parser)
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="read from this MLflow server instead"
    )


def add_name(parser: argparse.ArgumentParser) -> None:
    """The sweep of a command that reads or steers one."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="the sweep (default: the latest)")


trial_number = argument_type(natural_int)
"""The type of a trial's number."""


def recorded_sweep(arguments: argparse.Namespace) -> RecordedSweep:
    """What the sweep that parsed options name has recorded.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    return recorded_named(arguments, arguments.name)


def recorded_named(arguments: argparse.Namespace, name: str | None) -> RecordedSweep:
    """The same for a sweep by its name; None for the one that began last."""
    from sweeps.history.recorded_sweep import read_sweep

    if arguments.tracking_uri is not None:
        from sweeps.history.server import sweep_on_server

        return sweep_on_server(arguments.tracking_uri, name)
    return read_sweep(find_sweep(check_work_dir(arguments), name, finished=True))


def running_sweep(arguments: argparse.Namespace) -> SweepPaths:
    """Where requests to the sweep that parsed options name are left.

    Raises:
        InputError: There is none, or no process drives it.
    """

    paths = find_sweep(check_work_dir(arguments), arguments.name, finished=True)
    if not is_driven(paths):
        is_over = read_sweep_file(paths.state).is_finished
        raise InputError(
            f"Sweep '{paths.name}' is not running{' any more' if is_over else ''}. `keras-sweeps "
            f"list` shows what is{'' if is_over else f'; continue it with {_resume(paths)}'}."
        )
    # Its search has ended: what runs now are its finalists.
    return paths.finalists if read_sweep_file(paths.state).is_finished else paths


def _resume(paths: SweepPaths) -> str:
    return f"`keras-sweeps run --resume --name {paths.name}`"


def check_work_dir(arguments: argparse.Namespace) -> Path:
    """Returns the work folder.

    Raises:
        InputError: One was given that does not exist.
    """
    folder = Path(arguments.work_dir)
    if "work_dir" in arguments.given and not folder.is_dir():
        raise InputError(
            f"--work-dir must be an existing folder. Received: {folder}. It is the one that the "
            "sweep was started with, .sweeps where nothing else was said."
        )
    return folder


def sweep_named_by(arguments: argparse.Namespace, kind: str | None = None) -> StoredSweep:
    """Returns the sweep that parsed options name.

    Raises:
        InputError: As `stored_sweep`.
    """
    sweep = stored_sweep(
        Path(arguments.work_dir),
        arguments.name,
        tracking_uri=arguments.tracking_uri,
        storage=getattr(arguments, "storage", None),
        # Only a command with that option opens the study.
        needed=[name for name in ("tracking_uri", "storage") if name in vars(arguments)],
        kind=kind,
    )
    return passing(sweep, passed_names(arguments)) if "pass_env" in vars(arguments) else sweep


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


def add_pass_env_option(
    parser: argparse._ActionsContainer, default: str = "those that the sweep was started with"
) -> None:
    """Adds the option of a command in which a custom space's code runs.

    Promotions have none: their workers load models without code. A data function keeps everything.

    Args:
        default: what holds without the option, as the help says it.
    """
    parser.add_argument(
        "--pass-env",
        metavar="NAMES",
        help="environment variables, separated by commas, that trials and custom spaces get "
        f"although their names look like those of credentials: HF_TOKEN (default: {default})",
    )


def passed_names(arguments: argparse.Namespace) -> tuple[str, ...] | None:
    """The names that the option gives; None without it."""
    text: str | None = arguments.pass_env
    return None if text is None else names(text)


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
