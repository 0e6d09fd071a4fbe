"""One dimension of a space: its range, when it is active, and how a run records its value."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Value = int | float | str | bool
Params = dict[str, Value]
Kind = Literal["int", "float", "choice", "boolean", "fixed"]
Sampling = Literal["linear", "log", "reverse_log"]
INACTIVE = "inactive"
"""The value of a parameter that is not active: parallel coordinates show only complete runs."""
RUN_PARAMS = ("max_epochs", "steps_per_epoch", "train_on", "last_epoch")
"""Params of a run that its space does not know."""
_PREFIX = "hp/"
_NAME = re.compile(r"[\w.:-][\w.: -]*(/[\w.:-][\w.: -]*)*", re.ASCII)
_MAX_NAME = 200
"""MLflow takes letters, digits, `_-. :/`, a normalised path of at most 250 characters."""


@dataclass(frozen=True)
class Condition:
    """Holds while the parameter `parent` has one of `values`."""

    parent: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Parameter:
    """One dimension of a space. `low`, `high` and `step` are None unless it is numeric.

    Attributes:
        ordered: whether the choices lie on a line, in the order in which they are given.
    """

    name: str
    kind: Kind
    default: Value
    choices: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    sampling: Sampling = "linear"
    conditions: tuple[Condition, ...] = ()
    ordered: bool = False

    @property
    def domain(self) -> tuple[object, ...]:
        """All that the values follow from: two parameters of one name may differ in it."""
        return self.kind, self.choices, self.low, self.high, self.step, self.sampling, self.ordered

    def contains(self, value: object) -> bool:  # noqa: PLR0911
        """Whether `value` lies in the parameter's range and on its grid."""
        if self.kind in ("choice", "boolean", "fixed"):
            # True == 1 in Python, so the type is compared too.
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        assert self.low is not None and self.high is not None
        if self.kind == "int" and not float(value).is_integer():
            return False
        slack = 1e-12 * max(abs(self.low), abs(self.high))  # 0.9000000000000001 is 0.9.
        if not self.low - slack <= value <= self.high + slack:
            return False
        if self.step is None:
            return True
        if self.sampling != "linear":
            return any(
                math.isclose(value, float(point), rel_tol=1e-9) for point in self.grid() or ()
            )
        steps = (value - self.low) / self.step
        return abs(steps - round(steps)) < 1e-6

    def grid(self) -> tuple[Value, ...] | None:
        """Every value, in order, or None for a continuous range."""
        if self.kind in ("choice", "boolean", "fixed"):
            return self.choices
        if self.step is None:
            return None
        assert self.low is not None and self.high is not None
        low, high, step = self.low, self.high, self.step
        if self.sampling == "linear":
            count = int((high - low) / step + 1e-9)
            # 0.30000000000000004 is 0.3; the digits that a tiny step needs stay.
            digits = max(10, 10 - math.floor(math.log10(step)))
            values = [round(low + step * k, digits) for k in range(count + 1)]
        else:
            # Keras Tuner reads a step on a log scale as a factor, in reverse counted from the top.
            count = int(math.log(high / low, step) + 1e-8)
            values = [low * step**k for k in range(count + 1)]
            if self.sampling == "reverse_log":
                values = [high + low - value for value in reversed(values)]
            values = [float(f"{value:.12g}") for value in values]
        return tuple(round(value) for value in values) if self.kind == "int" else tuple(values)

    def from_unit(self, unit: float) -> Value:
        """The value at a share from 0 to 1 of the range, as Keras Tuner's `prob_to_value`."""
        grid = self.grid()
        if grid is not None:
            return grid[min(int(unit * len(grid)), len(grid) - 1)]
        low, top, whole = *self._span(), self.kind == "int"
        if self.sampling == "linear":
            value = low + (top - low) * unit
        elif self.sampling == "log":
            value = low * (top / low) ** unit
        else:
            # Rounded, so that a value comes back from its own share (`to_unit`).
            value = float(f"{top + low - low * (top / low) ** (1.0 - unit):.12g}")
        return min(int(value), int(top) - 1) if whole else value

    def to_unit(self, value: float) -> float:
        """The share of the range at which `from_unit` has the value; of a continuous range only."""
        low, top = self._span()
        value += 0.5 if self.kind == "int" else 0.0  # The middle of what becomes this number.
        if top == low:
            return 0.5
        if self.sampling == "linear":
            return (value - low) / (top - low)
        if self.sampling == "log":
            return math.log(value / low) / math.log(top / low)
        return 1.0 - math.log((top + low - value) / low) / math.log(top / low)

    def _span(self) -> tuple[float, float]:
        """Lower end, and the upper end that whole numbers are cut from: 1 to 3 is 1.0 to 4.0."""
        assert self.low is not None and self.high is not None
        return self.low, self.high + 1 if self.kind == "int" else self.high

    def nearest(self, value: Value) -> Value:
        """The value itself where the parameter has it; else the first choice, or the nearest."""
        if self.contains(value):
            return value
        if self.low is None or self.high is None or isinstance(value, bool | str):
            return self.choices[0] if self.choices else self.default
        grid = self.grid() or (self.low, self.high)
        found = min(grid, key=lambda point: abs(float(point) - float(value)))
        inside = self.grid() is None and self.low <= value <= self.high
        return round(value) if inside and self.kind == "int" else found

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


