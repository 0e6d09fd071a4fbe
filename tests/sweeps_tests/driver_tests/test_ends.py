"""The end of a sweep: what is trained on before it, what breaks it off, and when its time is over."""

from __future__ import annotations

from typing import Any

import fake_jobs
import pytest
from loop_scene import SPACE, Scene, states_of, trial_order
from optuna.storages import InMemoryStorage

from pipelines.objectives import OBJECTIVES
from pipelines.training.trial import Decision
from sweeps.driver.board.views import QuietView
from sweeps.driver.plan import StopReason
from sweeps.engines.base import DEFAULTS, TrialState
from sweeps.engines.optuna_study.engine import OptunaEngine
from sweeps.engines.pruners.rungs import Rungs
from sweeps.executors.base import Slot


@pytest.fixture
def scene(tiny_data, tmp_path):
    return lambda **options: Scene(tiny_data, tmp_path, **options)


@pytest.mark.parametrize(("ended", "reason"), [(0.0, "TIMEOUT"), (3600.0, "TRIALS")])
def test_after_an_end_the_time_limit_counts_anew_and_after_an_interruption_its_rest(
    scene, ended, reason
):
    s = scene(rules={"timeout_seconds": 600.0})
    s.board.earlier_seconds, s.board.ended_seconds = 3600.0, ended
    assert s.run() is StopReason[reason]
    assert s.board.elapsed_seconds() >= 3600.0


@pytest.mark.parametrize("num_slots", [1, 2])
@pytest.mark.parametrize("job", [fake_jobs.lost_data_job, fake_jobs.filled_disk_job])
def test_what_the_machine_does_to_trials_in_a_row_breaks_the_sweep_off(scene, job, num_slots):
    slots = tuple(Slot(k, 1) for k in range(num_slots))
    s = scene(job=job, num_trials=9, num_points=9, num_retries=1, slots=slots)
    assert s.run() is StopReason.TROUBLE
    assert s.sweep.error.startswith("3 trials in a row failed: ")
    assert states_of(s) == {0: "COMPLETE", 1: "COMPLETE"}, "none has failed"
    waiting = {row.number for row in s.board.rows.values() if row.state is TrialState.PAUSED}
    assert waiting >= {2, 3, 4} and len(s.board.rows) <= 6
    assert {number for number, state in s.tracker.states if state == "PAUSED"} == waiting
    assert list(s.paths.sweep.glob("trial-0002/*")) or job is fake_jobs.lost_data_job


def test_trials_that_fail_between_others_that_train_have_failed(scene):
    s = scene(job=fake_jobs.often_failing_job, num_trials=9, num_points=9)
    assert s.run() is StopReason.TRIALS
    failed = {number for number, state in states_of(s).items() if state == "FAILED"}
    assert failed == {1, 2, 4, 5, 7, 8}


def test_what_waits_in_doubt_is_killed_by_an_interrupt_and_proposed_again(scene):
    s = scene(job=fake_jobs.lost_data_job, num_trials=9, num_points=9)
    failed = s.sweep._retries._doubt

    def then_interrupted(row: Any, failure: Any) -> None:
        failed(row, failure)
        s.interrupts.count = 1

    s.sweep._retries._doubt = then_interrupted
    assert s.run() is StopReason.INTERRUPTED
    assert states_of(s)[2] == "KILLED"


def wait_at_one(but: int) -> Any:
    """Every trial but one waits after its first epoch, and no rung promotes any."""
    once: set[int] = set()

    def decide(number: int, epoch: int) -> Decision:
        if epoch != 1 or number == but or number in once:
            return Decision.GO_ON
        once.add(number)
        return Decision.PAUSE

    return decide


@pytest.mark.parametrize("timeout", [None, 3600.0])
def test_before_a_sweep_ends_a_trial_that_is_ahead_of_the_winner_is_trained_on(scene, timeout):
    best, second, *_, worst = trial_order()
    s = scene(decide=wait_at_one(worst), rungs=(1, 3), rules={"timeout_seconds": timeout})
    assert s.run() is StopReason.TRIALS
    ends = states_of(s)
    assert ends[worst] == ends[best] == "COMPLETE"
    assert s.board.best().number == best and s.board.ahead() == []
    if timeout is None:  # What is behind the new winner after as many epochs has no part in it.
        assert ends[second] == "PRUNED"
        assert "not promoted" in s.engine.told[second][2]


@pytest.mark.parametrize("seed", range(4))
def test_a_small_sweep_under_asha_ends_with_its_best_trial(scene, seed):
    """Of fewer than three trials a rung promotes none, and a protected model is complete."""
    rungs = Rungs((1, 2, 3))
    engine = OptunaEngine(
        SPACE, OBJECTIVES["val_accuracy"], InMemoryStorage(), "study", "random", seed,
        pruner="asha", rungs=rungs, baselines=SPACE.distinct_baselines()[:1],
    )  # fmt: skip
    s = scene(engine=engine, rungs=rungs.steps, seed=seed)
    assert s.run() is StopReason.TRIALS
    best = max(s.board.rows.values(), key=lambda row: row.curve[1])
    assert s.board.best() is best and s.board.ahead() == []


