"""The lock of the one process that drives a sweep.

A file that people see, and the folder of the records that it is about: whoever removes the file,
because it looks like a leftover, does not let a second driver in.
"""

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
        paths.spool.mkdir(exist_ok=True)
        folder = _held(paths.spool)
    except BlockingIOError:
        lock.release()
        raise _is_running(paths) from None
    except BaseException:
        lock.release()
        raise
    try:
        _owner_path(paths).write_text(str(os.getpid()))
        with logging_to(paths.log):
            sweep_log.info("process %d works on %s", os.getpid(), paths.name)
            yield
    finally:
        if folder is not None:
            os.close(folder)
        lock.release()


def _held(folder: Path) -> int | None:
    """An open folder that no other process holds; None where that cannot be known.

    Raises:
        BlockingIOError: Another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows.
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # A file system without locks.
        pass
    return handle


def check_not_driven(paths: SweepPaths) -> None:
    """Raises InputError where another process drives the sweep now."""
    if is_driven(paths):
        raise _is_running(paths)


def _is_running(paths: SweepPaths) -> InputError:
    return InputError(
        f"Sweep '{paths.name}' is running already ({_owner(paths)} drives it). Wait for it, stop "
        f"it with `keras-sweeps stop {paths.name}`, or name another sweep."
    )


def is_driven(paths: SweepPaths) -> bool:
    """Whether a live process drives the sweep now."""
    from filelock import FileLock, Timeout

    if paths.lock.exists():
        lock = FileLock(paths.lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
    if not paths.spool.is_dir():
        return False
    try:
        folder = _held(paths.spool)
    except BlockingIOError:
        return True
    if folder is not None:
        os.close(folder)
    return False


def _owner_path(paths: SweepPaths) -> Path:
    return paths.sweep / "driver.pid"


def _owner(paths: SweepPaths) -> str:
    try:
        return f"process {int(_owner_path(paths).read_text())}"
    except (OSError, ValueError):
        return "another process"
