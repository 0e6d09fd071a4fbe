"""Keras Tuner's `HyperParameters` interface, implemented without importing Keras.

`keras_tuner.HyperParameters` cannot be imported without Keras and TensorFlow (about ten seconds),
so a space is written against the interface, and each of these classes implements it as Keras
Tuner's own does:

- `HyperParameters`: every parameter takes its default;
- `GivenHyperParameters`: values come from a dict (a baseline, a replayed run);
- `RandomHyperParameters`: uniform over the space, from a NumPy generator.

An inactive parameter (its conditional scope does not hold) is registered, returns None and has no
value, as in Keras Tuner.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from search_spaces.errors import InputError
from search_spaces.hyperparameters.parameter import (
    Condition,
    Parameter,
    Params,
    Sampling,
    Value,
    boolean_parameter,
    choice_parameter,
    fixed_parameter,
    float_parameter,
    int_parameter,
)

__all__ = [
    "Condition",
    "GivenHyperParameters",
    "HyperParameters",
    "HyperParametersLike",
    "Parameter",
    "Params",
    "RandomHyperParameters",
    "Value",
    "active_values",
    "declare",
    "parameters_of",
    "repeated",
]


class HyperParametersLike(Protocol):
    """What a space's `sample` may call: a subset of `keras_tuner.HyperParameters`."""

    values: Params

    def Int(self, name: str, min_value: int, max_value: int, **options: Any) -> int:
        """A whole number between the two, both included."""

    def Float(self, name: str, min_value: float, max_value: float, **options: Any) -> float:
        """A number between the two."""

    def Choice(self, name: str, values: list[Value], **options: Any) -> Value:
        """One of the values."""

    def Boolean(self, name: str, **options: Any) -> bool:
        """True or False."""

    def conditional_scope(
        self, parent_name: str, parent_values: list[Value]
    ) -> contextlib.AbstractContextManager[None]:
        """Parameters inside are active while the parent has one of the values."""

    def is_active(self, hyperparameter: str) -> bool:
        """Whether the parameter is active."""


