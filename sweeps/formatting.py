"""Numbers, durations, curves and params as a person reads them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path

_BARS = "▁▂▃▄▅▆▇█"


def duration(seconds: float) -> str:
    """`4.2 s`, `3:07 min`, `1:02:09 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d} h"


def size_text(num_bytes: int) -> str:
    """`812 B`, `3.4 MB`, `1.2 GB`; of a thousand each."""
    if num_bytes < 1_000:
        return f"{num_bytes} B"
    power = min(3, int(math.log10(num_bytes)) // 3)
    return f"{num_bytes / 1_000**power:.3g} {('kB', 'MB', 'GB')[power - 1]}"


def moment(at_ms: int) -> str:
    """`2026-11-27 09:30`, in the time of this machine; `-` for 0."""
    return f"{datetime.fromtimestamp(at_ms / 1000):%Y-%m-%d %H:%M}" if at_ms else "-"


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
    while error.__cause__ is not None and not _is_ours(error):
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _is_ours(error: BaseException) -> bool:
    package = type(error).__module__.partition(".")[0]
    return package in ("sweeps", "pipelines", "tracking", "search_spaces")


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


def difference_text(
    params: Mapping[str, object], references: Mapping[str, Mapping[str, object]]
) -> str:
    """A point by how it differs from the nearest of some known points, the first of equally near.

    `defaults with optimizer=sgd learning_rate=0.1`; all of its parameters without references.
    """
    if not references:
        return params_text(params)
    changes = {name: _changes(params, known) for name, known in references.items()}
    nearest = min(changes, key=lambda name: len(changes[name]))
    changed = changes[nearest]
    return f"{nearest} with {params_text(changed)}" if changed else nearest


def _changes(params: Mapping[str, object], known: Mapping[str, object]) -> dict[str, object]:
    """The parameters that have another value there, or are not active there."""
    missing = object()
    return {name: value for name, value in params.items() if known.get(name, missing) != value}
