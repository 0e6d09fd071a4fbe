"""What options can be: each kind of value reads a text of the command line or a Python value.

Each states its rule, what it received, and what is possible. What one returns, it reads again to
the same.
"""

from __future__ import annotations

import contextlib
import operator
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pipelines.images import options as images
from pipelines.objectives import get_objective
from search_spaces.errors import InputError, shown
from search_spaces.files import UnusableFileError, named_path
from sweeps.engines.pruners.rungs import parse_min_epochs

Read = Callable[[Any], Any]
MOST = 2**31 - 1
"""What every library takes, also as a seed."""
MOST_PARALLEL = 1_024
"""Processes, or threads of one: libraries start all of them, and machines end at some more."""
MOST_SECONDS = 100 * 365.25 * 24 * 3600
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


class ValueRuleError(InputError):
    """A value breaks an option's rule; the message has neither the option's name nor a full stop.

    `must be a whole number of at least 1. Received: 0`.
    """


def _broken(rule: str, received: object) -> ValueRuleError:
    return ValueRuleError(f"must be {rule}. Received: {shown(received)}")


def objective(value: object) -> str:
    """The name of an objective; one that there is not is left for whoever checks it."""
    found = text(value)
    with contextlib.suppress(InputError):
        return get_objective(found).name
    return found


def positive_int(value: object) -> int:
    """A whole number of at least 1."""
    return _whole(value, 1)


def parallel_int(value: object) -> int:
    """A whole number of at least 1 that a machine may run at once."""
    found = _whole(value, 1)
    if found > MOST_PARALLEL:
        raise _broken(f"a whole number of at most {MOST_PARALLEL}", value)
    return found


def natural_int(value: object) -> int:
    """A whole number of at least 0."""
    return _whole(value, 0)


def _whole(value: Any, least: int) -> int:
    found = least - 1
    with contextlib.suppress(ValueError, TypeError):
        found = _int(value) if isinstance(value, str) else operator.index(value)
    if isinstance(value, bool) or found < least:
        raise _broken(f"a whole number of at least {least}", value)
    if found > MOST:
        raise _broken(f"a whole number of at most {MOST}", value)
    return found


def _int(text: str) -> int:
    """A whole number in plain digits, any one beyond `MOST` as the next one."""
    if not text.isascii():  # Python reads the digits of every script.
        raise ValueError("other digits")
    digits = text.strip().lstrip("+").lstrip("0").replace("_", "")
    if len(digits) > len(str(MOST)) and digits.isdigit():  # Python reads no more than 4,300.
        return MOST + 1
    return int(text)


def fraction(value: object) -> float:
    """A number from 0 to 1."""
    return _number(value, "a number from 0 to 1", lambda found: 0 <= found <= 1)


def level(value: object) -> float:
    """A level of significance: above 0 and at most 0.5."""
    return _number(value, "a number above 0 and at most 0.5", lambda found: 0 < found <= 0.5)


def margin(value: object) -> float:
    """A tolerated loss of accuracy: above 0 and below 0.5."""
    return _number(value, "a number above 0 and below 0.5", lambda found: 0 < found < 0.5)


def positive_number(value: object) -> float:
    """A number above 0."""
    return _number(value, "a number above 0", lambda found: 0 < found < float("inf"))


def _number(value: Any, rule: str, holds: Callable[[float], bool]) -> float:
    found = float("nan")
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if not isinstance(value, str) or value.isascii():
            found = float(value)
    if isinstance(value, bool) or not holds(found):
        raise _broken(rule, value)
    return found


def or_auto(read: Callable[[Any], int]) -> Callable[[Any], int | None]:
    """Accepts `auto` for None beside what `read` accepts."""

    def parse(value: object) -> int | None:
        if value is None or value == "auto":
            return None
        try:
            return read(value)
        except ValueRuleError as error:
            raise ValueRuleError(f"{error} ('auto' is possible too)") from None

    SCHEMAS[parse] = {"anyOf": [SCHEMAS[read], {"const": "auto"}]}
    return parse


def first_rung(value: object) -> int | str | None:
    """A number of epochs, a fraction of one such as `1/9`, or `auto`."""
    if value is None or value == "auto":
        return None
    try:
        found = parse_min_epochs(str(value))
    except InputError as error:
        rule = str(error).removeprefix("--min-epochs ").rstrip(".")
        raise ValueRuleError(rule) from None
    return int(found) if found >= 1 else str(found)


