"""What MLflow raises, as commands that know no MLflow can tell it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import mlflow
from mlflow.exceptions import MlflowException

from tracking.addresses import redacted, scrubbed

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
    """What to do about tables of another MLflow, where that is the error; else nothing.

    MLflow calls newer tables out of date, too, and names an upgrade that fails with them.
    """
    found = re.search(r"database schema \(found version (\w+), but expected", str(error))
    if found is None:
        return ""
    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    if any(migrations.glob(f"{found[1]}_*.py")):
        return (
            f"Its tables are those of an MLflow before the installed {mlflow.__version__}. Make a "
            f"backup of the database, then upgrade it: mlflow db upgrade {redacted(uri)}"
        )
    return (
        f"Its tables are unknown to the installed MLflow {mlflow.__version__}: a later one made "
        "them. Install that version again, or restore the backup of the database"
    )


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
