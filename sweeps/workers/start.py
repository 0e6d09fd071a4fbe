"""Starts the server that a command's worker processes are forked from, with Keras on a backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.runtime.compute import choose_backend

if TYPE_CHECKING:
    from sweeps.executors.base import Slot
    from sweeps.executors.processes import ProcessExecutor

_served: list[str] = []
"""The backend of this process' server of workers: there is one server, for good."""


def start_workers(
    server_log: Path, backend: str = "tensorflow", warm_up: Callable[[Slot], None] | None = None
) -> ProcessExecutor:
    """An executor whose processes have Keras on that backend.

    Its server is shared by all executors of this process. A second backend, which a command needs
    that compares models of two, gets processes that import for themselves: seconds each.

    Args:
        warm_up: starts the device of a slot, in a spare process, before a trial needs it.

    Raises:
        InputError: There is no such backend here.
    """
    from sweeps.executors.processes import ProcessExecutor

    choose_backend(backend)  # What is started from now on inherits it.
    if not _served:
        _served.append(backend)
    method = None if _served[0] == backend else "spawn"
    return ProcessExecutor("sweeps.workers.preload", server_log, method, warm_up=warm_up)
