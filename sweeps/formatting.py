"""Numbers, durations, curves and params as a person reads them."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path

from search_spaces.errors import InputError

_BARS = "▁▂▃▄▅▆▇█"


def duration(seconds: float) -> str:
    """`4.2 s`, `3:07 min`, `1:02:09 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d} h"


def sparkline(values: Collection[float]) -> str:
    """One bar per value between the smallest and the largest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in values)


def param_text(value: object) -> str:
    """A value as short as it can be read: `0.00123`, `true`, `adam`."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def params_text(params: Mapping[str, object]) -> str:
    """`optimizer=adam learning_rate=0.001 ...`."""
    return " ".join(f"{name}={param_text(value)}" for name, value in params.items())


def count(number: int, noun: str) -> str:
    """`1 trial`, `3 trials`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def error_text(error: BaseException) -> str:
    """`OperationalError: attempt to write a readonly database`: what an error started with.

    Libraries wrap what happened in words of their own: Optuna tells every trouble with its database
    as "invalid data in the commit, e.g. exceeding max length". Our own words stay.
    """
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def in_work_dir(work_dir: str | Path) -> str:
    """What a printed command needs to find a work folder: ` --work-dir 'my work'`; often empty."""
    if Path(work_dir).absolute() == Path(".sweeps").absolute():
        return ""
    return f" --work-dir {shlex.quote(str(work_dir))}"


def own_version() -> str:
    """The version of this project; `unknown` where its code is on the path and not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("keras-sweeps")
    except PackageNotFoundError:
        return "unknown"
