"""A sampler whose proposals follow from the sweep's seed, the trial's number and the history alone.

Optuna's samplers keep a random state in memory, which a killed process takes with it. Here every
proposal is made by a sampler of its own, with a seed of its own, so a resumed sweep proposes what
an uninterrupted one would have proposed, also for a trial that was killed half way through its
own proposal.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from sweeps.engines.base import LEFT_OUT_VALUE
from sweeps.engines.optuna_study.samplers import make_sampler

STATE_ATTRIBUTE, FACTS = "state", "facts"
"""User attributes of a trial."""
PAUSED = "PAUSED"


def is_paused(trial: FrozenTrial) -> bool:
    """Whether a trial waits at a rung; Optuna knows no such state and calls it RUNNING."""
    return trial.state is OptunaState.RUNNING and trial.user_attrs.get(STATE_ATTRIBUTE) == PAUSED


class PausedAsPruned:
    """A study as samplers should see it: a paused trial is one that was pruned where it stands.

    Left as RUNNING it would be taken for a bad point (by a constant liar) or for none at all (by
    the others), although its curve so far is known. Everything else is the study's own.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials."""
        return self.get_trials(deepcopy=False)

    def get_trials(
        self, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        """As `Study.get_trials`."""
        return self._get_trials(deepcopy, states)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[OptunaState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        """As `Study._get_trials`, which Optuna's samplers call."""
        found = []
        for trial in self._study._get_trials(deepcopy, None, use_cache):
            shown = trial
            if is_paused(trial):
                shown = copy.copy(trial)
                shown.state = OptunaState.PRUNED
            elif (value := trial.user_attrs.get(FACTS, {}).get(LEFT_OUT_VALUE)) is not None:
                # Judged after its training, so that no proposal follows from a time.
                shown = copy.copy(trial)
                shown.state, shown.values = OptunaState.COMPLETE, [value]
            if states is None or shown.state in states:
                found.append(shown)
        return found


class ReplayableSampler(optuna.samplers.BaseSampler):
    """Wraps the named sampler; `exhausted` says that a grid has no point left."""

    def __init__(
        self,
        name: str,
        seed: int,
        num_parallel: int,
        known_points: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._make: Callable[[int], optuna.samplers.BaseSampler] = lambda trial_seed: make_sampler(
            name, seed, num_parallel, trial_seed, known_points
        )
        self._seed = seed
        self._current: optuna.samplers.BaseSampler = self._make(0)
        self.exhausted = False

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Starts a proposal: a new sampler, seeded for this trial."""
        self._current = self._make(self._derived(trial.number))
        return self._current.infer_relative_search_space(_view(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters that are sampled together."""
        return self._current.sample_relative(_view(study), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """One parameter, seeded by its name too: those before it may be stored already."""
        seed = self._derived(trial.number, zlib.crc32(param_name.encode()))
        return self._make(seed).sample_independent(
            _view(study), trial, param_name, param_distribution
        )

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Nothing: the proposal starts where the search space is asked for."""

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: OptunaState,
        values: Sequence[float] | None,
    ) -> None:
        """Lets the sampler see an end; a grid learns here that it is exhausted."""
        try:
            self._current.after_trial(_view(study), trial, state, values)
        except RuntimeError as error:
            # At the last point the grid calls Study.stop, which refuses outside of `optimize`.
            if "Study.stop" not in str(error):
                raise
            self.exhausted = True

    def _derived(self, *parts: int) -> int:
        return int(np.random.SeedSequence([self._seed, *parts]).generate_state(1)[0])


def _view(study: optuna.Study) -> optuna.Study:
    return PausedAsPruned(study)  # type: ignore[return-value]
