"""Finds the parameters of a space that is plain Python: some are asked for at some points only.

`for i in range(hp.Int("num_layers", 1, 3)): hp.Int(f"units_{i}", ...)` shows its third layer only
where there are three, so the space is sampled at a few points until nothing new appears.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from search_spaces.hyperparameters import HyperParameters
from search_spaces.hyperparameters.parameter import Parameter, Params, Value

MAX_SAMPLES = 64
"""A sample of a large network takes a second, so this is a minute at most."""
MAX_CHOICES, MAX_NUMBERS = 16, 4


def explore(
    sample: Callable[[Any], Params],
    max_samples: int = MAX_SAMPLES,
    at_limit: Callable[[], None] = lambda: None,
    on_look: Callable[[Params], None] = lambda params: None,
) -> tuple[Parameter, ...]:
    """Every parameter that appears while each takes its choices, or the ends of its range.

    Each sample lets every parameter take a value that it has not had yet, as long as there is
    one. A value that only appears deeper is reached by going back to a point that has its
    parameter. The same space always gives the same answer.

    Args:
        at_limit: called where the samples ended before the values did.
        on_look: called with each point that is sampled.
    """
    tried = _Tried()
    point: dict[str, Value] = {}
    found: list[Parameter] = []
    for _ in range(max_samples):
        hp = _CoveringHyperParameters(point, tried)
        on_look(sample(hp))
        found += [parameter for parameter in hp.space if parameter not in found]
        start = tried.next_start()
        if start is None:
            break
        point = start
    else:
        at_limit()
    return tuple(found)


class _Tried:
    """Which values each parameter has had, and a point at which it was asked for."""

    def __init__(self) -> None:
        self._left: dict[tuple[object, ...], list[Value]] = {}
        self._names: dict[tuple[object, ...], str] = {}
        self._before: dict[tuple[object, ...], dict[str, Value]] = {}

    def take(self, parameter: Parameter, before: Mapping[str, Value]) -> Value:
        """A value that the parameter has not had, else its default."""
        key = (parameter.name, parameter.conditions, *parameter.domain)
        if key not in self._left:
            self._left[key] = [v for v in _telling(parameter) if v != parameter.default]
            # The values of what was asked before it lead to it again.
            self._names[key], self._before[key] = parameter.name, dict(before)
            return parameter.default
        return self._left[key].pop(0) if self._left[key] else parameter.default

    def next_start(self) -> dict[str, Value] | None:
        """The values up to a parameter that has not had all of its own; None where all have."""
        for key, left in self._left.items():
            if left:
                return {**self._before[key], self._names[key]: left.pop(0)}
        return None


class _CoveringHyperParameters(HyperParameters):
    """Returns the point's values, and elsewhere what was not tried yet."""

    def __init__(self, point: Mapping[str, Value], tried: _Tried) -> None:
        super().__init__()
        self._point, self._tried = point, tried

    def suggest(self, parameter: Parameter) -> Value:
        """The value of an active parameter."""
        if parameter.name in self._point and parameter.contains(self._point[parameter.name]):
            return self._point[parameter.name]
        return self._tried.take(parameter, self.values)


def _telling(parameter: Parameter) -> tuple[Value, ...]:
    """The values that may lead to other code: all of a few, else both ends."""
    grid = parameter.grid()
    if grid is None:
        assert parameter.low is not None and parameter.high is not None
        return parameter.from_unit(0.0), parameter.from_unit(1.0)
    if parameter.low is None:
        return grid[:MAX_CHOICES]
    return grid if len(grid) <= MAX_NUMBERS else (grid[-1], grid[0])
