"""Keras Tuner's `HyperParameters` vocabulary, answered without importing Keras.

`keras_tuner.HyperParameters` cannot be imported without Keras and TensorFlow (about ten seconds),
so a space is written against the interface and any of these classes, or Keras Tuner's own, answers:

- `HyperParameters`: every parameter takes its default;
- `GivenHyperParameters`: values come from a dict (a baseline, a replayed run);
- `RandomHyperParameters`: uniform over the space, from a NumPy generator.

An inactive parameter (its conditional scope does not hold) is registered, returns None and has no
value, as in Keras Tuner.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from search_spaces.errors import InputError

Value = int | float | str | bool
Params = dict[str, Value]
Kind = Literal["int", "float", "choice", "boolean", "fixed"]
Sampling = Literal["linear", "log", "reverse_log"]


@dataclass(frozen=True)
class Condition:
    """Holds while the parameter `parent` has one of `values`."""

    parent: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Parameter:
    """One dimension of a space. `low`, `high` and `step` are None unless it is numeric."""

    name: str
    kind: Kind
    default: Value
    choices: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    sampling: Sampling = "linear"
    conditions: tuple[Condition, ...] = ()

    def contains(self, value: object) -> bool:
        """Whether `value` lies in the parameter's range and on its grid."""
        if self.kind in ("choice", "boolean", "fixed"):
            # True == 1 in Python, so the type is compared too.
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        assert self.low is not None and self.high is not None
        if self.kind == "int" and not float(value).is_integer():
            return False
        if not self.low <= value <= self.high:
            return False
        if self.step is None or self.sampling != "linear":
            return True
        steps = (value - self.low) / self.step
        return abs(steps - round(steps)) < 1e-6

    def grid(self) -> tuple[Value, ...] | None:
        """Every value, in order, or None for a continuous range."""
        if self.kind in ("choice", "boolean", "fixed"):
            return self.choices
        if self.step is None:
            return None
        assert self.low is not None and self.high is not None
        if self.sampling != "linear":
            # Keras Tuner reads a step on a log scale as a factor.
            count = int(math.log(self.high / self.low, self.step) + 1e-9)
            values = [self.low * self.step**k for k in range(count + 1)]
        else:
            count = int((self.high - self.low) / self.step + 1e-9)
            values = [self.low + self.step * k for k in range(count + 1)]
        if self.kind == "int":
            return tuple(round(value) for value in values)
        return tuple(round(value, 10) for value in values)

    def range_text(self) -> str:
        """The range as people read it: `16 to 64 by 16`, `0.0001 to 0.01 (log)`, `max | none`."""
        if self.kind in ("choice", "boolean", "fixed"):
            return " | ".join(_text(choice) for choice in self.choices)
        text = f"{_text(self.low)} to {_text(self.high)}"
        if self.step is not None and not (self.kind == "int" and self.step == 1):
            text += f" by {_text(self.step)}"
        return text + ("" if self.sampling == "linear" else f" ({self.sampling})")

    def condition_text(self) -> str:
        """When the parameter is active, or an empty string for always."""
        return " and ".join(
            f"{c.parent} = {' | '.join(_text(value) for value in c.values)}"
            for c in self.conditions
        )


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


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
    """Answers every request with the parameter's default. Subclasses override `suggest`."""

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
        if step is None and sampling == "linear":
            step = 1
        start = min_value if default is None else default
        return self._retrieve(  # type: ignore[return-value]
            parent_name, parent_values, name=name, kind="int", default=start,
            low=min_value, high=max_value, step=step, sampling=sampling,
        )  # fmt: skip

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
        start = min_value if default is None else default
        return self._retrieve(  # type: ignore[return-value]
            parent_name, parent_values, name=name, kind="float", default=float(start),
            low=min_value, high=max_value, step=step, sampling=sampling,
        )  # fmt: skip

    def Choice(
        self,
        name: str,
        values: list[Value],
        ordered: bool | None = None,
        default: Value | None = None,
        parent_name: str | None = None,
        parent_values: list[Value] | None = None,
    ) -> Value:
        """One of the values."""
        del ordered  # It steers Keras Tuner's own Gaussian process only.
        start = values[0] if default is None else default
        return self._retrieve(
            parent_name, parent_values, name=name, kind="choice", default=start,
            choices=tuple(values),
        )  # fmt: skip

    def Boolean(
        self,
        name: str,
        default: bool = False,
        parent_name: str | None = None,
        parent_values: list[Value] | None = None,
    ) -> bool:
        """False or True."""
        return self._retrieve(  # type: ignore[return-value]
            parent_name, parent_values, name=name, kind="boolean", default=default,
            choices=(False, True),
        )  # fmt: skip

    def Fixed(
        self,
        name: str,
        value: Value,
        parent_name: str | None = None,
        parent_values: list[Value] | None = None,
    ) -> Value:
        """A constant that is recorded like a parameter."""
        return self._retrieve(
            parent_name, parent_values, name=name, kind="fixed", default=value, choices=(value,)
        )

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
        parent_name: str | None,
        parent_values: list[Value] | None,
        *,
        name: str,
        **fields: object,
    ) -> Value:
        if parent_name is not None:
            with self.conditional_scope(parent_name, parent_values or []):
                return self._retrieve(None, None, name=name, **fields)
        parameter = Parameter(
            name=self._scoped(name), conditions=tuple(self._scopes), **fields  # type: ignore[arg-type]
        )  # fmt: skip
        if parameter not in self.space:
            self.space.append(parameter)
        if not self._holds(parameter.conditions):
            return None  # type: ignore[return-value]  # As in Keras Tuner.
        if parameter.name not in self.values:
            self.values[parameter.name] = self.suggest(parameter)
        return self.values[parameter.name]


class GivenHyperParameters(HyperParameters):
    """Answers from a dict; parameters that it lacks take their default.

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
        assert parameter.low is not None and parameter.high is not None
        low, high, unit = parameter.low, parameter.high, self._generator.random()
        if parameter.sampling == "log":
            value = low * (high / low) ** unit
        elif parameter.sampling == "reverse_log":
            value = high + low - low * (high / low) ** (1.0 - unit)
        else:
            value = low + (high - low) * unit
        return round(value) if parameter.kind == "int" else float(value)


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
