"""Times are predicted from what was recorded, and are no part of a sweep without a time limit."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from pipelines.objectives import OBJECTIVES
from search_spaces.registry import get_space
from sweeps.engines.base import LEFT_OUT_VALUE, TrialState
from sweeps.engines.limits import Limit
from sweeps.engines.optuna_study.drafts import MAX_REFUSED, MAX_TRIES, Draft
from sweeps.engines.optuna_study.engine import OptunaEngine
from sweeps.engines.optuna_study.forecasts import MEASURED, MIN_TRIALS, Forecasts
from sweeps.engines.optuna_study.replayable_sampler import PausedAsPruned

SPACE = get_space("cnn")


def multiply_adds(params: dict[str, Any]) -> float:
    cost = SPACE.cost(params, (28, 28, 1), 10)
    assert cost is not None
    return float(cost.multiply_adds)


def seconds(params: dict[str, Any]) -> float:
    """A made-up machine: two seconds for each epoch, more by multiply-adds and by steps."""
    return 2 + multiply_adds(params) * 4e-6 + 50 / params["batch_size"]


def engine_of(**options: Any) -> OptunaEngine:
    defaults: dict[str, Any] = {
        "storage": optuna.storages.InMemoryStorage(), "sampler": "prior", "seed": 0,
        "cost": multiply_adds, "is_timed": True,
    }  # fmt: skip
    return OptunaEngine(SPACE, OBJECTIVES["val_accuracy"], name="s", **{**defaults, **options})


def tried(engine: OptunaEngine, num: int, scale: float = 1.0) -> list[dict[str, Any]]:
    """Points that are proposed; those that take longest reach most."""
    points = []
    for _ in range(num):
        proposal = engine.ask()
        assert proposal is not None
        points.append(proposal.params)
        took = seconds(proposal.params)
        value = 0.5 + took / 100
        engine.report(proposal.number, 1, value, {"epoch_seconds": scale * took})
        engine.tell(proposal.number, TrialState.PRUNED)
    return points


def test_seconds_are_predicted_once_there_are_trials_enough():
    engine = engine_of()
    points = tried(engine, 12)
    trials = engine._study.get_trials(deepcopy=False)
    few = Forecasts(trials[: MIN_TRIALS - 1])
    assert few.of("epoch_seconds", points[0], multiply_adds(points[0])) is None
    forecasts = Forecasts(trials)
    for params in points:
        found = forecasts.of("epoch_seconds", params, multiply_adds(params))
        assert found == pytest.approx(seconds(params), rel=1e-6)
    assert forecasts.of("epoch_seconds", points[0], None) is None
    assert forecasts.of("latency_ms", points[0], 1e6) is None


def test_no_part_of_a_time_is_below_zero():
    trials = [
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.PRUNED,
            user_attrs={MEASURED: {"epoch_seconds": 20.0 - k, "multiply_adds": 1e6 * k}},
        )
        for k in range(1, 9)
    ]
    forecasts = Forecasts(trials)
    small, large = (forecasts.of("epoch_seconds", {}, value) for value in (0.0, 1e9))
    assert small == large and 12 < small < 19


def test_the_first_measurement_is_kept_and_found_again():
    engine = engine_of()
    proposal = engine.ask()
    engine.report(proposal.number, 1, 0.5, {"epoch_seconds": 3.0})
    engine.report(proposal.number, 2, 0.6, {"epoch_seconds": 9.0})
    (past,) = engine.past()
    assert past.measured["epoch_seconds"] == 3.0
    assert past.measured["multiply_adds"] == multiply_adds(proposal.params)


def test_points_that_would_take_too_long_are_not_proposed_once_that_is_known():
    bound, limits = 10.0, [Limit("epoch_seconds", 10.0)]
    points = tried(engine_of(limits=limits), 40)
    free = tried(engine_of(), 40)
    assert sum(seconds(params) > 1.3 * bound for params in free[MIN_TRIALS:]) > 5
    assert all(seconds(params) <= 1.26 * bound for params in points[MIN_TRIALS:])


def test_a_resumed_engine_proposes_what_the_first_would_have_proposed():
    storage = optuna.storages.InMemoryStorage()
    tried(engine_of(storage=storage), 15)
    resumed = tried(engine_of(storage=storage, resume=True), 5)
    assert resumed == tried(engine_of(), 20)[15:]


def test_seconds_change_proposals_under_a_time_limit_only():
    """Here a step's time is all that differs, and multiply-adds say nothing of it."""

    def points(scale: float, *, is_timed: bool) -> list[dict[str, Any]]:
        engine, found = engine_of(is_timed=is_timed), []
        for _ in range(25):
            proposal = engine.ask()
            found.append(proposal.params)
            took = 1 + scale / proposal.params["batch_size"]
            engine.report(proposal.number, 1, 0.5, {"epoch_seconds": took})
            engine.tell(proposal.number, TrialState.PRUNED)
        return found

    assert points(0, is_timed=False) == points(10_000, is_timed=False)
    assert points(0, is_timed=True) != points(10_000, is_timed=True)


