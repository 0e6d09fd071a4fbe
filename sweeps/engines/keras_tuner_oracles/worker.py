"""Asks one of Keras Tuner's oracles for a proposal; for processes that may import Keras.

An oracle is made anew for every proposal, from what the study holds and from the few things that it
remembers beside: so a kill at any time loses nothing, and a resumed sweep proposes what an
uninterrupted one would have. Keras Tuner's own way of going on, `Oracle.reload`, forgets the order
of a grid and the random state of the Bayesian oracle (1.4.8).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.src.engine.trial import Trial

from search_spaces.hyperparameters import declare
from search_spaces.hyperparameters.parameter import Parameter, Value
from sweeps.engines.keras_tuner_oracles.protocol import OracleAnswer, OracleQuestion, OracleTrial

_SLACK = 1e-6
"""Of a step: Keras Tuner counts the values of a range by a division that rounding can cut short."""


def propose(question: OracleQuestion) -> OracleAnswer:
    """The oracle's next proposal; it follows from the question alone."""
    space = oracle_space(question.parameters)
    oracle = _make(question, space)
    for past in question.trials:
        _know(oracle, space, past)
    _restore(oracle, question)
    number = sum(trial.is_own for trial in question.trials)
    trial_id = f"{number:04d}"
    if question.oracle == "bayesian" and oracle.ongoing_trials:
        _fit_completed(oracle)
    response = oracle.populate_space(trial_id)
    values = {name: _plain(value) for name, value in (response.get("values") or {}).items()}
    return OracleAnswer(response["status"], trial_id, values, _state(oracle, question))


def oracle_space(parameters: Sequence[Parameter]) -> keras_tuner.HyperParameters:
    """Parameters of a space as Keras Tuner has them."""
    space = keras_tuner.HyperParameters()
    for parameter in parameters:
        has_steps = parameter.kind == "float" and parameter.sampling == "linear"
        if has_steps and parameter.step is not None and parameter.high is not None:
            wider = parameter.high + _SLACK * parameter.step
            declare(space, replace(parameter, high=wider))
        else:
            declare(space, parameter)
    return space


def _make(question: OracleQuestion, space: keras_tuner.HyperParameters) -> Any:
    # Of a seed of 0 Keras Tuner makes a random one.
    settings: dict[str, Any] = {
        "objective": keras_tuner.Objective(question.objective, question.direction),
        "hyperparameters": space,
        "seed": _derived(question.seed),
    }
    if question.oracle == "hyperband":
        return keras_tuner.oracles.HyperbandOracle(
            max_epochs=question.max_epochs,
            factor=question.factor,
            hyperband_iterations=None,  # The sweep says how many trials there are.
            **settings,
        )
    if question.oracle == "bayesian":
        oracle = keras_tuner.oracles.BayesianOptimizationOracle(max_trials=None, **settings)
        oracle._random_state = np.random.RandomState(_derived(question.seed, len(question.trials)))
        return oracle
    if question.oracle == "grid":
        return keras_tuner.oracles.GridSearchOracle(max_trials=None, **settings)
    return keras_tuner.oracles.RandomSearchOracle(max_trials=None, **settings)


def _derived(*parts: int) -> int:
    return 1 + int(np.random.SeedSequence(parts).generate_state(1)[0]) % (2**31 - 2)


def _know(oracle: Any, space: keras_tuner.HyperParameters, past: OracleTrial) -> None:
    """Makes a trial known to the oracle, as `create_trial` and `end_trial` leave it."""
    # Trials share the space, which is not changed, and have values of their own.
    hyperparameters = copy.copy(space)
    hyperparameters.values = dict(past.values)
    for hp in space.space:  # Keras Tuner would draw what is missing, without a seed.
        if hyperparameters.is_active(hp):
            hyperparameters.values.setdefault(hp.name, hp.default)
    trial = Trial(hyperparameters, trial_id=past.id, status=past.status)
    trial.score = past.score
    oracle.trials[past.id] = trial
    oracle._tried_so_far.add(oracle._compute_values_hash(hyperparameters.values))
    if past.is_own:
        oracle.start_order.append(past.id)
    if past.status == "RUNNING":
        oracle.ongoing_trials[past.id] = trial


def _restore(oracle: Any, question: OracleQuestion) -> None:
    """Gives the oracle what it remembers beside its trials."""
    state = question.state
    if state:
        oracle._seed_state = state["seed_state"]
    if question.oracle == "hyperband" and state:
        oracle._brackets = copy.deepcopy(state["brackets"])
        oracle._current_bracket = state["current_bracket"]
        oracle._current_iteration = state["current_iteration"]
    if question.oracle == "grid":
        for trial_id in state.get("order", []):
            oracle._ordered_ids.insert(trial_id)
        known = state.get("ended", [])
        ended = [t.id for t in question.trials if t.is_own and t.status != "RUNNING"]
        # What has ended since: the point after it may have been waiting for that.
        new = [trial_id for trial_id in ended if trial_id not in known]
        oracle._populate_next = [*state.get("populate_next", []), *new]


def _state(oracle: Any, question: OracleQuestion) -> dict[str, Any]:
    state: dict[str, Any] = {"seed_state": oracle._seed_state}
    if question.oracle == "hyperband":
        state |= {
            "brackets": oracle._brackets,
            "current_bracket": oracle._current_bracket,
            "current_iteration": oracle._current_iteration,
        }
    if question.oracle == "grid":
        state |= {
            "order": _in_order(oracle._ordered_ids),
            "populate_next": list(oracle._populate_next),
            "ended": [t.id for t in question.trials if t.is_own and t.status != "RUNNING"],
        }
    return state


def _in_order(linked: Any) -> list[str]:
    """The data of Keras Tuner's linked list, from the first to the last."""
    found, index = [], linked._next_index[None]
    while index is not None:
        found.append(linked._memory[index])
        index = linked._next_index[index]
    return found


def _fit_completed(oracle: Any) -> None:
    """Fits the Gaussian process to what has ended.

    The oracle guesses the results of running trials from its last fit, which one that was just
    made does not have.
    """
    ongoing, oracle.ongoing_trials = oracle.ongoing_trials, {}
    trials = oracle.trials
    oracle.trials = {k: t for k, t in trials.items() if t.status == "COMPLETED"}
    if oracle.trials:
        x, y = oracle._vectorize_trials()
        oracle.gpr.fit(np.nan_to_num(x), np.nan_to_num(y))
    oracle.trials, oracle.ongoing_trials = trials, ongoing


def _plain(value: Any) -> Value:
    """A NumPy scalar as Python's own: it is stored as JSON."""
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[no-any-return]
