"""One server per SQLite file, and one process at a time that makes or changes a schema.

Of eight processes that open an empty database at once seven crash, as MLflow makes its tables.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from search_spaces.errors import InputError
from tracking.stores import sqlite_path

SCHEMA_LOCK = 0x6B73_7765
"""An arbitrary number, the same for all of ours: PostgreSQL's advisory locks have no names."""


@contextmanager
def only_server(uri: str) -> Iterator[None]:
    """Holds a SQLite store against a second server, which would wait for this one's every write.

    The file is switched to write-ahead logging, so that reading does not stop writing.

    Raises:
        InputError: Another server has it.
    """
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    import sqlite3

    from filelock import FileLock, Timeout

    lock = FileLock(f"{path}.server-lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"A SQLite store has one server at a time. Received: {path}, which another one serves. "
            "Use that one, name another --backend-store-uri, or take PostgreSQL."
        ) from None
    try:
        try:
            with closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA journal_mode=WAL")
        except sqlite3.Error as error:
            raise InputError(
                "--backend-store-uri must be a SQLite database that nothing else has open, so that "
                f"it can be switched to write-ahead logging. Received: {path} ({error}). End what "
                "has it open, such as `mlflow ui` or a notebook, and start again."
            ) from error
        yield
    finally:
        lock.release()


@contextmanager
def first_alone(uri: str) -> Iterator[None]:
    """Holds a database's schema against processes of ours that open it at the same moment."""
    path = sqlite_path(uri)
    if path is not None:
        with _held(path.absolute().parent):
            yield
        return
    if not uri.startswith("postgresql"):
        yield
        return
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({SCHEMA_LOCK})"))
            yield
    finally:
        engine.dispose()


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Waits until nobody else holds the folder, and holds it; nothing is left in it.

    The folder, because a file for it would stay beside the user's own, and because closing a
    database's file gives up the locks that SQLite has on it.
    """
    try:
        import fcntl
    except ImportError:  # Windows.
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # A file system without locks.
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def unserved_experiments(uri: str) -> list[str]:
    """Names of experiments whose files are in a folder that clients must see themselves.

    So it is where a store was used without a server before: MLflow writes an experiment's place
    down once, for good.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    text = "SELECT name, artifact_location FROM experiments WHERE lifecycle_stage = 'active'"
    try:
        with engine.connect() as connection:
            found = connection.execute(sqlalchemy.text(text)).all()
    finally:
        engine.dispose()
    return [str(name) for name, place in found if str(place).startswith(("/", ".", "file:"))]
