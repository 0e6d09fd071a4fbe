"""Types of command-line options: each states its rule, what it received, and what is possible."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, Literal

from pipelines.images import options as images

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, 1)


def natural_int(text: str) -> int:
    """A whole number of at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least or value > 2**31 - 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least {least}. Received: {text!r}"
        )
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    return _number(text, "a number from 0 to 1", lambda value: 0 <= value <= 1)


def level(text: str) -> float:
    """A level of significance: above 0 and at most 0.5."""
    return _number(text, "a number above 0 and at most 0.5", lambda value: 0 < value <= 0.5)


def margin(text: str) -> float:
    """A tolerated loss of accuracy: above 0 and below 0.5."""
    return _number(text, "a number above 0 and below 0.5", lambda value: 0 < value < 0.5)


def positive_number(text: str) -> float:
    """A number above 0."""
    return _number(text, "a number above 0", lambda value: 0 < value < float("inf"))


def _number(text: str, rule: str, holds: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not holds(value):
        raise argparse.ArgumentTypeError(f"must be {rule}. Received: {text!r}")
    return value


def or_auto(convert: Callable[[str], int]) -> Callable[[str], int | None]:
    """Accepts `auto` for None beside what `convert` accepts."""

    def parse(text: str) -> int | None:
        if text == "auto":
            return None
        try:
            return convert(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error} ('auto' is possible too)") from None

    _SCHEMAS[parse] = {"anyOf": [_SCHEMAS[convert], {"const": "auto"}]}
    return parse


def timeout(text: str) -> float | Literal["auto"] | None:
    """`90`, `90s`, `15m`, `2h` in seconds, `none` for no limit, or `auto`."""
    if text == "none":
        return None
    if text == "auto":
        return "auto"
    return _seconds(text, "none")


def duration_or_auto(text: str) -> float | None:
    """`90`, `90s`, `15m`, `2h` in seconds, or None for `auto`."""
    return None if text == "auto" else _seconds(text, "auto")


def _seconds(text: str, other: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(
            f"must be a positive duration such as 90s, 15m or 2h, or {other}. Received: {text!r}"
        )
    return seconds


def image_size(text: str) -> str:
    """`64x64` (height x width), or `64` for a square."""
    try:
        return images.image_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


_DURATION = {"type": ["string", "number"], "pattern": r"^(\d+(\.\d+)?[smh]?|none|auto)$"}
_SCHEMAS: dict[Callable[[str], Any], dict[str, Any]] = {
    positive_int: {"type": "integer", "minimum": 1},
    natural_int: {"type": "integer", "minimum": 0},
    level: {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
    margin: {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
    fraction: {"type": "number", "minimum": 0, "maximum": 1},
    positive_number: {"type": "number", "exclusiveMinimum": 0},
    timeout: _DURATION,
    duration_or_auto: _DURATION,
}


def schema_of(action: argparse.Action) -> dict[str, Any]:
    """The JSON schema of an option's value."""
    if action.choices is not None:
        return {"enum": list(action.choices)}
    return _SCHEMAS.get(action.type, {"type": "string"})  # type: ignore[arg-type]
