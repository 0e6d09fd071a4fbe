"""The points that the others of a sweep are told by: the defaults and the published models."""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.errors import InputError
from search_spaces.registry import get_space
from search_spaces.space import DEFAULT_NAME, Space
from search_spaces.user_spaces.reference import is_reference
from sweeps.history.recorded_sweep import RecordedSweep

DEFAULTS = "defaults"


def references_of(space: Space) -> dict[str, Mapping[str, object]]:
    """Those of a space: the point of all defaults, then the published models."""
    found: dict[str, Mapping[str, object]] = {DEFAULTS: space.complete({})}
    for names, params in space.distinct_baselines():
        if DEFAULT_NAME not in names:
            found[names[0]] = params
    return found


def recorded_references(sweep: RecordedSweep) -> dict[str, Mapping[str, object]]:
    """Those of a recorded sweep; a user's space is not asked: it shows what its trials say."""
    space = sweep.file.settings.space
    if not is_reference(space):
        try:
            return references_of(get_space(space))
        except InputError:  # It was a space of an earlier version.
            pass
    named = {trial.baseline: trial.params for trial in sweep.trials.values() if trial.baseline}
    return {
        DEFAULTS if DEFAULT_NAME in label.split(", ") else label.partition(",")[0]: params
        for label, params in named.items()
    }
