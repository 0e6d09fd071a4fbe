"""The objective of a sweep: what was asked for, or the number that the space's `fit` returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipelines.objectives import check_measured
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
    check_measured(settings.objective, space.own_metrics, label_of(settings.space))
    return settings
