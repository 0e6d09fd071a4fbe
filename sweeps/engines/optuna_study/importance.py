"""How much each parameter matters, from points and what they reached."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)


def importance_of(
    points: Sequence[Mapping[str, object]], values: Sequence[float]
) -> dict[str, float]:
    """Shares that sum to 1, by PED-ANOVA over the better points; {} where all are equal.

    Watanabe, Bansal and Hutter, IJCAI 2023, arXiv 2304.10255.

    Args:
        points: name -> value; None where a parameter is not active.
        values: what each reached; more is better.
    """
    names = [name for name in points[0] if all(point[name] is not None for point in points)]
    distributions = {name: _distribution([point[name] for point in points]) for name in names}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for point, value in zip(points, values, strict=True):
        params: dict[str, Any] = {name: point[name] for name in names}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=value)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        try:
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError):
            return {}


def _distribution(values: Sequence[object]) -> BaseDistribution:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)  # type: ignore[type-var]
        is_log = float(low) > 0 and float(high) / float(low) > 50  # type: ignore[arg-type]
        return FloatDistribution(float(low), float(high), log=is_log)  # type: ignore[arg-type]
    return CategoricalDistribution(sorted(set(values), key=repr))  # type: ignore[type-var,arg-type]
