"""The one exception that means: the user's input is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SourceChangedError(Exception):
    """The source of a user's space is not what it was when its sweep began."""


class SearchEndedError(Exception):
    """A user's space raised Keras Tuner's FatalError, which ends a search."""


class InputError(ValueError):
    """Input that breaks a rule; its message states the rule, what was received and the way out.

    Commands print the message as one line on standard error and exit with status 2.

    Attributes:
        reason: what is wrong with what was received, as a phrase, for callers that put it into
            words of their own; empty where none does.
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback: where it was raised is not what is wrong."""
        return [f"{type(self).__name__}: {self}"]


def unknown_name(kind: str, received: str, valid: Iterable[str]) -> InputError:
    """The error for a name that is not among `valid`, with the nearest one suggested."""
    names = list(valid)
    near = difflib.get_close_matches(received, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return InputError(f"Unknown {kind} '{received}'.{hint} Choose one of: {', '.join(names)}.")