class HyperParameters:
    """Returns the parameter's default for every request. Subclasses override `suggest`."""

    def __init__(self) -> None:
        self.values: Params = {}
        self.space: list[Parameter] = []
        self._scopes: list[Condition] = []
        self._names: list[str] = []

    def suggest(self, parameter: Parameter) -> Value:
        """The value of an active parameter, asked for once per trial."""
        return parameter.default

    def Int(
        self,
        name: str,
        min_value: int,
        max_value: int,
        step: int | None = None,
        sampling: Sampling = "linear",
        default: int | None = None,
        parent_name: str | None = None,
        parent_values: list[Value] | None = None,
    ) -> int:
        """A whole number; on a log scale `step` is a factor, as in Keras Tuner."""
        parameter = int_parameter(name, min_value, max_value, step, sampling, default)
        return self._retrieve(parameter, parent_name, parent_values)  # type: ignore[return-value]

    def Float(
        self,
        name: str,
        min_value: float,
        max_value: float,
        step: float | None = None,
        sampling: Sampling = "linear",
        default: float | None = None,
        parent_name: str | None = None,
        parent_values: list[Value] | None = None,
    ) -> float:
        """A number; without `step` any in the range."""
        parameter = float_parameter(name, min_value, max_value, step, sampling, default)
        return self._retrieve(parameter, parent_name, parent_values)  # type: ignore[return-value]

    def Choice(
        self,
        name: str,
        values: list[Value],
        ordered: bool | None = None,
        default: Value | None = None,
        parent_name: str | None = None,
        parent_values: list[Value] | None = None,
    ) -> Value:
        """One of the values.

        Keras Tuner takes numbers for ordered unless told otherwise; here only `ordered=True` does.
        """
        parameter = choice_parameter(name, values, ordered=bool(ordered), default=default)
        return self._retrieve(parameter, parent_name, parent_values)

    def Boolean(
        self,
        name: str,
        default: bool = False,
        parent_name: str | None = None,
        parent_values: list[Value] | None = None,
    ) -> bool:
        """False or True."""
        parameter = boolean_parameter(name, default)
        return self._retrieve(parameter, parent_name, parent_values)  # type: ignore[return-value]

    def Fixed(
        self,
        name: str,
        value: Value,
        parent_name: str | None = None,
        parent_values: list[Value] | None = None,
    ) -> Value:
        """A constant that is recorded like a parameter."""
        return self._retrieve(fixed_parameter(name, value), parent_name, parent_values)

    @contextlib.contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Prefixes the names created inside with `name/`."""
        self._names.append(name)
        try:
            yield
        finally:
            self._names.pop()

    @contextlib.contextmanager
    def conditional_scope(self, parent_name: str, parent_values: list[Value]) -> Iterator[None]:
        """Parameters created inside are active only while the parent has one of the values.

        Raises:
            ValueError: The parent was not created before.
        """
        parent = self._scoped(parent_name)
        if not any(known.name == parent for known in self.space):
            raise ValueError(f"`HyperParameter` named: {parent} not defined.")
        self._scopes.append(Condition(parent, tuple(parent_values)))
        try:
            yield
        finally:
            self._scopes.pop()

    def is_active(self, hyperparameter: str) -> bool:
        """Whether any parameter of that name is active now."""
        return any(p.name == hyperparameter and self._holds(p.conditions) for p in self.space)

    def get(self, name: str) -> Value:
        """The value of an active parameter; raises KeyError for any other."""
        return self.values[self._scoped(name)]

    def _scoped(self, name: str) -> str:
        return "/".join([*self._names, name])

    def _holds(self, conditions: tuple[Condition, ...]) -> bool:
        return all(self.values.get(c.parent) in c.values for c in conditions)

    def _retrieve(
        self,
        declared: Parameter,
        parent_name: str | None = None,
        parent_values: list[Value] | None = None,
    ) -> Value:
        if parent_name is not None:
            with self.conditional_scope(parent_name, parent_values or []):
                return self._retrieve(declared)
        name = self._scoped(declared.name)
        parameter = replace(declared, name=name, conditions=tuple(self._scopes))
        if parameter not in self.space:
            self.space.append(parameter)
        if not self._holds(parameter.conditions):
            return None  # type: ignore[return-value]  # As in Keras Tuner.
        if parameter.name not in self.values:
            self.values[parameter.name] = self.suggest(parameter)
        return self.values[parameter.name]


class GivenHyperParameters(HyperParameters):
    """Returns values from a dict; parameters that it lacks take their default.

    Raises:
        InputError: A value outside its parameter's range (from the call that asks for it).
    """

    def __init__(self, given: Mapping[str, Value]) -> None:
        super().__init__()
        self._given = dict(given)

    def suggest(self, parameter: Parameter) -> Value:
        """The value of an active parameter."""
        value = self._given.get(parameter.name, parameter.default)
        if not parameter.contains(value):
            raise InputError(
                f"Parameter '{parameter.name}' must be in {parameter.range_text()}. "
                f"Received: {value!r}."
            )
        return value


class RandomHyperParameters(HyperParameters):
    """Uniform over each range (log-uniform where the sampling is logarithmic)."""

    def __init__(self, generator: np.random.Generator) -> None:
        super().__init__()
        self._generator = generator

    def suggest(self, parameter: Parameter) -> Value:
        """The value of an active parameter."""
        grid = parameter.grid()
        if grid is not None:
            return grid[int(self._generator.integers(len(grid)))]
        return parameter.from_unit(self._generator.random())


def declare(hp: Any, parameter: Parameter) -> Value:
    """Asks `hp` for a parameter under its conditions; returns None where it is inactive."""
    with contextlib.ExitStack() as scopes:
        for condition in parameter.conditions:
            scopes.enter_context(hp.conditional_scope(condition.parent, list(condition.values)))
        name, default = parameter.name, parameter.default
        if parameter.kind == "fixed":
            return hp.Fixed(name, default)  # type: ignore[no-any-return]
        if parameter.kind == "boolean":
            return hp.Boolean(name, default=default)  # type: ignore[no-any-return]
        if parameter.kind == "choice":
            choices = list(parameter.choices)
            return hp.Choice(  # type: ignore[no-any-return]
                name, choices, ordered=parameter.ordered, default=default
            )
        ask = hp.Int if parameter.kind == "int" else hp.Float
        return ask(  # type: ignore[no-any-return]
            name, parameter.low, parameter.high, step=parameter.step,
            sampling=parameter.sampling, default=default,
        )  # fmt: skip


def active_values(hp: HyperParametersLike) -> Params:
    """The active parameters of a sampled point, in the order in which they were created."""
    return {name: value for name, value in hp.values.items() if hp.is_active(name)}


def repeated(
    hp: HyperParametersLike, count_name: str, index: int, most: int
) -> contextlib.AbstractContextManager[None]:
    """The scope of the parameters of the `index`-th of `count_name` parts (the first is there)."""
    if index == 0:
        return contextlib.nullcontext()
    return hp.conditional_scope(count_name, list(range(index + 1, most + 1)))


def parameters_of(sample: Callable[[Any], Params]) -> tuple[Parameter, ...]:
    """Every parameter of a space, active or not, with its conditions.

    Code inside a `conditional_scope` runs whether or not it is active, so one pass sees all.
    """
    hp = HyperParameters()
    sample(hp)
    return tuple(hp.space)
