"""Addresses of stores and servers, and what of them may be shown: never a password."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit


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


def location_of(address: str) -> str:
    """An address without user and password: two that lead to one store are equal."""
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
