"""What arguments of several functions mean, and the signal that each gives back."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from search_spaces.errors import InputError
from search_spaces.space import Space
from search_spaces.user_spaces.given import given_space
from sweeps.driver.board.views import TrialCallback
from sweeps.reporting.console import speaker
from sweeps.reporting.views import make_view
from sweeps.setup.data import SHOWN, SILENT, DataProgress

if TYPE_CHECKING:
    from sweeps.finalists.session import Output

Callbacks = TrialCallback | Iterable[TrialCallback] | None


def space_name(space: object) -> str:
    """What names the space in settings, in workers and in a resumed sweep."""
    if isinstance(space, Space):
        return space.key
    return space if isinstance(space, str) else given_space(space)


def pass_on(number: int | None) -> None:
    """Gives a signal that ended the sweep to whoever had handled it, once everything is stored."""
    if number is not None:
        signal.raise_signal(number)


def output_of(verbose: int) -> Output:
    """Where a sweep speaks; 0 keeps it silent."""
    from sweeps.finalists.session import Output

    return Output(partial(make_view, not verbose), speaker(not verbose), progress_of(verbose))


def functions_of(on_trial_end: Callbacks) -> Sequence[TrialCallback]:
    """One function or several, in their order.

    Raises:
        InputError: One of them cannot be called.
    """
    if on_trial_end is None:
        return ()
    several = isinstance(on_trial_end, Iterable) and not callable(on_trial_end)
    functions: list[Any] = [*on_trial_end] if several else [on_trial_end]  # type: ignore[misc]
    if not all(map(callable, functions)):
        raise InputError(
            f"on_trial_end must be a function, or several. Received: {on_trial_end!r}."
        )
    return functions


def progress_of(verbose: int) -> DataProgress:
    """Where the preparation of data is shown; 0 shows nothing."""
    return SHOWN if verbose else SILENT


def check_text(what: str, value: object) -> None:
    """Raises InputError for an argument that is neither a text nor None."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"{what} must be a text. Received: {value!r}.")
