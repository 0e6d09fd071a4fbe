"""Keras Tuner's vocabulary of hyperparameters, without Keras."""

from search_spaces.hyperparameters.hyperparameters import (
    Condition,
    GivenHyperParameters,
    HyperParameters,
    HyperParametersLike,
    Parameter,
    Params,
    RandomHyperParameters,
    Value,
    active_values,
    declare,
    parameters_of,
    repeated,
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