def int_parameter(
    name: str,
    low: int,
    high: int,
    step: int | None = None,
    sampling: Sampling = "linear",
    default: int | None = None,
) -> Parameter:
    """A whole number; on a log scale `step` is a factor."""
    if step is None and sampling == "linear":
        step = 1
    start = low if default is None else default
    return Parameter(name, "int", start, low=low, high=high, step=step, sampling=sampling)


def float_parameter(
    name: str,
    low: float,
    high: float,
    step: float | None = None,
    sampling: Sampling = "linear",
    default: float | None = None,
) -> Parameter:
    """A number; without `step` any in the range."""
    start = float(low if default is None else default)
    return Parameter(name, "float", start, low=low, high=high, step=step, sampling=sampling)


def choice_parameter(
    name: str, values: Sequence[Value], *, ordered: bool = False, default: Value | None = None
) -> Parameter:
    """One of the values; like Keras Tuner's it makes 1 and 0 of True and False."""
    choices = tuple(int(value) if isinstance(value, int) else value for value in values)
    start = choices[0] if default is None else default
    start = int(start) if isinstance(start, int) else start
    return Parameter(name, "choice", start, choices=choices, ordered=ordered)


def boolean_parameter(name: str, default: bool = False) -> Parameter:
    """False or True."""
    return Parameter(name, "boolean", default, choices=(False, True))


def fixed_parameter(name: str, value: Value) -> Parameter:
    """A constant that is recorded like a parameter."""
    return Parameter(name, "fixed", value, choices=(value,))


def recorded_name(name: str) -> str:
    """The param under which a parameter is recorded: its own name wherever that is possible."""
    parts = name.split("/")
    is_plain = _NAME.fullmatch(name) and len(name) <= _MAX_NAME and not {".", ".."} & set(parts)
    if is_plain and name not in RUN_PARAMS and not name.startswith(_PREFIX):
        return name
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[: _MAX_NAME // 2]
    return f"{_PREFIX}{readable}-{zlib.crc32(name.encode()):08x}"


def recorded_value(value: Value) -> str:
    """The text of a value; a choice that is called like what is inactive gets quotes."""
    text = str(value)
    return f"'{text}'" if isinstance(value, str) and text.strip("'") == INACTIVE else text


def recorded_params(parameters: Iterable[Parameter], params: Mapping[str, Value]) -> dict[str, str]:
    """A point as a run's params, with every parameter of its space.

    Args:
        params: the point; it may hold parameters that nobody knew of before.
    """
    names = [*dict.fromkeys(parameter.name for parameter in parameters), *params]
    return {
        recorded_name(name): recorded_value(params[name]) if name in params else INACTIVE
        for name in names
    }
