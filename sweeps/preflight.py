"""Everything that can be checked before anything is started or written."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from search_spaces.errors import InputError
from sweeps.settings import SweepSettings
from tracking.stores import check_sqlite, check_store, redacted, resolve_uri, sqlite_path

STORAGE_SECONDS = 10.0
T = TypeVar("T")


def check_places(settings: SweepSettings) -> None:
    """Raises InputError where a folder, the tracking store or the study's storage is unusable."""
    _check_work_dir(Path(settings.work_dir))
    check_store(resolve_uri(settings.tracking_uri))
    if settings.storage.startswith("sqlite"):
        check_sqlite(settings.storage, "--storage")
    else:
        _check_database(settings.storage)
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
    try:
        # Permissions alone do not tell: the file system may be read-only, full or no real one.
        with tempfile.TemporaryFile(dir=nearest):
            return
    except OSError as error:
        raise InputError(
            f"--work-dir must be a folder that can be written. Received: {folder} "
            f"({error.strerror or error}). Change into a folder that you can write to, or name "
            "another with --work-dir."
        ) from error


def _check_database(storage: str) -> None:
    import sqlalchemy

    def connect() -> None:
        sqlalchemy.create_engine(storage).connect().close()

    shown = redacted(storage)
    try:
        within(STORAGE_SECONDS, f"--storage ({shown})", connect)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        # The first line alone: the others repeat the address, and it may hold a password.
        reason = type(error).__name__
        raise InputError(
            f"--storage must be a database that can be reached, such as sqlite:///optuna.db or "
            f"postgresql+psycopg://user@host/name. Received: {shown} ({reason})."
        ) from error


def _check_name(storage: str, name: str) -> None:
    path = sqlite_path(storage)
    if path is not None and not path.exists():
        return  # Opening it would create it, and there can be no study in it.
    from sweeps.engines.optuna_engine import open_storage, study_exists, used_name

    what = f"--storage ({redacted(storage)})"
    if within(STORAGE_SECONDS, what, lambda: study_exists(open_storage(storage), name)):
        raise used_name(name)