def test_the_point_of_the_defaults_is_trained_through_and_what_follows_waits_at_rungs(scene):
    rungs = Rungs((1, 2, 3))
    engine = OptunaEngine(
        SPACE, OBJECTIVES["val_accuracy"], InMemoryStorage(), "study", "prior", 0,
        pruner="asha", rungs=rungs,
    )  # fmt: skip
    s = scene(engine=engine, rungs=rungs.steps, num_trials=6)
    assert s.run() is StopReason.TRIALS
    first = s.board.rows[0]
    assert first.proposed_by == DEFAULTS and first.state is TrialState.COMPLETE
    paused = {number for number, state in s.tracker.states if state == "PAUSED"}
    assert 0 not in paused and 1 in paused


def test_a_trial_that_is_ahead_when_a_rule_ends_the_sweep_is_listed(scene):
    best, *_, worst = trial_order()
    s = scene(decide=wait_at_one(worst), rungs=(1, 3), rules={"max_total_epochs": 6})
    assert s.run() is StopReason.EPOCHS
    assert s.board.best().number == worst
    assert [row.number for row in s.board.ahead()] == trial_order()[:-1]
    assert "ahead of the winner there" in s.engine.told[best][2]


def test_what_can_never_be_promoted_waits_while_it_is_ahead_of_the_winner(scene):
    best, *_, worst = trial_order()
    s = scene(decide=wait_at_one(worst), rungs=(1, 3))
    s.engine.unpromotable = lambda num_trials: list(s.engine.paused)
    s.run()
    assert states_of(s)[best] == "COMPLETE"


class TimeIsUp(QuietView):
    """Lets all the time pass once a trial has reported an epoch."""

    def __init__(self, number: int, step: int) -> None:
        self.at = number, step

    def reported(self, board, row) -> None:
        if (row.number, row.step) == self.at:
            board.started -= 3600.0


def test_the_best_of_those_that_wait_ends_as_the_winner_when_the_time_is_up(scene):
    best, *others = trial_order()

    def decide(number: int, step: int) -> Decision:
        return Decision.PAUSE if step == 2 else Decision.GO_ON

    s = scene(
        decide=decide, rungs=(1, 2, 3), rules={"timeout_seconds": 3600.0}, view=TimeIsUp(3, 2)
    )
    assert s.run() is StopReason.TIMEOUT
    assert s.board.best().number == best
    assert s.board.rows[best].value == s.board.rows[best].curve[2]
    end = s.tracker.ended[best]
    assert end.state == "COMPLETE"
    assert end.tags["sweeps.reason"] == "trained for 2 of 3 epochs: the time limit was reached"
    assert best in s.tracker.kept, "its model is there"
    ends = states_of(s)
    assert {ends[number] for number in others} == {"PRUNED"}, "only the winner is finished"


@pytest.mark.parametrize("has_reported", [True, False])
def test_what_waits_for_a_machine_when_the_time_is_up_ends_as_what_waits_at_a_rung(
    scene, has_reported
):
    """As one whose memory ran out before, and which was promoted while others ran."""

    def decide(number: int, step: int) -> Decision:
        return Decision.PAUSE if step == 2 else Decision.GO_ON

    s = scene(decide=decide, rungs=(1, 2, 3), rules={"timeout_seconds": 3600.0},
              view=TimeIsUp(3, 2))  # fmt: skip
    best = trial_order()[0]
    finish = s.sweep._finish_best

    def finish_best() -> bool:
        row = s.board.rows[best]
        if row.state is TrialState.PAUSED and not row.reason.startswith("stopped"):
            s.engine.resume(best)
            row.waiting, row.state = True, TrialState.RUNNING
            row.curve = row.curve if has_reported else {}
            s.sweep._finish_best = finish
        return finish()

    s.sweep._finish_best = finish_best
    assert s.run() is StopReason.TIMEOUT
    assert (states_of(s)[best] == "COMPLETE") is has_reported
    assert (s.board.best() is s.board.rows[best]) is has_reported


def test_the_best_is_tried_again_when_it_fails_at_the_end(scene):
    best = trial_order()[0]
    lives = []

    def job(task: Any, report: Any, slot: Any) -> Any:
        if task.number == best:
            lives.append(task.reported_step)
            if len(lives) == 2:
                raise ConnectionResetError("a moment ago")
        return fake_jobs.recorded_job(task, report, slot)

    def decide(number: int, step: int) -> Decision:
        return Decision.PAUSE if step == 2 else Decision.GO_ON

    s = scene(
        job=job, decide=decide, rungs=(1, 2, 3), rules={"timeout_seconds": 3600.0},
        view=TimeIsUp(3, 2), num_retries=1,
    )  # fmt: skip
    assert s.run() is StopReason.TIMEOUT
    assert states_of(s)[best] == "COMPLETE" and lives == [0, 2, 2]


@pytest.mark.parametrize("cut", range(4))
def test_a_trial_that_the_limit_cuts_short_is_complete_if_it_is_the_best_so_far(scene, cut):
    s = scene(view=TimeIsUp(cut, 1), rules={"timeout_seconds": 3600.0})
    s.run()
    row = s.board.rows[cut]
    others = [row.value for number, row in s.board.rows.items() if number != cut]
    assert row.step == 2 and len(others) == cut, "nothing starts after it"
    wins = row.curve[2] > max(others, default=0.0)
    assert states_of(s)[cut] == ("COMPLETE" if wins else "PRUNED")
