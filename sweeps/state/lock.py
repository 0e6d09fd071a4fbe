"""The lock of the one process that drives a sweep."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search_spaces.errors import InputError
from sweeps.state.log import logging_to, sweep_log
from sweeps.state.paths import SweepPaths


@contextmanager
def driving(paths: SweepPaths) -> Iterator[None]:
    """Holds the sweep's lock, and keeps its log; the system frees it however the process ends.

    Raises:
        InputError: Another process holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(paths.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _is_running(paths) from None
    try:
        _owner_path(paths).write_text(str(os.getpid()))
        with logging_to(paths.log):
            sweep_log.info("process %d works on %s", os.getpid(), paths.name)
            yield
    finally:
        lock.release()


def check_not_driven(paths: SweepPaths) -> None:
    """Raises InputError where another process drives the sweep now."""
    if is_driven(paths):
        raise _is_running(paths)


def _is_running(paths: SweepPaths) -> InputError:
    return InputError(
        f"Sweep '{paths.name}' is running already ({_owner(paths)} drives it). Wait for it, stop "
        "it, or choose another --name."
    )


def is_driven(paths: SweepPaths) -> bool:
    """Whether a live process drives the sweep now."""
    from filelock import FileLock, Timeout

    if not paths.lock.exists():
        return False
    lock = FileLock(paths.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _owner_path(paths: SweepPaths) -> Path:
    return paths.sweep / "driver.pid"


def _owner(paths: SweepPaths) -> str:
    try:
        return f"process {int(_owner_path(paths).read_text())}"
    except (OSError, ValueError):
        return "another process"
