"""What MLflow raises, as commands that know no MLflow can tell it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from search_spaces.errors import redacted, scrubbed


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turns a failure of the store, in the middle of a command, into an OSError of one line.

    Raises:
        OSError: The store failed.
    """
    try:
        yield
    except MlflowException as error:
        lines = scrubbed(str(error), uri).strip().splitlines() or [""]
        reason = f"{error.error_code}: {lines[0][:300]}"
        raise OSError(f"the tracking store {redacted(uri)} failed ({reason})") from error
