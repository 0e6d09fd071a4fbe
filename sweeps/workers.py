"""Starts the server that a command's worker processes are forked from, with Keras on a backend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.compute import choose_backend

if TYPE_CHECKING:
    from sweeps.executors.processes import ProcessExecutor

_served: list[str] = []
"""The backend of this process' server of workers: there is one server, for good."""


def start_workers(server_log: Path, backend: str = "tensorflow") -> ProcessExecutor:
    """An executor whose processes have Keras on that backend.

    Its server is shared by all executors of this process. A second backend, which a command needs
    that compares models of two, gets processes that import for themselves: seconds each.

    Raises:
        InputError: There is no such backend here.
    """
    from sweeps.executors.processes import ProcessExecutor

    choose_backend(backend)  # What is started from now on inherits it.
    if not _served:
        _served.append(backend)
    if _served[0] == backend:
        return ProcessExecutor("sweeps.preload", server_log)
    return ProcessExecutor("sweeps.preload", server_log, "spawn")
