"""What of a user's environment our own processes do without: it is meant for other programs."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, cast

FILES_ONLY = "agg"
DEBUGGING = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")
"""Keras cuts every training short by these."""
SIZES = ("COLUMNS", "LINES")
NOT_SHOWN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Warnings that Python does not show of itself."""


def settle_surroundings(environment: MutableMapping[str, str] = os.environ) -> None:
    """Takes out of a process of ours what would end or change its work; before other imports."""
    draw_into_files(environment)
    for name in DEBUGGING:
        environment.pop(name, None)
    for name in SIZES:
        value = environment.get(name, "1")
        if not (value.isascii() and value.isdigit()):
            del environment[name]  # Libraries turn whatever stands there into a number.
    if _makes_errors(environment.get("PYTHONWARNINGS", "")):
        del environment["PYTHONWARNINGS"]
    _never_raise_warnings()


def draw_into_files(environment: MutableMapping[str, str] = os.environ) -> None:
    """Chooses the Matplotlib backend that needs neither a screen nor a notebook.

    A Jupyter kernel names its own backend to all that it starts. Matplotlib refuses to be imported
    where that backend is not installed, and Keras imports it.
    """
    environment["MPLBACKEND"] = FILES_ONLY


def _never_raise_warnings() -> None:
    """Has warnings shown that were to be errors: one of a library would end the process."""
    if not any(_makes_errors(option) for option in sys.warnoptions):
        return
    sys.warnoptions[:] = [option for option in sys.warnoptions if not _makes_errors(option)]
    warnings.resetwarnings()
    for category in NOT_SHOWN:
        warnings.simplefilter("ignore", category)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Has warnings that a caller's program makes errors shown while we work, and puts that back.

    Under `python -W error`, or in a test of pytest's `filterwarnings = error`, the first warning
    inside a library would end a sweep.
    """
    with warnings.catch_warnings():
        kept = [entry for entry in warnings.filters if entry[0] != "error"]
        warnings.resetwarnings()
        cast(list[Any], warnings.filters).extend(kept)
        yield


def _makes_errors(options: str) -> bool:
    """Whether `PYTHONWARNINGS`, or an option `-W`, makes some warnings errors."""
    actions = (option.strip().partition(":")[0] for option in options.split(","))
    return any(action and "error".startswith(action) for action in actions)
