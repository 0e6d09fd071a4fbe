"""The folder in which data are prepared, until it is complete and gets its name."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".preparing-"
LOCK_SECONDS = 24 * 3600
"""A lock without its folder is removed after so long: before, it may be about to be taken."""


@contextmanager
def unfinished_folder(root: Path) -> Iterator[Path]:
    """A new folder under `root`, removed afterwards where it was not renamed.

    A process holds the lock of its folder from before that is there until it is gone; folders
    whose lock nobody holds were left behind by processes that were killed, and are removed first.

    Raises:
        OSError: `root` cannot be written.
    """
    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    _remove_left_behind(root)
    folder = root / f"{PREFIX}{uuid.uuid4().hex[:12]}"
    with FileLock(_lock_of(folder)):
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _lock_of(folder).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _remove_left_behind(root: Path) -> None:
    from filelock import FileLock, Timeout

    for path in root.glob(f"{PREFIX}*"):
        if path.suffix == ".lock":
            if not path.with_suffix("").exists() and _age_seconds(path) > LOCK_SECONDS:
                path.unlink(missing_ok=True)
            continue
        lock = FileLock(_lock_of(path))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        shutil.rmtree(path, ignore_errors=True)
        _lock_of(path).unlink(missing_ok=True)
        lock.release()


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
