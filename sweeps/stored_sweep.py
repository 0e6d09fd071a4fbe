"""A sweep on disk, opened by another command than the one that drives it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import InputError
from search_spaces.registry import get_space
from sweeps.settings import SweepPaths
from sweeps.sweep_file import SweepFile, find_sweep, read_sweep_file
from tracking.stores import resolve_uri

if TYPE_CHECKING:
    from tracking.mlflow_tracker import MlflowTracker
    from tracking.spool import Spool


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


@dataclass(frozen=True)
class StoredSweep:
    """Where a sweep is and what it says of itself."""

    paths: SweepPaths
    file: SweepFile

    @property
    def uri(self) -> str:
        """The tracking store."""
        return resolve_uri(self.file.settings.tracking_uri)

    def tracker(self, spool: Spool) -> MlflowTracker:
        """The opened tracking store.

        Raises:
            InputError: It cannot be used.
        """
        from tracking.mlflow_tracker import MlflowTracker

        space = get_space(self.file.settings.space)
        experiment = self.file.settings.experiment or f"{space.name}-{self.file.data_name}"
        tracker = MlflowTracker(self.uri, experiment, spool.folder_of, spool.answers())
        for record in spool.replay():
            tracker.knows(record)  # type: ignore[arg-type]  # The first is the sweep's own.
            break
        return tracker


def stored_sweep(arguments: argparse.Namespace) -> StoredSweep:
    """The sweep that parsed options mean; its storage is asked for only by commands that need it.

    Raises:
        InputError: There is none of that name, or an address with a password must be given again.
    """
    paths = find_sweep(Path(arguments.work_dir), arguments.name, finished=True)
    file = read_sweep_file(paths.state)
    settings = replace(
        file.settings,
        tracking_uri=arguments.tracking_uri or file.settings.tracking_uri,
        storage=getattr(arguments, "storage", None) or file.settings.storage,
    )
    needed = [name for name in ("tracking_uri", "storage") if name in vars(arguments)]
    for option in needed:
        if "***" in (getattr(settings, option) or ""):
            raise InputError(
                f"--{option.replace('_', '-')} holds a password, which is not stored. Received: "
                f"{getattr(settings, option)}. Give the whole address."
            )
    return StoredSweep(paths, replace(file, settings=settings))
