"""Keras Tuner's FatalError: a space that raises one wants its search to end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from search_spaces.errors import SearchEndedError


@contextlib.contextmanager
def search_can_end() -> Iterator[None]:
    """Turns a FatalError, and what derives from it, into SearchEndedError, by which it is known."""
    try:
        yield
    except Exception as error:
        tuner = sys.modules.get("keras_tuner")  # Whoever raises such an error has imported it.
        if tuner is None or not isinstance(error, tuner.errors.FatalError):
            raise
        raise SearchEndedError(f"{type(error).__name__}: {error}") from error
