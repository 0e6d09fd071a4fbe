"""What a HyperModel's own `fit` returned, as numbers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RETURNED_NUMBER = "default_objective"
"""What a single number is called, as in Keras Tuner, which minimises it."""


def returned_values(returned: Any) -> dict[str, float]:
    """The values in a history (those of its last epoch), a dict, or a number; empty for all else.

    A scalar tensor, such as a metric's result, counts as a number.
    """
    found = getattr(returned, "history", returned)
    if not isinstance(found, Mapping):
        found = {RETURNED_NUMBER: found}
    last = {
        str(name): value[-1] if isinstance(value, list | tuple) and value else value
        for name, value in found.items()
    }
    numbers = {name: _number(value) for name, value in last.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def _number(value: Any) -> float | None:
    if isinstance(value, str | bytes) or getattr(value, "ndim", False):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
