"""An Optuna trial that answers in Keras Tuner's vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from search_spaces.hyperparameters import HyperParameters, Parameter, Params, Value

if TYPE_CHECKING:
    import optuna

GRID_POINTS = 4
"""Values per continuous parameter under a grid, before defaults and baselines join them."""


class OptunaHyperParameters(HyperParameters):
    """Asks an Optuna trial for each active parameter, under its own name and in its own unit.

    Two things have no twin in Optuna and are asked for as an index or a unit instead, stored under
    `<name>__index` and `<name>__unit`: an integer step on a log scale, which Keras Tuner reads as
    a factor, and reverse-log sampling.

    Args:
        grid: values per continuous parameter, where a grid is wanted.
    """

    def __init__(
        self, trial: optuna.trial.BaseTrial, grid: Mapping[str, Sequence[Value]] | None = None
    ) -> None:
        super().__init__()
        self._trial = trial
        self._grid = grid

    def suggest(self, parameter: Parameter) -> Value:  # noqa: PLR0911
        """Asks the trial in the form that fits the parameter's kind and sampling."""
        name, low, high = parameter.name, parameter.low, parameter.high
        if parameter.kind == "fixed":
            return parameter.default
        if parameter.kind in ("choice", "boolean"):
            return _value(self._trial.suggest_categorical(name, parameter.choices))
        assert low is not None and high is not None
        if self._grid is not None and name in self._grid:
            return _value(self._trial.suggest_categorical(name, self._grid[name]))
        if parameter.sampling == "reverse_log":
            unit = self._trial.suggest_float(f"{name}__unit", 0.0, 1.0)
            value = float(high + low - low * (high / low) ** (1.0 - unit))
            return round(value) if parameter.kind == "int" else value
        log = parameter.sampling == "log"
        if parameter.step is not None and (log or parameter.kind == "float"):
            values = parameter.grid()
            assert values is not None
            if log:
                return values[self._trial.suggest_int(f"{name}__index", 0, len(values) - 1)]
            value = self._trial.suggest_float(name, low, float(values[-1]), step=parameter.step)
            return round(value, 10)  # Optuna's grid carries rounding errors: 0.30000000000000004.
        if parameter.kind == "int":
            step = int(parameter.step or 1)
            top = int(low) + (int(high) - int(low)) // step * step
            return self._trial.suggest_int(name, int(low), top, step=step, log=log)
        return self._trial.suggest_float(name, low, high, log=log)


def _value(chosen: Value | None) -> Value:
    assert chosen is not None  # Optuna's categories may be None; those of a space are not.
    return chosen


def storage_values(params: Params, parameters: Sequence[Parameter]) -> dict[str, Value]:
    """A point as Optuna stores it, so that it can be enqueued."""
    by_name = {parameter.name: parameter for parameter in parameters}
    stored: dict[str, Value] = {}
    for name, value in params.items():
        parameter = by_name[name]
        if parameter.kind == "fixed":
            continue
        grid = parameter.grid() if parameter.sampling == "log" else None
        if parameter.sampling == "reverse_log":
            raise ValueError(f"'{name}' is sampled in reverse and cannot be enqueued yet.")
        if grid is not None and parameter.kind in ("int", "float"):
            stored[f"{name}__index"] = grid.index(value)
        else:
            stored[name] = value
    return stored


def grid_values(
    parameters: Sequence[Parameter], points: Sequence[Params]
) -> dict[str, tuple[Value, ...]]:
    """A few values per continuous parameter: evenly spaced, the default, and those of `points`."""
    grid: dict[str, tuple[Value, ...]] = {}
    for parameter in parameters:
        if parameter.grid() is not None or parameter.low is None or parameter.high is None:
            continue
        low, high = parameter.low, parameter.high
        shares = [k / (GRID_POINTS - 1) for k in range(GRID_POINTS)]
        if parameter.sampling == "linear":
            values = [low + (high - low) * share for share in shares]
        else:
            values = [low * (high / low) ** share for share in shares]
        named = [point[parameter.name] for point in points if parameter.name in point]
        rounded = {float(f"{value:.4g}") for value in [*values, parameter.default, *named]}  # type: ignore[str-format]
        kept = rounded | {float(value) for value in named}
        grid[parameter.name] = tuple(sorted(kept))
    return grid
