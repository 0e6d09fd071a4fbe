"""Keras Tuner's own `HyperParameters` whose values somebody else gives, one question at a time.

Imports Keras Tuner, and with it Keras: only for processes that may have them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras_tuner
from keras_tuner.src.engine.hyperparameters import hp_types

from search_spaces.hyperparameters.parameter import (
    Condition,
    Parameter,
    Params,
    Value,
    boolean_parameter,
    choice_parameter,
    fixed_parameter,
    float_parameter,
    int_parameter,
)

Answer = Callable[[Parameter], Value | None]
"""The value of a parameter; None for one that is inactive."""


class AskingHyperParameters(keras_tuner.HyperParameters):  # type: ignore[misc]
    """Asks for every parameter when it is declared; all else is Keras Tuner's own."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer

    def _register(self, hyperparameter: Any, overwrite: bool = False) -> Any:
        self._validate_name(hyperparameter.name)
        # Inactive ones are declared, too: whoever answers learns the whole space.
        value = self._answer(described(hyperparameter))
        if self.is_active(hyperparameter) and hyperparameter.name not in self.values:
            self.values[hyperparameter.name] = value
        return super()._register(hyperparameter, overwrite)


class MissingParameterError(LookupError):
    """A space asks for a parameter that a point does not hold."""


class HeldHyperParameters(keras_tuner.HyperParameters):  # type: ignore[misc]
    """Answers from a point; Keras Tuner's own takes the default of what a point lacks.

    A trial that did so would train with values that nothing records.
    """

    def __init__(self, params: Params) -> None:
        super().__init__()
        self.values = dict(params)

    def _register(self, hyperparameter: Any, overwrite: bool = False) -> Any:
        name = hyperparameter.name
        if self.is_active(hyperparameter) and name not in self.values:
            raise MissingParameterError(
                f"The space asked for '{name}', which its point does not hold: it was not asked "
                "for when the point was sampled. Declare it in build, or in fit before anything "
                "that depends on the data."
            )
        return super()._register(hyperparameter, overwrite)


def described(hp: Any) -> Parameter:
    """A parameter of Keras Tuner's as ours, with the values that Keras Tuner itself can reach.

    With a step that is no exact fraction of a range, it does not reach the upper end: 0 to 0.5 by
    0.1 ends at 0.4, because 0.5 // 0.1 is 4. A default that cannot be reached is the nearest value
    that can.
    """
    conditions = tuple(Condition(c.name, tuple(c.values)) for c in hp.conditions)
    parameter = _without_conditions(hp)
    return Parameter(
        **{**vars(parameter), "conditions": conditions,
           "default": parameter.nearest(parameter.default)}
    )  # fmt: skip


def _without_conditions(hp: Any) -> Parameter:
    if isinstance(hp, hp_types.Fixed):
        return fixed_parameter(hp.name, hp.value)
    if isinstance(hp, hp_types.Boolean):
        return boolean_parameter(hp.name, bool(hp.default))
    if isinstance(hp, hp_types.Choice):
        values = [float(v) if isinstance(v, float) else v for v in hp.values]
        return choice_parameter(hp.name, values, ordered=bool(hp.ordered), default=hp.default)
    low, high = hp.min_value, hp.max_value
    if hp.step is not None and hp.sampling == "linear":
        high = low + (hp._get_n_values() - 1) * hp.step
    make = int_parameter if isinstance(hp, hp_types.Int) else float_parameter
    return make(hp.name, low, high, hp.step, hp.sampling, hp.default)
