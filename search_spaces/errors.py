"""The one exception that means: the user's input is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


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


MAX_SHOWN = 60
"""Characters of what was received that a message repeats."""


def shown(received: object) -> str:
    """What was received, as a message repeats it: in quotes if it is a text, and not all of it."""
    text = repr(received)
    if len(text) <= MAX_SHOWN + 2:
        return text
    return f"{text[:MAX_SHOWN]}... ({len(text):,} characters)"


def shortened(text: str, most: int = MAX_SHOWN) -> str:
    """A name, or a library's message, as a message repeats it."""
    return text if len(text) <= most else f"{text[:most]}..."


def escaped(text: str) -> str:
    """A text in one line, with escapes in place of what is not printable."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def unknown_name(
    kind: str, received: str, valid: Iterable[str], meant: Mapping[str, str] | None = None
) -> InputError:
    """The error for a name that is not among `valid`, with the nearest one suggested.

    Args:
        meant: what else people write -> the name here.
    """
    names, received = list(valid), shortened(received)
    near = (meant or {}).get(received) or _nearest(received, names)
    hint = f" Did you mean '{near}'?" if near else ""
    return InputError(f"Unknown {kind} '{received}'.{hint} Choose one of: {', '.join(names)}.")


def _nearest(received: str, names: list[str]) -> str:
    """The name that is spelt nearly so, or that has these initials (`lr`); empty for none."""
    words = {name: name.strip("-").replace("-", "_").lower() for name in names}
    text = received.strip("-").replace("-", "_").lower()
    # Without the dashes, which all options have in common.
    near = difflib.get_close_matches(text, words.values(), n=1)
    initials = {name: "".join(part[:1] for part in word.split("_")) for name, word in words.items()}
    found = [name for name in names if initials[name] == text and len(text) > 1]
    found += [name for name in names if near and words[name] == near[0]]
    return found[0] if found else ""
