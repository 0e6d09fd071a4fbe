"""Keras Tuner's oracles as an engine: they propose, an Optuna study remembers.

The study is the one record of both engines, so resuming, `doctor`, finalists, replays and figures
are the same. What an oracle remembers beside its trials is written with each proposal, before the
proposal becomes a trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.objectives import Objective
from pipelines.training.trial import Decision
from search_spaces.errors import InputError
from search_spaces.hyperparameters import Params
from search_spaces.hyperparameters.parameter import Condition, Parameter, Value
from search_spaces.space import Space
from sweeps.engines.base import PastTrial, Proposal, TrialState, Wait
from sweeps.engines.keras_tuner_oracles.protocol import (
    EPOCHS,
    PAST_ID,
    OracleAnswer,
    OracleQuestion,
    OracleStatus,
    OracleTrial,
    Propose,
)
from sweeps.engines.optuna_study.engine import ORIGIN, OptunaEngine
from sweeps.engines.optuna_study.hyperparameters import StoredNames, StoringHyperParameters


@dataclass
class _TrialProgress:
    """How far a trial is."""

    params: Mapping[str, Value]
    state: TrialState = TrialState.RUNNING
    value: float | None = None
    curve: dict[int, float] = field(default_factory=dict)


class KerasTunerEngine:
    """One of Keras Tuner's oracles over a space.

    The Hyperband oracle makes a new trial for every rung; here the trial itself goes on, from its
    own checkpoint.

    Args:
        record: the study; its sampler is never asked, its pruner decides except with Hyperband.
        propose: asks the oracle (`worker.propose`, in a process that has Keras).
    """

    def __init__(
        self,
        record: OptunaEngine,
        space: Space,
        objective: Objective,
        oracle: str,
        seed: int,
        max_epochs: int,
        reduction_factor: int,
        propose: Propose,
    ) -> None:
        self._record, self._space, self._objective = record, space, objective
        self._oracle, self._seed, self._propose = oracle, seed, propose
        self._max_epochs, self._factor = max_epochs, reduction_factor
        memory = record.memory
        self._state: dict[str, Any] = memory.get("state", {})
        self._promotions: list[dict[str, Any]] = memory.get("promotions", [])
        self._found = [_parameter(fields) for fields in memory.get("parameters", [])]
        self._enqueue_lost(memory.get("proposal"))
        self._progress = {
            trial.number: _TrialProgress(trial.params, trial.state, trial.value, dict(trial.curve))
            for trial in record.past()
        }
        self._origins = record.origins()
        self._in_full: set[int] = set()
        self._answer: OracleAnswer | None = None

    def _enqueue_lost(self, proposal: dict[str, Any] | None) -> None:
        """Enqueues a proposal that a kill kept from becoming a trial."""
        known = {origin["id"] for origin in self._record.origins().values()}
        if proposal is not None and proposal["origin"]["id"] not in known:
            self._record.enqueue(proposal["stored"], {ORIGIN: proposal["origin"]})

    def past(self) -> list[PastTrial]:
        """The trials that the study holds already, by number."""
        return self._record.past()

    def ask(self) -> Proposal | Wait | None:
        """The next trial: a baseline, what was killed, or the oracle's proposal."""
        if not self._record.has_waiting():
            answer = self._asked()
            if answer.status == "IDLE" or PAST_ID in answer.values:
                return Wait()
            if answer.status == "STOPPED":
                return None
            self._take(answer)
        proposal = self._record.ask()
        assert proposal is not None
        self._progress[proposal.number] = _TrialProgress(proposal.params)
        self._origins, self._answer = self._record.origins(), None
        return proposal

    def add(self, params: Params) -> None:
        """Raises InputError: this engine proposes only points of its own."""
        del params
        raise InputError(
            "Points can be added to a sweep of --engine optuna only: an oracle of Keras Tuner "
            "proposes every point itself."
        )

    def report(
        self, number: int, step: int, value: float, measured: Mapping[str, float] | None = None
    ) -> Decision:
        """Records the objective; with Hyperband a trial waits at its rung.

        Under an oracle a step is an epoch.
        """
        decision = self._record.report(number, step, value, measured)
        self._progress[number].curve[step] = value
        at_rung = step == self._target(number) and step < self._max_epochs
        if at_rung and number not in self._in_full:
            return Decision.PAUSE
        return decision

    def pause(self, number: int) -> None:
        """The trial waits at its rung."""
        self._record.pause(number)
        self._progress[number].state = TrialState.PAUSED
        self._answer = None

    def next_promotion(self, *, no_more_trials: bool) -> int | None:
        """The paused trial that goes on now; with Hyperband the oracle names it."""
        if self._oracle != "hyperband":
            number = self._record.next_promotion(no_more_trials=no_more_trials)
        else:
            number = self._promoted()
            if number is None and no_more_trials:
                number = self._last_resort()
        if number is not None:
            self._progress[number].state = TrialState.RUNNING
            self._answer = None
        return number

    def resume(self, number: int) -> None:
        """A trial that waited goes on to its end, whatever the oracle says."""
        self._in_full.add(number)
        self._record.resume(number)
        self._progress[number].state = TrialState.RUNNING
        self._answer = None

    def unpromotable(self, num_trials: int) -> list[int]:
        """The paused trials that can never go on; an oracle may send each of its own on."""
        return [] if self._oracle == "hyperband" else self._record.unpromotable(num_trials)

    def tell(
        self,
        number: int,
        state: TrialState,
        value: float | None = None,
        reason: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Ends a trial."""
        self._record.tell(number, state, value, reason, facts)
        progress = self._progress[number]
        progress.state, progress.value = state, value
        self._answer = None

    # What the oracle is asked, and what follows from its answers

    def _asked(self) -> OracleAnswer:
        """The oracle's answer to how things stand; the same until something changes."""
        while self._answer is None:
            answer = self._propose(self._question())
            if PAST_ID in answer.values and self._progress_of(answer).state.is_end:
                # It has no next rung to train for: its result is that of the rung.
                self._promise(answer)
            else:
                self._answer = answer
        return self._answer

    def _question(self) -> OracleQuestion:
        return OracleQuestion(
            self._oracle,
            self._objective.metric,
            "max" if self._objective.direction == "maximize" else "min",
            self._seed,
            self._max_epochs,
            self._factor,
            (*self._space.parameters, *self._found),
            tuple(self._trials()),
            self._state,
        )

    def _trials(self) -> list[OracleTrial]:
        """Every trial as the oracle knows it: first those of others, then its own in order."""
        found = []
        for number, progress in sorted(self._progress.items()):
            if number not in self._origins and progress.params:
                status, score = self._status(number, None)
                values = dict(progress.params)
                found.append(OracleTrial(f"other-{number}", values, status, score, is_own=False))
        # Of a trial that was killed and repeated, the repetition counts.
        carriers = {origin["id"]: number for number, origin in sorted(self._origins.items())}
        own = [(trial_id, n, self._origins[n]["values"]) for trial_id, n in carriers.items()]
        own += [(p["id"], carriers[p["first"]], p["values"]) for p in self._promotions]
        for trial_id, number, values in sorted(own, key=lambda entry: int(entry[0])):
            status, score = self._status(number, values.get(EPOCHS))
            found.append(OracleTrial(trial_id, values, status, score))
        return found

    def _status(self, number: int, target: Value | None) -> tuple[OracleStatus, float | None]:
        """How a trial, or its part up to a rung, stands for the oracle.

        One that was pruned or waits counts with the best that it reached: it is not to be
        proposed again, and it is known not to be good.
        """
        progress = self._progress[number]
        reached = max(progress.curve, default=0)
        if target is not None and int(target) <= reached:
            stands_there = progress.state is TrialState.RUNNING and target == self._target(number)
            if not stands_there:
                return "COMPLETED", self._best(progress, int(target))
        sent_on = progress.state is TrialState.PAUSED and target is not None
        if progress.state is TrialState.RUNNING or sent_on:
            return "RUNNING", None
        lost = progress.state in (TrialState.FAILED, TrialState.KILLED)
        score = progress.value if progress.value is not None else self._best(progress, reached)
        return ("FAILED", None) if lost or score is None else ("COMPLETED", score)

    def _best(self, progress: _TrialProgress, epoch: int) -> float | None:
        values = [value for step, value in progress.curve.items() if step <= epoch]
        finite = [value for value in values if math.isfinite(value)]
        return min(finite, key=self._objective.sort_key, default=None)

    def _take(self, answer: OracleAnswer) -> None:
        """Makes a proposal the next trial of the study."""
        hp = _OracleHyperParameters(answer.values, StoredNames(self._space.parameters))
        self._space.sample(hp)
        known = {*self._space.parameters, *self._found}
        self._found += [parameter for parameter in hp.space if parameter not in known]
        origin = {"id": answer.id, "values": answer.values}
        self._remember(answer, {"origin": origin, "stored": hp.stored})
        self._record.enqueue(hp.stored, {ORIGIN: origin})

    def _promoted(self) -> int | None:
        """The trial that the oracle sends to its next rung."""
        for number, progress in sorted(self._progress.items()):
            target = self._target(number)
            sent = target is not None and target > max(progress.curve, default=0)
            if progress.state is TrialState.PAUSED and sent:  # A kill came between.
                self._record.resume(number)
                return number
        if self._record.has_waiting():
            return None
        answer = self._asked()
        if PAST_ID not in answer.values:
            return None
        number = self._carrier(self._first_id(answer))
        self._promise(answer)
        self._record.resume(number)
        return number

    def _first_id(self, answer: OracleAnswer) -> str:
        """The oracle's name for the first rung of the trial that it promotes."""
        past = str(answer.values[PAST_ID])
        return next((p["first"] for p in self._promotions if p["id"] == past), past)

    def _carrier(self, first_id: str) -> int:
        """The trial that trains a proposal: of one that was killed and repeated, the repetition."""
        return max(n for n, origin in self._origins.items() if origin["id"] == first_id)

    def _progress_of(self, answer: OracleAnswer) -> _TrialProgress:
        return self._progress[self._carrier(self._first_id(answer))]

    def _promise(self, answer: OracleAnswer) -> None:
        """Keeps a promotion, before anything follows from it."""
        promotion = {"id": answer.id, "first": self._first_id(answer), "values": answer.values}
        self._promotions.append(promotion)
        self._remember(answer, None)

    def _last_resort(self) -> int | None:
        """The best that waits, when no trial is complete: a sweep must not end without a winner."""
        if any(s.state is TrialState.COMPLETE for s in self._progress.values()):
            return None
        waiting = [n for n, s in self._progress.items() if s.state is TrialState.PAUSED]
        if not waiting:
            return None

        def key(number: int) -> tuple[int, float, int]:
            progress = self._progress[number]
            reached = max(progress.curve, default=0)
            best = self._best(progress, reached)
            return -reached, math.inf if best is None else self._objective.sort_key(best), number

        number = min(waiting, key=key)
        self._in_full.add(number)
        self._record.resume(number)
        return number

    def _target(self, number: int) -> int | None:
        """The epoch to which the oracle has sent a trial; None for all of them."""
        origin = self._origins.get(number)
        if origin is None or EPOCHS not in origin["values"]:
            return None
        sent = [p["values"][EPOCHS] for p in self._promotions if p["first"] == origin["id"]]
        return int(max([origin["values"][EPOCHS], *sent]))

    def _remember(self, answer: OracleAnswer, proposal: dict[str, Any] | None) -> None:
        self._state = answer.state
        self._record.remember(
            {
                "state": self._state,
                "promotions": self._promotions,
                "parameters": [asdict(parameter) for parameter in self._found],
                "proposal": proposal,
            }
        )


class _OracleHyperParameters(StoringHyperParameters):
    """Returns an oracle's values, and defaults where it knows nothing of a parameter."""

    def given(self, parameter: Parameter) -> Value:
        """The oracle's value, or the parameter's own that it means."""
        value = self._given.get(parameter.name, parameter.default)
        grid = parameter.grid()
        if grid is not None and isinstance(value, float):
            # 0.30000000000000004 is 0.3.
            close = [v for v in grid if not isinstance(v, str) and math.isclose(v, value)]
            return close[0] if close else parameter.nearest(value)
        return parameter.nearest(value)


def _parameter(fields: dict[str, Any]) -> Parameter:
    """A parameter that was stored as JSON."""
    conditions = tuple(Condition(c["parent"], tuple(c["values"])) for c in fields["conditions"])
    return Parameter(**{**fields, "choices": tuple(fields["choices"]), "conditions": conditions})
