"""The objective of a sweep: what was asked for, or the number that the space's `fit` returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipelines.objectives import OBJECTIVES, get_objective
from search_spaces.errors import InputError, shortened
from search_spaces.recorded_metrics import recorded_metric
from search_spaces.space import Space
from search_spaces.user_spaces.fit_values import RETURNED_NUMBER
from search_spaces.user_spaces.reference import label_of
from sweeps.settings import SweepSettings


def with_objective(
    settings: SweepSettings, space: Space, say: Callable[[str], None], *, asked: bool
) -> SweepSettings:
    """The settings of a sweep with its objective, which its space has.

    Args:
        asked: whether the objective was asked for; a target names it, too.

    Raises:
        InputError: The space does not give the objective.
    """
    returns_number = RETURNED_NUMBER in (space.own_metrics or ())
    if returns_number and not asked and settings.target is None:
        say(
            f"objective {RETURNED_NUMBER}: the number that the fit of '{label_of(settings.space)}' "
            f"returns, minimised as in Keras Tuner (for accuracy: --objective {settings.objective})"
        )
        return replace(settings, objective=RETURNED_NUMBER)
    metric = get_objective(settings.objective).metric
    known = space.own_metrics
    if metric in OBJECTIVES or known is None or metric in map(recorded_metric, known):
        return settings
    there = [*OBJECTIVES, *(name for name in known if name not in OBJECTIVES)]
    raise InputError(
        "--objective must be something that the space measures. Received: "
        f"{shortened(metric)}, which neither the fit nor the metrics of "
        f"'{label_of(settings.space)}' give. Choose one of: "
        f"{', '.join(there)}."
    )
