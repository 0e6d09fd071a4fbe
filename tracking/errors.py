"""What MLflow raises, as commands that know no MLflow can tell it."""

from __future__ import annotations

import re
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import mlflow
from mlflow.exceptions import MlflowException

from tracking.addresses import redacted, scrubbed
from tracking.stores import sqlite_path

MISSING = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
DENIED = "PERMISSION_DENIED"
MISSING_OR_WRONG = (*MISSING, "INVALID_PARAMETER_VALUE")
"""MLflow raises the latter where an alias is not there, and for an id of the wrong form."""


@contextmanager
def unless(codes: tuple[str, ...]) -> Iterator[None]:
    """Ignores MLflow's errors of these codes, and only these: a lost store is no missing model."""
    try:
        yield
    except MlflowException as error:
        if error.error_code not in codes:
            raise


_MIGRATIONS = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"

T = TypeVar("T")
PASSING = ("BAD_REQUEST", "TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED")
"""Two writes of one tag that overlap are a broken constraint to a database; MLflow calls that a bad
request."""


def repeated(call: Callable[[], T], *, tries: int = 5, pause_seconds: float = 0.1) -> T:
    """Calls again, after a growing pause, what others got in the way of; it must be idempotent.

    Raises:
        MlflowException: It failed every time, or for a reason that does not pass.
    """
    for attempt in range(tries - 1):
        try:
            return call()
        except MlflowException as error:
            if error.error_code not in PASSING:
                raise
        time.sleep(pause_seconds * 2**attempt)
    return call()


def schema_problem(error: BaseException, uri: str) -> str:
    """What to do about tables of another MLflow, or half-made ones, where that is the error.

    MLflow calls newer tables out of date, too, and names an upgrade that fails with them. Empty for
    any other error.
    """
    found = re.search(r"database schema \(found version (\w+), but expected", str(error))
    if found is None:
        return _half_made_problem(error, uri)
    if any(_MIGRATIONS.glob(f"{found[1]}_*.py")):
        return (
            f"Its tables are those of an MLflow before the installed {mlflow.__version__}. Make a "
            f"backup of the database, then upgrade it: mlflow db upgrade {redacted(uri)}"
        )
    return (
        f"Its tables are unknown to the installed MLflow {mlflow.__version__}: a later one made "
        "them. Install that version again, or restore the backup of the database"
    )


def _half_made_problem(error: BaseException, uri: str) -> str:
    """What to do about a file whose tables were begun and never finished; else nothing.

    So several sweeps of earlier versions left it that began in a fresh folder at once, and so does
    a sweep that is killed in its first seconds.
    """
    path = sqlite_path(uri)
    if path is None or "locked" in str(error):
        return ""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            if not _is_half_made(database):
                return ""
            num_runs = int(database.execute("SELECT COUNT(*) FROM runs").fetchone()[0])
    except (OSError, sqlite3.Error):
        return ""
    advice = "It holds no runs: move it away"
    if num_runs:
        advice = f"It holds {num_runs:,} runs: restore a backup, or move it away"
    return (
        "Its tables are half made: what made them was killed, or several programs made them at "
        f"once. {advice} and start again: mv {shlex.quote(str(path))} "
        f"{shlex.quote(f'{path}.half-made')}"
    )


def _is_half_made(database: sqlite3.Connection) -> bool:
    """Whether MLflow's first tables are there, and its last migration did not end."""
    tables = {str(name) for (name,) in database.execute("SELECT name FROM sqlite_master")}
    if "experiments" not in tables:
        return False
    if "alembic_version" not in tables or any(n.startswith("_alembic_tmp_") for n in tables):
        return True
    versions = database.execute("SELECT version_num FROM alembic_version").fetchall()
    later = "".join(file.read_text(encoding="utf-8") for file in _MIGRATIONS.glob("*.py"))
    return not versions or any(f'down_revision = "{version}"' in later for (version,) in versions)


@contextmanager
def store_errors(
    uri: str, way_out: str = "name an experiment (--experiment) or model (--model) of your own"
) -> Iterator[None]:
    """Turns a failure of the store, in the middle of a command, into an OSError of one line.

    Args:
        way_out: what to do where a user lacks the right.

    Raises:
        OSError: The store failed.
    """
    try:
        yield
    except MlflowException as error:
        lines = scrubbed(str(error), uri).strip().splitlines() or [""]
        if error.error_code == DENIED:
            raise OSError(
                f"the tracking store {redacted(uri)} lets you read, but not change, what belongs "
                f"to another user: {way_out}, or ask its owner for the right to edit it"
            ) from error
        reason = schema_problem(error, uri) or f"{error.error_code}: {lines[0][:300]}"
        raise OSError(f"the tracking store {redacted(uri)} failed ({reason})") from error
