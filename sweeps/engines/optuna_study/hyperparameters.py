"""An Optuna trial behind Keras Tuner's `HyperParameters` interface."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search_spaces.hyperparameters import (
    GivenHyperParameters,
    HyperParameters,
    Parameter,
    Params,
    Value,
)

if TYPE_CHECKING:
    import optuna

GRID_POINTS = 4
"""Values per continuous parameter under a grid, before defaults and baselines join them."""


class StoredNames:
    """Under which name Optuna stores a parameter: its own, unless another one has that already.

    Keras Tuner allows parameters of one name with other choices under other conditions; Optuna
    refuses a name whose choices change. The first that a space has of a name owns it.

    Args:
        parameters: all that the space is known to have; none where every name is its own.
    """

    def __init__(self, parameters: Sequence[Parameter] = ()) -> None:
        self._owners: dict[str, tuple[object, ...]] = {}
        for parameter in parameters:
            self._owners.setdefault(parameter.name, parameter.domain)

    def of(self, parameter: Parameter) -> str:
        """The name; it follows from the parameter and the space alone."""
        owner = self._owners.get(parameter.name)
        if not self._owners or owner == parameter.domain:
            return parameter.name
        return f"{parameter.name}__{zlib.crc32(repr(parameter.domain).encode()):08x}"


def _as_index(parameter: Parameter) -> bool:
    """Whether Optuna is asked for a place in the values: it has no such step, no such order."""
    if parameter.kind == "choice":
        return parameter.ordered
    is_number = parameter.kind in ("int", "float")
    return is_number and parameter.step is not None and parameter.sampling != "linear"


class OptunaHyperParameters(HyperParameters):
    """Asks an Optuna trial for each active parameter, under its own name and in its own unit.

    Three things have no twin in Optuna and are asked for as an index or a unit instead, stored
    under `<name>__index` and `<name>__unit`: a step on a log scale, which Keras Tuner reads as a
    factor; ordered choices; and reverse-log sampling.

    Args:
        grid: values for continuous parameters, where a grid is wanted.
        names: under which names parameters are stored.
    """

    def __init__(
        self,
        trial: optuna.trial.BaseTrial,
        grid: Grid | None = None,
        names: StoredNames | None = None,
    ) -> None:
        super().__init__()
        self._trial = trial
        self._grid = grid
        self._stored_names = names or StoredNames()

    def suggest(self, parameter: Parameter) -> Value:
        """Asks the trial in the form that fits the parameter's kind and sampling."""
        name, low, high = self._stored_names.of(parameter), parameter.low, parameter.high
        values = parameter.grid()
        if parameter.kind == "fixed":
            return parameter.default
        if _as_index(parameter):
            assert values is not None
            return values[self._trial.suggest_int(f"{name}__index", 0, len(values) - 1)]
        if parameter.kind in ("choice", "boolean"):
            return _value(self._trial.suggest_categorical(name, parameter.choices))
        assert low is not None and high is not None
        if self._grid is not None and values is None:
            return _value(self._trial.suggest_categorical(name, self._grid.values(parameter)))
        if parameter.sampling == "reverse_log":
            return parameter.from_unit(self._trial.suggest_float(f"{name}__unit", 0.0, 1.0))
        return self._number(parameter, name, low, high)

    def _number(self, parameter: Parameter, name: str, low: float, high: float) -> Value:
        log = parameter.sampling == "log"
        if parameter.kind == "int":
            step = int(parameter.step or 1)
            top = int(low) + (int(high) - int(low)) // step * step
            return self._trial.suggest_int(name, int(low), top, step=step, log=log)
        values = parameter.grid()
        if values is None or parameter.step is None:
            return self._trial.suggest_float(name, low, high, log=log)
        value = self._trial.suggest_float(name, low, float(values[-1]), step=parameter.step)
        # Optuna's grid carries rounding errors: 0.30000000000000004.
        return values[min(round((value - low) / parameter.step), len(values) - 1)]


def _value(chosen: Value | None) -> Value:
    assert chosen is not None  # Optuna's categories may be None; those of a space are not.
    return chosen


def stored_defaults(parameters: Sequence[Parameter], names: StoredNames) -> dict[str, Value]:
    """The default of every parameter as Optuna stores it, whatever it is active under."""
    found: dict[str, Value] = {}
    for parameter in parameters:
        name, grid, value = names.of(parameter), parameter.grid(), parameter.default
        if parameter.kind == "fixed" or not parameter.contains(value):
            continue
        if _as_index(parameter):
            assert grid is not None
            found.setdefault(f"{name}__index", grid.index(parameter.nearest(value)))
        elif parameter.sampling == "reverse_log":
            found.setdefault(f"{name}__unit", parameter.to_unit(float(value)))
        else:
            found.setdefault(name, value)
    return found


class StoringHyperParameters(GivenHyperParameters):
    """Returns the values of a point, and remembers it as Optuna stores it."""

    def __init__(
        self, given: Mapping[str, Value], names: StoredNames, *, as_grid: bool = False
    ) -> None:
        super().__init__(given)
        self._stored_names, self._as_grid = names, as_grid
        self.stored: dict[str, Value] = {}

    def given(self, parameter: Parameter) -> Value:
        """The value of an active parameter, by the point."""
        return super().suggest(parameter)

    def suggest(self, parameter: Parameter) -> Value:
        """The point's value."""
        value = self.given(parameter)
        name, grid = self._stored_names.of(parameter), parameter.grid()
        if parameter.kind == "fixed":
            return value
        if _as_index(parameter):
            assert grid is not None
            self.stored[f"{name}__index"] = grid.index(value)
        elif parameter.sampling == "reverse_log" and not self._as_grid:
            self.stored[f"{name}__unit"] = parameter.to_unit(float(value))
        else:
            self.stored[name] = value
        return value


def storage_values(
    params: Params,
    sample: Callable[[Any], Params],
    names: StoredNames | None = None,
    *,
    as_grid: bool = False,
) -> dict[str, Value]:
    """A point of a space as Optuna stores it, so that it can be enqueued.

    Args:
        as_grid: whether continuous parameters are asked for as one of some values.
    """
    hp = StoringHyperParameters(params, names or StoredNames(), as_grid=as_grid)
    sample(hp)
    return hp.stored


class Grid:
    """A few values per continuous parameter: evenly spaced, the default, and those of `points`."""

    def __init__(self, points: Sequence[Params] = ()) -> None:
        self._points = points

    def values(self, parameter: Parameter) -> tuple[Value, ...]:
        """The parameter's values, rising; always the same ones."""
        shares = [k / (GRID_POINTS - 1) for k in range(GRID_POINTS)]
        spaced = [parameter.from_unit(share) for share in shares]
        named = [point[parameter.name] for point in self._points if parameter.name in point]
        kept = [value for value in [parameter.default, *named] if parameter.contains(value)]
        if parameter.kind == "int":
            return tuple(sorted({int(value) for value in [*spaced, *kept]}))
        rounded = {float(f"{float(value):.4g}") for value in [*spaced, parameter.default]}
        return tuple(sorted(rounded | {float(value) for value in kept}))