@pytest.mark.parametrize("is_timed", [True, False])
def test_at_rungs_a_trial_left_out_for_its_time_counts_only_where_times_decide_nothing(is_timed):
    engine = engine_of(is_timed=is_timed)
    proposal = engine.ask()
    engine.report(proposal.number, 1, 0.9, {"epoch_seconds": 40.0})
    facts = {"breaks_limit": "epoch_seconds 40 > 30"}
    engine.tell(proposal.number, TrialState.PRUNED, reason=facts["breaks_limit"], facts=facts)
    assert engine._curves[proposal.number].counts is not is_timed
    resumed = engine_of(is_timed=is_timed, storage=engine._study._storage, resume=True)
    assert resumed._curves[proposal.number].counts is not is_timed


def test_samplers_see_what_a_trial_reached_that_was_left_out_after_its_training():
    engine = engine_of(is_timed=False)
    proposal = engine.ask()
    engine.report(proposal.number, 1, 0.9)
    facts = {"breaks_limit": "latency_ms 9 > 5", LEFT_OUT_VALUE: 0.9}
    engine.tell(proposal.number, TrialState.PRUNED, facts=facts)
    (shown,) = PausedAsPruned(engine._study).get_trials(deepcopy=False)
    assert (shown.state, shown.value) == (optuna.trial.TrialState.COMPLETE, 0.9)
    (past,) = engine.past()
    assert past.state is TrialState.PRUNED and past.value is None


def test_nothing_is_proposed_that_could_not_be_trained_in_full():
    bound = 20.0
    free, bounded = engine_of(), engine_of(longest_epoch=bound)
    assert tried(free, MIN_TRIALS) == tried(bounded, MIN_TRIALS), "nobody knows yet"
    assert max(map(seconds, tried(free, 30))) > 1.5 * bound
    assert max(map(seconds, tried(bounded, 30))) < 1.5 * bound


@pytest.mark.parametrize("bound", [5.0, 1e-3])
def test_a_space_whose_epochs_are_all_slower_than_wished_is_searched_nevertheless(bound):
    engine = engine_of(longest_epoch=bound)
    points = tried(engine, MIN_TRIALS + 20)
    late = [seconds(point) for point in points[MIN_TRIALS:]]
    assert sorted(late)[len(late) // 2] < seconds(SPACE.complete({})), "the quick ones come first"


def test_a_limit_that_hardly_any_point_keeps_is_told_by_the_points_that_are_nearest():
    bound = min(seconds(point) for point in tried(engine_of(), MIN_TRIALS)) / 100
    engine = engine_of(limits=(Limit("epoch_seconds", bound),))
    asked = 0
    while (proposal := engine.ask()) is not None:
        asked += 1
        engine.report(proposal.number, 1, 0.5, {"epoch_seconds": seconds(proposal.params)})
        engine.tell(proposal.number, TrialState.PRUNED)
    assert MIN_TRIALS + MAX_REFUSED <= asked <= MIN_TRIALS + MAX_REFUSED + 1


@pytest.mark.parametrize(("repeats", "ends"), [(1, False), (MAX_TRIES // 2, True)])
def test_points_that_repeat_themselves_end_a_limited_search_only_where_little_else_is_new(
    repeats, ends
):
    drafts = engine_of(limits=(Limit("epoch_seconds", 1.0),))._drafts
    assert drafts is not None
    nearest = Draft({}, {}, {})
    assert (drafts._refused(nearest, repeats) is None) is ends


@pytest.mark.parametrize("is_timed", [True, False])
def test_nothing_is_drawn_near_a_trial_that_broke_a_limit_where_times_count(is_timed):
    engine = engine_of(is_timed=is_timed)
    proposals = []
    for _ in range(40):
        proposal = engine.ask()
        assert proposal is not None
        proposals.append(proposal)
        is_wide = proposal.params["filters"] > 32
        engine.report(proposal.number, 1, 0.9 if is_wide else 0.5)
        facts = {"breaks_limit": "latency_ms 9 > 5"} if is_wide else {}
        engine.tell(proposal.number, TrialState.PRUNED, facts=facts)
    parents = [int(p.proposed_by.split()[-1]) for p in proposals if p.proposed_by.startswith("mut")]
    wide = [parent for parent in parents if proposals[parent].params["filters"] > 32]
    assert parents and bool(wide) is not is_timed
