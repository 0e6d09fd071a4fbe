"""Optuna by ask and tell; the driver that holds this engine is the study's only writer."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from pipelines.objectives import Objective
from pipelines.training.trial import Decision
from search_spaces.errors import InputError
from search_spaces.hyperparameters import Params, Value
from search_spaces.space import DEFAULT_NAME, Space
from sweeps.engines.base import RUN_PAGE, PastTrial, Proposal, TrialState
from sweeps.engines.limits import Limit
from sweeps.engines.optuna_study.dashboard import note_trial
from sweeps.engines.optuna_study.drafts import Draft, Drafts, Economy, drawn
from sweeps.engines.optuna_study.forecasts import MEASURED, features_of
from sweeps.engines.optuna_study.hyperparameters import (
    Grid,
    OptunaHyperParameters,
    StoredNames,
    storage_values,
    stored_defaults,
)
from sweeps.engines.optuna_study.prior_sampler import PROPOSED_BY, Origin, origin_of
from sweeps.engines.optuna_study.replayable_sampler import (
    FACTS,
    PAUSED,
    STATE_ATTRIBUTE,
    ReplayableSampler,
    is_paused,
)
from sweeps.engines.optuna_study.samplers import prior_sampler
from sweeps.engines.optuna_study.sole_writer import SoleWriterStorage
from sweeps.engines.optuna_study.storage import BASELINE, SAMPLED, past_trial, stored_params
from sweeps.engines.optuna_study.unit_cube import single_value
from sweeps.engines.pruners.base import TrialCurve
from sweeps.engines.pruners.registry import make_pruner, optuna_pruner
from sweeps.engines.pruners.rungs import ONE_EPOCH, Rungs
from sweeps.formatting import params_text

_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    # Optuna has no state for it: the user attribute `state` tells the two apart.
    TrialState.KILLED: OptunaState.FAIL,
}
RESTART, ORIGIN, MEMORY = "restart_of", "origin", "memory"


class StudyExistsError(Exception):
    """The storage holds a study of that name already, of another sweep."""


class OptunaEngine:
    """One Optuna study over a space.

    Args:
        storage: the opened storage (`open_storage`).
        name: the study's name; new, or that of the study to resume.
        baselines: names and complete points that are proposed first, in this order.
        pruner: name of the pruner.
        rungs: where trials are compared, under a pruner that has rungs.
        warmup_epochs: before them Optuna's own pruners stop nothing.
        protect_baselines: whether baselines are trained in full whatever they reach.
        limits: what points may cost. `prior` and `random` keep them while proposing; what others
            propose, and a baseline, is marked as breaking one.
        quantities: those of a point that are known before it trains, for the limits.
        cost: multiply-adds of a point, None where they are unknown: `prior` weighs points by them.
        is_timed: whether the sweep has a time limit: then times that were measured count, too.
        longest_epoch: seconds; with a time limit `prior` proposes nothing that it expects to take
            longer for an epoch.
        resume: whether to go on with an existing study.
        uid: the sweep's own; a study of another sweep is not touched.

    Raises:
        StudyExistsError: The storage holds a study of that name, of another sweep.
        InputError: To resume, it holds none of that space; or no point was found that keeps the
            limits, and there is no study then.
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
        pruner: str = "none",
        rungs: Rungs = ONE_EPOCH,
        *,
        warmup_epochs: int = 1,
        limits: Sequence[Limit] = (),
        quantities: Callable[[Params], Mapping[str, float]] | None = None,
        cost: Callable[[Params], float | None] | None = None,
        is_timed: bool = False,
        longest_epoch: float | None = None,
        protect_baselines: bool = True,
        resume: bool = False,
        uid: str = "",
    ) -> None:
        self._space = space
        self._protect = protect_baselines
        self._trials: dict[int, optuna.Trial] = {}
        self._curves: dict[int, TrialCurve] = {}
        self._points: dict[str, int] = {}
        self._added: set[str] = set()
        points = [params for _, params in baselines]
        self._grid = Grid(points) if sampler == "grid" else None
        self._names = StoredNames(space.parameters)
        self._economy = Economy(tuple(limits), quantities, cost, is_timed, longest_epoch)
        known_points = self._known_points() if sampler == "prior" else ()
        self._sampler = ReplayableSampler(sampler, seed, num_parallel, known_points)
        self._draws_singly = sampler == "random"
        self._drafts: Drafts | None = None
        if sampler == "prior" or (sampler == "random" and limits):
            prior = prior_sampler(
                seed, known_points, rungs.reports.per_epoch,
                counts=lambda trial: self._competes(trial.user_attrs.get(FACTS, {})),
            )  # fmt: skip
            self._drafts = Drafts(
                prior, space, self._names, self._economy, seed, uniform=sampler == "random"
            )
        self._storage = SoleWriterStorage(storage)
        settings: dict[str, Any] = {
            "storage": self._storage, "study_name": name, "sampler": self._sampler,
            "pruner": optuna_pruner(pruner, warmup_epochs),
        }  # fmt: skip
        self._pruner = make_pruner(
            pruner,
            self._curves,
            objective,
            rungs,
            lambda number: self._trials[number].should_prune(),
        )
        if limits and self._drafts is not None and not resume:
            # What no point keeps is refused before there is a study; baselines would hide it.
            self._drafts.next(optuna.create_study(direction=objective.direction), lambda _: False)
        try:
            self._study = (
                optuna.load_study(**settings)
                if resume
                else optuna.create_study(direction=objective.direction, **settings)
            )
        except optuna.exceptions.DuplicatedStudyError:
            raise StudyExistsError(name) from None
        except KeyError:
            raise InputError(
                f"The Optuna study of sweep '{name}' is not in this --storage. Name the storage "
                "that the sweep began with."
            ) from None
        known = self._study.user_attrs
        if known.get("uid", uid) != uid:
            raise StudyExistsError(name)
        if "baselines" not in known:
            self._study.set_user_attr("uid", uid)
            self._describe(objective, baselines)
        if self._study.user_attrs["space_fingerprint"] != space.fingerprint:
            raise InputError(
                f"Sweep '{name}' cannot be resumed: its space '{space.name}' has changed since it "
                "began. Start a new sweep."
            )
        self._reload()
        self._enqueue_baselines()

    def _known_points(self) -> list[dict[str, Value]]:
        """The point of all defaults, conditional ones included, and the other published ones."""
        space = self._space
        return [
            stored_defaults(space.parameters, self._names),
            *(
                storage_values(params, space.sample, self._names)
                for names, params in space.distinct_baselines()
                if DEFAULT_NAME not in names
            ),
        ]

    def _describe(
        self, objective: Objective, baselines: Sequence[tuple[tuple[str, ...], Params]]
    ) -> None:
        self._study.set_user_attr("space", self._space.name)
        self._study.set_user_attr("space_fingerprint", self._space.fingerprint)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study.set_metric_names([objective.metric])
        # Last, and as one write: a kill before it means that all of this is done again.
        self._study.set_user_attr("baselines", [[list(names), p] for names, p in baselines])

    def _enqueue_baselines(self) -> None:
        """Enqueues the baselines that are not in the study yet."""
        stored = self._study.user_attrs.get("baselines", [])
        known = {trial.user_attrs.get(BASELINE) for trial in self._study.get_trials(deepcopy=False)}
        for names, params in stored:
            label = ", ".join(names)
            if label not in known:
                attributes: dict[str, Any] = {BASELINE: label}
                if DEFAULT_NAME in names:
                    attributes[PROPOSED_BY] = Origin("default").stored()
                self._enqueue(params, attributes)

    def _enqueue(self, params: Params, attributes: dict[str, Any]) -> None:
        values = storage_values(
            params, self._space.sample, self._names, as_grid=self._grid is not None
        )
        self.enqueue(values, attributes)

    def enqueue(self, values: Mapping[str, Value], attributes: Mapping[str, Any]) -> None:
        """Makes a point the next that is asked for, after those that wait already.

        Args:
            values: the point as it is stored (`storage_values`).
            attributes: JSON values that its trial keeps; the key `ORIGIN` passes to a repetition.
        """
        self._study.enqueue_trial(dict(values), user_attrs=dict(attributes))

    def add(self, params: Params) -> None:
        """Makes a point of somebody's own the next that is asked for.

        Raises:
            InputError: It is not on the grid, or it was tried before.
        """
        if self._grid is not None:
            raise InputError("--sampler grid tries the points of its grid only.")
        key = _point_key(params)
        if key in self._points or key in self._added:
            place = f"trial {self._points[key]}" if key in self._points else "next already"
            raise InputError(f"This point is {place}: {params_text(params)}")
        self._added.add(key)
        self._enqueue(params, {PROPOSED_BY: Origin("added").stored()})

    def has_waiting(self) -> bool:
        """Whether a point waits to be asked for."""
        return bool(self._study.get_trials(deepcopy=False, states=(OptunaState.WAITING,)))

    def origins(self) -> dict[int, Any]:
        """Trial -> what `enqueue` was given as its `ORIGIN`, waiting ones included."""
        trials = self._study.get_trials(deepcopy=False)
        return {t.number: t.user_attrs[ORIGIN] for t in trials if ORIGIN in t.user_attrs}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Keeps JSON values with the study, in one write."""
        self._study.set_user_attr(MEMORY, dict(memory))

    @property
    def memory(self) -> dict[str, Any]:
        """What was remembered last; empty for nothing."""
        return dict(self._study.user_attrs.get(MEMORY, {}))

    def _reload(self) -> None:
        """Makes the trials of earlier sessions known again."""
        trials = self._study.get_trials(deepcopy=False)
        restarted = {trial.user_attrs.get(RESTART) for trial in trials}
        for trial in trials:
            if trial.state is OptunaState.WAITING:
                continue
            running = trial.state is OptunaState.RUNNING
            params = self._sample(self._reopened(trial)) if running else self._params_of(trial)
            curve = self._know(trial.number, params, trial.user_attrs.get(BASELINE))
            curve.values.update(trial.intermediate_values)
            curve.paused = is_paused(trial)
            curve.complete = trial.state is OptunaState.COMPLETE
            failed = trial.state is OptunaState.FAIL
            curve.counts = not failed and self._competes(trial.user_attrs.get(FACTS, {}))
            self._pruner.changed(curve)
            if not failed:
                continue
            self._forget_point(trial.number)
            killed = trial.user_attrs.get(STATE_ATTRIBUTE) == TrialState.KILLED
            if killed and trial.number not in restarted and params:
                # Optuna cannot reopen what has ended: the point is proposed again as a new trial.
                attributes: dict[str, Any] = {RESTART: trial.number}
                for key in (BASELINE, ORIGIN, PROPOSED_BY):
                    if key in trial.user_attrs:
                        attributes[key] = trial.user_attrs[key]
                self._enqueue(params, attributes)

    def _reopened(self, trial: FrozenTrial) -> optuna.Trial:
        """The trial object of a running trial."""
        self._study._thread_local.cached_all_trials = None
        if trial.user_attrs.get(SAMPLED):
            # Nothing is to be sampled, so no sampler should think that something is.
            self._study.sampler = optuna.samplers.RandomSampler(seed=0)
        try:
            reopened = optuna.trial.Trial(self._study, trial._trial_id)
        finally:
            self._study.sampler = self._sampler
        self._trials[trial.number] = reopened
        return reopened

    def _params_of(self, trial: FrozenTrial) -> Params:
        return stored_params(trial, self._space, self._grid)

    def past(self) -> list[PastTrial]:
        """The trials that the study holds already, by number."""
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is OptunaState.WAITING:
                continue
            reopened = self._trials.get(trial.number)
            params = self._sample(reopened) if reopened else self._params_of(trial)
            first = self._points.get(_point_key(params))
            repeats = first is not None and first < trial.number and not trial.intermediate_values
            untrained = trial.state is OptunaState.RUNNING and not trial.intermediate_values
            breaks = self._economy.broken(params) if untrained and params else ""
            found.append(past_trial(trial, params, first if repeats else None, breaks))
        return found

    def ask(self) -> Proposal | None:
        """The next trial, or None when a grid is exhausted, or no new point was found.

        Raises:
            InputError: No point of the space keeps the limits.
        """
        if self._sampler.exhausted:
            return None
        if self._drafts is not None and not self.has_waiting():
            draft = self._drafts.next(self._study, lambda p: _point_key(p) in self._points)
            if draft is None:
                return None
            trial, params = self._begin(draft), draft.params
        elif self._draws_singly and not self.has_waiting():
            draft = self._drawn_singly()
            trial, params = self._begin(draft), draft.params
        else:
            trial, params = self._ask_optuna()
        baseline = trial.user_attrs.get(BASELINE)
        earlier = self._points.get(_point_key(params))
        self._know(trial.number, params, baseline).counts = earlier is None
        origin = origin_of(trial.user_attrs)
        return Proposal(
            trial.number, params, baseline, earlier,
            proposed_by=origin.text if origin else "",
            breaks_limit=self._economy.broken(params),
        )  # fmt: skip

    def _ask_optuna(self) -> tuple[optuna.Trial, Params]:
        """The trial of a point that waits, or that Optuna's sampler proposes by parameter."""
        # Not one commit: what a sampler or a space takes long for would lock the whole database.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            trial = self._study.ask()
            self._trials[trial.number] = trial
            try:
                return trial, self._sample(trial)
            except BaseException:
                # The study knows the trial already: it must not stay RUNNING for ever.
                self._not_sampled(trial.number)
                raise

    def _not_sampled(self, number: int) -> None:
        """A trial for whose point there is none; the next session goes on with the next number."""
        self._know(number, {}, None)
        self.tell(number, TrialState.FAILED, None, "the space could not be sampled")

    def _drawn_singly(self) -> Draft:
        """The point of a sampler that draws each parameter for itself, as Optuna would ask it."""
        trial = optuna.trial.create_trial(state=OptunaState.RUNNING)
        trial.number = self._storage.get_n_trials(self._study._study_id)

        def value(name: str, distribution: BaseDistribution) -> Any:
            if distribution.single():
                return single_value(distribution)
            return self._sampler.sample_independent(self._study, trial, name, distribution)

        try:
            return drawn(self._space, self._names, value)
        except Exception:
            self._not_sampled(self._begin(Draft({}, {}, {})).number)
            raise

    def _begin(self, draft: Draft) -> optuna.Trial:
        """The trial of a whole point, which the study gets in one write.

        Asked for by parameter it would be a write for each, which takes longer than all the rest.
        """
        attributes: dict[str, Any] = {SAMPLED: draft.params or True}
        if draft.origin is not None:
            attributes[PROPOSED_BY] = draft.origin.stored()
        template = optuna.trial.create_trial(
            state=OptunaState.RUNNING,
            params=dict(draft.stored),
            distributions=dict(draft.distributions),
            user_attrs=attributes,
        )
        trial_id = self._storage.create_new_trial(self._study._study_id, template)
        return self._reopened(self._storage.get_trial(trial_id))

    def _sample(self, trial: optuna.Trial) -> Params:
        known = trial.user_attrs.get(SAMPLED)
        if isinstance(known, dict):
            return known
        # A space that builds a model to be sampled is not to be asked twice.
        params = self._space.sample(OptunaHyperParameters(trial, self._grid, self._names))
        trial.set_user_attr(SAMPLED, params or True)
        return params

    def _know(self, number: int, params: Params, baseline: str | None) -> TrialCurve:
        protected = self._protect and baseline is not None
        curve = self._curves[number] = TrialCurve(number, protected=protected)
        if params:
            self._points.setdefault(_point_key(params), number)
        return curve

    def _forget_point(self, number: int) -> None:
        """A point that failed may be proposed, and trained, again."""
        for key, first in list(self._points.items()):
            if first == number:
                del self._points[key]

    def _competes(self, facts: Mapping[str, Any]) -> bool:
        """Whether others are compared with a trial at rungs, and drawn near it: not with one that
        broke a limit. What a time decides is not looked at where the seed is to decide everything.
        """
        return not (self._economy.is_timed and facts.get("breaks_limit"))

    def report(
        self, number: int, step: int, value: float, measured: Mapping[str, float] | None = None
    ) -> Decision:
        """Records the objective after a step, where it is new, and decides."""
        curve = self._curves[number]
        with self._storage.at_once():
            self._keep(number, measured or {})
            if step not in curve.values:
                self._trials[number].report(value, step)
        curve.values.setdefault(step, value)
        return self._pruner.decide(curve, step)

    def _keep(self, number: int, measured: Mapping[str, float]) -> None:
        """Keeps what was measured of a trial first, and what it is to be predicted from."""
        attributes = self._trials[number].user_attrs
        if measured and MEASURED not in attributes:
            params = attributes.get(SAMPLED)
            params = params if isinstance(params, dict) else {}
            features = features_of(params, self._economy.multiply_adds(params))
            self._trials[number].set_user_attr(MEASURED, {**features, **measured})

    def pause(self, number: int) -> None:
        """The trial waits at its rung: RUNNING for Optuna, `PAUSED` as user attribute."""
        self._trials[number].set_user_attr(STATE_ATTRIBUTE, PAUSED)
        self._curves[number].paused = True
        self._pruner.changed(self._curves[number])

    def next_promotion(self, *, no_more_trials: bool) -> int | None:
        """The paused trial to continue now."""
        number = self._pruner.next_promotion(no_more_trials=no_more_trials)
        if number is not None:
            self.resume(number)
        return number

    def resume(self, number: int) -> None:
        """A trial that waited goes on."""
        self._trials[number].set_user_attr(STATE_ATTRIBUTE, TrialState.RUNNING.value)
        curve = self._curves[number]
        curve.paused = False
        # The rung where it waited reports once more; the next one decides.
        curve.promoted_to = max(curve.promoted_to, 1 + max(curve.values, default=0))
        self._pruner.changed(curve)

    def unpromotable(self, num_trials: int) -> list[int]:
        """The paused trials that can never go on."""
        return self._pruner.unpromotable(num_trials)

    def tell(
        self,
        number: int,
        state: TrialState,
        value: float | None = None,
        reason: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Ends a trial in the study; state, reason and facts are kept as user attributes."""
        trial = self._trials[number]
        baseline = str(trial.user_attrs.get(BASELINE) or "")
        page = str((facts or {}).get(RUN_PAGE) or "")
        # By itself: somebody may write a note in the same moment, which then stays.
        note_trial(self._storage, self._study._study_id, trial._trial_id, baseline, page)
        with self._storage.at_once():
            trial.set_user_attr(STATE_ATTRIBUTE, state.value)
            if reason:
                trial.set_user_attr("reason", reason)
            if facts:
                trial.set_user_attr(FACTS, dict(facts))
            values = value if state is TrialState.COMPLETE else None
            self._study.tell(trial, values, state=_STATES[state])
        del self._trials[number]  # Only now: what could not be written can be told again.
        curve = self._curves[number]
        curve.paused, curve.complete = False, state is TrialState.COMPLETE
        curve.counts = curve.counts and self._competes(facts or {})
        if state in (TrialState.FAILED, TrialState.KILLED):
            curve.counts = False
            self._forget_point(number)
        self._pruner.changed(curve)


def _point_key(params: Params) -> str:
    return json.dumps(params, sort_keys=True)
