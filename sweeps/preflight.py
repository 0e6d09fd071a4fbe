"""Everything that can be checked before anything is started or written."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from search_spaces.errors import InputError
from sweeps.settings import SweepSettings
from tracking.stores import check_sqlite, check_store, resolve_uri, sqlite_path

STORAGE_SECONDS = 10.0
T = TypeVar("T")


def check_places(settings: SweepSettings) -> None:
    """Raises InputError where a folder, the tracking store or the study's storage is unusable."""
    _check_work_dir(Path(settings.work_dir))
    check_store(resolve_uri(settings.tracking_uri))
    if settings.storage.startswith("sqlite"):
        check_sqlite(settings.storage, "--storage")
    if settings.name is not None:
        _check_name(settings.storage, settings.name)


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """The result of a call, or InputError when it has none in time."""
    results: list[T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:  # Raised again below, in the caller's thread.
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise InputError(f"{what} must answer within {seconds:g} seconds, and did not.")
    return results[0]


def _check_work_dir(folder: Path) -> None:
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(
            f"--work-dir must be a folder that can be written. Received: {folder}. Change into a "
            "folder that you can write to, or name another with --work-dir."
        )


def _check_name(storage: str, name: str) -> None:
    path = sqlite_path(storage)
    if path is not None and not path.exists():
        return  # Opening it would create it, and there can be no study in it.
    from sweeps.engines.optuna_engine import open_storage, redacted, study_exists, used_name

    what = f"--storage ({redacted(storage)})"
    if within(STORAGE_SECONDS, what, lambda: study_exists(open_storage(storage), name)):
        raise used_name(name)
