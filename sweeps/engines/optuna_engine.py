"""Optuna by ask and tell; the driver that holds this engine is the study's only writer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState as OptunaState

from pipelines.objectives import Objective
from search_spaces.errors import InputError, redacted
from search_spaces.hyperparameters import Params
from search_spaces.space import Space
from sweeps.engines.base import Proposal, TrialState
from sweeps.engines.samplers import make_sampler
from sweeps.engines.study_plots import study_page
from sweeps.engines.suggestions import OptunaHyperParameters, grid_values, storage_values
from sweeps.settings import used_name

optuna.logging.set_verbosity(optuna.logging.ERROR)  # Its hints are not for our users.

_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    # Optuna has no state for it: the user attribute `state` tells the two apart.
    TrialState.KILLED: OptunaState.FAIL,
}


class OptunaEngine:
    """One Optuna study over a space.

    Args:
        storage: the opened storage (`open_storage`).
        name: the study's name; it must be new.
        baselines: names and complete points that are proposed first, in this order.

    Raises:
        InputError: The storage holds a study of that name.
    """

    def __init__(
        self,
        space: Space,
        objective: Objective,
        storage: optuna.storages.BaseStorage,
        name: str,
        sampler: str,
        seed: int,
        num_parallel: int = 1,
        baselines: Sequence[tuple[tuple[str, ...], Params]] = (),
    ) -> None:
        self._space = space
        self._trials: dict[int, optuna.Trial] = {}
        points = [params for _, params in baselines]
        self._grid = grid_values(space.parameters, points) if sampler == "grid" else None
        try:
            self._study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction=objective.direction,
                sampler=make_sampler(sampler, seed, num_parallel),
                pruner=optuna.pruners.NopPruner(),
            )
        except optuna.exceptions.DuplicatedStudyError:
            raise used_name(name) from None
        self._study.set_user_attr("space", space.name)
        self._study.set_user_attr("space_fingerprint", space.fingerprint)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study.set_metric_names([objective.metric])
        for names, params in baselines:
            self._study.enqueue_trial(
                storage_values(params, space.parameters), user_attrs={"baseline": ", ".join(names)}
            )

    def ask(self) -> Proposal | None:
        """The next trial, or None when a grid is exhausted."""
        if getattr(self._study.sampler, "exhausted", False):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            trial = self._study.ask()
            self._trials[trial.number] = trial
            try:
                params = self._space.sample(OptunaHyperParameters(trial, self._grid))
            except BaseException:
                # The study knows the trial already: it must not stay RUNNING for ever.
                self.tell(trial.number, TrialState.FAILED, None, "the space could not be sampled")
                raise
        return Proposal(trial.number, params, trial.user_attrs.get("baseline"))

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Records the objective after an epoch; without a pruner every trial goes on."""
        self._trials[number].report(value, epoch)
        return True

    def tell(
        self, number: int, state: TrialState, value: float | None = None, reason: str = ""
    ) -> None:
        """Ends a trial in the study; the reason is kept as a user attribute."""
        trial = self._trials[number]
        trial.set_user_attr("state", state.value)
        if reason:
            trial.set_user_attr("reason", reason)
        values = value if state is TrialState.COMPLETE else None
        self._study.tell(trial, values, state=_STATES[state])
        del self._trials[number]  # Only now: what could not be written can be told again.

    def plots_html(self) -> str:
        """History, importances, slices and parallel coordinates on one page."""
        return study_page(self._study, self._space.fingerprint)


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Opens (and creates, where it is a file) the storage of studies.

    Raises:
        InputError: It cannot be opened.
    """
    kwargs: dict[str, Any] = {}
    if url.startswith("sqlite"):
        kwargs = {"engine_kwargs": {"connect_args": {"timeout": 60}}}
    try:
        if kwargs:
            return optuna.storages.RDBStorage(url, **kwargs)
        return optuna.storages.get_storage(url)  # type: ignore[return-value]
    except Exception as error:  # SQLAlchemy, the driver and Optuna each raise their own.
        raise InputError(
            "--storage must be a database that Optuna can use. Received: "
            f"{redacted(url)} ({type(error).__name__})."
        ) from error


def study_exists(storage: optuna.storages.BaseStorage, name: str) -> bool:
    """Whether the storage holds a study of that name."""
    try:
        storage.get_study_id_from_name(name)
    except KeyError:
        return False
    return True
