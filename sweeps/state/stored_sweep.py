"""A sweep on disk, opened by another command than the one that drives it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import (
    SweepFile,
    check_addresses,
    find_sweep,
    read_sweep_file,
    with_passwords,
)
from tracking.stores import resolve_uri


@dataclass(frozen=True)
class StoredSweep:
    """Where a sweep is and what it says of itself."""

    paths: SweepPaths
    file: SweepFile

    @property
    def uri(self) -> str:
        """The tracking store."""
        return resolve_uri(self.file.settings.tracking_uri)


def stored_sweep(arguments: argparse.Namespace, kind: str | None = None) -> StoredSweep:
    """The sweep that parsed options mean; its storage is asked for only by commands that need it.

    Raises:
        InputError: There is none of that name, or an address with a password must be given again.
    """
    paths = find_sweep(Path(arguments.work_dir), arguments.name, finished=True, kind=kind)
    file = read_sweep_file(paths.state)
    settings = replace(
        file.settings,
        tracking_uri=arguments.tracking_uri or file.settings.tracking_uri,
        work_dir=str(paths.work_dir),
        storage=getattr(arguments, "storage", None) or file.settings.storage,
    )
    settings = with_passwords(settings)
    check_addresses(settings, [n for n in ("tracking_uri", "storage") if n in vars(arguments)])
    return StoredSweep(paths, replace(file, settings=settings))