def timeout(value: object) -> float | Literal["auto"] | None:
    """`90`, `90s`, `15m`, `2h` in seconds, `none` for no limit, or `auto`."""
    if value is None or value == "none":
        return None
    return "auto" if value == "auto" else _seconds(value, "none")


def duration_or_auto(value: object) -> float | None:
    """`90`, `90s`, `15m`, `2h` in seconds, or None for `auto`."""
    return None if value is None or value == "auto" else _seconds(value, "auto")


def duration(value: object) -> float:
    """`90`, `90s`, `15m`, `2h` in seconds."""
    return _seconds(value)


def _seconds(value: Any, other: str = "") -> float:
    match = (
        re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", value) if isinstance(value, str) else None
    )
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    if not 0 < seconds <= MOST_SECONDS:
        most = "" if seconds <= MOST_SECONDS else " of at most 100 years"
        rule = f"a positive duration{most} such as 90s, 15m or 2h"
        raise _broken(f"{rule}, or {other}" if other else rule, value)
    return seconds


def image_size(value: object) -> str:
    """`64x64` (height x width), or `64` for a square; also as a pair of numbers."""
    several = value if isinstance(value, tuple | list) else [value]
    try:
        return images.image_size("x".join(map(str, several)))
    except ValueError as error:
        raise ValueRuleError(str(error)) from None


def switch(value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise _broken("true or false", value)
    return value


def text(value: object) -> str:
    """A text, or a path; not an empty one."""
    if not isinstance(value, str | os.PathLike):
        raise _broken("a text", value)
    found = os.fspath(value)
    if not found.strip() or "\0" in found:
        raise _broken("a text" if found.strip() else "a text that is not empty", found)
    return found


def path(value: object) -> str:
    """A path that can be used or made, with `~` as the home folder."""
    found = text(value)
    try:
        usable = named_path(found)
    except UnusableFileError as error:
        raise ValueRuleError(f"must be a path. Received: {shown(found)}, but {error}") from None
    return str(usable) if found.startswith("~") else found


def gpu_indices(value: object) -> str:
    """`all`, `none`, or indices: `0,1`, a number or several."""
    if isinstance(value, str):
        return value
    several = value if isinstance(value, tuple | list) else [value]
    return ",".join(str(natural_int(index)) for index in several)


def rules(value: object, sign: str = "=") -> tuple[str, ...]:
    """Rules for parameters as texts such as `optimizer=adam,nadam`; also as a mapping.

    Args:
        sign: between a parameter and its values.
    """
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Mapping):
        return tuple(f"{name}{sign}{_values_text(found)}" for name, found in value.items())
    if isinstance(value, tuple | list) and all(isinstance(rule, str) for rule in value):
        return tuple(value)
    raise _broken("a mapping of parameters to values, such as {'units': [64, 128]}", value)


def limits(value: object) -> tuple[str, ...]:
    """Limits as texts such as `parameters<=200k`; also as a mapping."""
    return rules(value, "<=")


def names(value: object) -> tuple[str, ...]:
    """Names with commas between, or several."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    if isinstance(value, tuple | list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise _broken("a name or a list of names", value)


def _values_text(values: object) -> str:
    several = values if isinstance(values, tuple | list) else [values]
    return ",".join(str(v).lower() if isinstance(v, bool) else str(v) for v in several)


_DURATION = {"type": ["string", "number"], "pattern": r"^(\d+(\.\d+)?[smh]?|none|auto)$"}
SCHEMAS: dict[Read, dict[str, Any]] = {
    first_rung: {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]},
    positive_int: {"type": "integer", "minimum": 1, "maximum": MOST},
    parallel_int: {"type": "integer", "minimum": 1, "maximum": MOST_PARALLEL},
    natural_int: {"type": "integer", "minimum": 0, "maximum": MOST},
    level: {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
    margin: {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
    fraction: {"type": "number", "minimum": 0, "maximum": 1},
    positive_number: {"type": "number", "exclusiveMinimum": 0},
    timeout: _DURATION,
    duration_or_auto: _DURATION,
    duration: {"type": ["string", "number"], "pattern": r"^\d+(\.\d+)?[smh]?$"},
}
"""The JSON schema of what each kind accepts; of the others any text."""
