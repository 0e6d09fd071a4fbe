"""The points that the others of a sweep are told by: the defaults and the published models."""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.errors import InputError
from search_spaces.registry import get_space
from search_spaces.space import DEFAULT_NAME
from search_spaces.user_spaces.reference import is_reference
from sweeps.history.recorded_sweep import RecordedSweep

DEFAULTS = "defaults"


def recorded_references(sweep: RecordedSweep) -> dict[str, Mapping[str, object]]:
    """Those of a recorded sweep; a user's space is not asked: it shows what its trials say."""
    space = sweep.file.settings.space
    if not is_reference(space):
        try:
            return dict(get_space(space).known_points)
        except InputError:  # It was a space of an earlier version.
            pass
    named = {trial.baseline: trial.params for trial in sweep.trials.values() if trial.baseline}
    return {
        DEFAULTS if DEFAULT_NAME in label.split(", ") else label.partition(",")[0]: params
        for label, params in named.items()
    }
