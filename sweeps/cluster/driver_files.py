"""The files of a job at the driver: what it begins with, and what comes back from its node."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.runtime.filesystem import replaced_atomically
from sweeps.cluster.node_files import LOG_FILE, UNFINISHED
from sweeps.cluster.protocol import HostEvent, StartJob


def files_of(folder: Path) -> dict[str, bytes]:
    """The files that a job begins with."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != LOG_FILE and path.suffix != UNFINISHED
    }


def write_back(job: StartJob, found: HostEvent) -> None:
    """Writes what a job left; its folder may have been removed, then nobody needs it."""
    folder = Path(job.folder)
    if job.folder and folder.is_dir():
        for name, content in found.files.items():
            with replaced_atomically(folder / name) as file:
                file.write(content)
    if found.log and Path(job.log_path).parent.is_dir():
        handle = os.open(job.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        with open(handle, "ab") as file:
            file.write(found.log)
