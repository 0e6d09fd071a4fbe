"""The one exception that means: the user's input is wrong; and what an error must not show."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit


class SourceChangedError(Exception):
    """The source of a user's space is not what it was when its sweep began."""


class InputError(ValueError):
    """Input that breaks a rule; its message states the rule, what was received and the way out.

    Commands print the message as one line on standard error and exit with status 2.
    """


def unknown_name(kind: str, received: str, valid: Iterable[str]) -> InputError:
    """The error for a name that is not among `valid`, with the nearest one suggested."""
    names = list(valid)
    near = difflib.get_close_matches(received, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return InputError(f"Unknown {kind} '{received}'.{hint} Choose one of: {', '.join(names)}.")


def redacted(address: str) -> str:
    """An address without its password, wherever it stands; one that cannot be read is not shown."""
    try:
        parts = urlsplit(address)
        password = parts.password
    except ValueError:
        return "(an address that cannot be read)"
    if password is not None:
        host = parts.netloc.rpartition("@")[2]
        parts = parts._replace(netloc=f"{parts.username or ''}:***@{host}")
    query = re.sub(r"(?i)((?:password|passwd|pwd|token|secret)=)[^&]*", r"\1***", parts.query)
    if password is None and query == parts.query:
        return address
    return urlunsplit(parts._replace(query=query))


def holds_password(address: str) -> bool:
    """Whether a password, or a token, stands in an address."""
    shown = redacted(address)
    return shown != address and "***" in shown and "***" not in address


def place_of(address: str) -> str:
    """An address without user and password: two that lead to one place are equal."""
    try:
        parts = urlsplit(redacted(address))
    except ValueError:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")


def scrubbed(text: str, address: str) -> str:
    """A library's message about an address, without the address's password."""
    try:
        password = urlsplit(address).password
    except ValueError:
        return text
    return text.replace(address, redacted(address)).replace(password, "***") if password else text
