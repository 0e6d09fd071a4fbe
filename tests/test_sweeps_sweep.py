"""The loop: what is started, told and recorded, however trials and sweeps end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fakes
import pytest

from pipelines.objectives import OBJECTIVES
from search_spaces.registry import get_space
from sweeps.board import Board
from sweeps.engines.base import TrialState
from sweeps.executors.base import Raised, Slot
from sweeps.interrupts import Interrupts
from sweeps.keeping import BestModels
from sweeps.recorder import Recorder
from sweeps.settings import SweepPaths
from sweeps.sweep import Plan, StopReason, Sweep, trial_seed
from tracking.background import BackgroundCalls

SPACE = get_space("mlp")


class Scene:
    """A sweep with a fake engine, executor and tracker around the real loop and recorder."""

    def __init__(self, tiny_data: Any, tmp_path: Path, **options: Any) -> None:
        count = options.pop("num_points", 4)
        view = options.pop("view", fakes.QuietView())
        keep = options.pop("keep", 2)
        defaults = {
            "space": SPACE, "data": tiny_data, "num_trials": 4, "num_epochs": 3,
            "timeout_seconds": None, "patience": None, "seed": 0, "slots": (Slot(0, 1),),
            "paths": SweepPaths(tmp_path / "work", "name"), "job": fakes.recorded_job,
        }  # fmt: skip
        plan = Plan(**{**defaults, **options})
        self.paths = plan.paths
        self.engine = fakes.ListEngine(fakes.random_points(SPACE, count))
        self.executor = fakes.InlineExecutor()
        self.tracker = fakes.MemoryTracker()
        self.calls = BackgroundCalls()
        objective = OBJECTIVES["val_accuracy"]
        models = BestModels(objective, keep)
        recorder = Recorder(self.tracker, self.calls, SPACE, tiny_data, plan.paths, models)  # type: ignore[arg-type]
        self.board = Board(
            "title",
            objective,
            plan.num_trials,
            plan.num_epochs,
            len(plan.slots),
            plan.timeout_seconds,
        )
        self.interrupts = Interrupts()
        self.sweep = Sweep(plan, self.board, self.engine, self.executor, recorder, view)

    def run(self) -> StopReason:
        reason = self.sweep.run(self.interrupts)
        assert self.calls.drain(10) and self.calls.failures == []
        assert self.executor.closed
        return reason


@pytest.fixture
def scene(tiny_data, tmp_path):
    return lambda **options: Scene(tiny_data, tmp_path, **options)


def test_a_sweep_tells_engine_and_tracker_the_same(scene):
    s = scene()
    assert s.run() is StopReason.TRIALS
    assert {n: t[0] for n, t in s.engine.told.items()} == dict.fromkeys(
        range(4), TrialState.COMPLETE
    )
    assert [r[:2] for r in s.engine.reports] == [(n, e) for n in range(4) for e in (1, 2, 3)]
    assert s.tracker.epochs == [(n, e) for n in range(4) for e in (1, 2, 3)]
    assert {n: e.state for n, e in s.tracker.ended.items()} == dict.fromkeys(range(4), "COMPLETE")
    for number, (_, value, _) in s.engine.told.items():
        assert s.tracker.ended[number].metrics["best_val_accuracy"] == value
    for record in s.tracker.started:
        assert set(record.params) == {p.name for p in SPACE.parameters} | {"max_epochs"}
        assert record.tags["sweeps.seed"] == str(trial_seed(0, record.number))


def test_best_so_far_rises_and_the_best_models_are_kept(scene):
    s = scene(num_trials=6, num_points=6)
    s.run()
    values = {number: value for number, (_, value, _) in s.engine.told.items()}
    assert s.tracker.progress == sorted(s.tracker.progress)
    assert s.tracker.progress[-1] == max(values.values())
    assert sorted(s.tracker.kept) == sorted(sorted(values, key=values.get)[-2:])


def test_nothing_of_a_finished_trial_stays_on_disk(scene):
    s = scene()
    s.run()
    assert list(s.paths.sweep.glob("trial-*")) == []
    assert all("model_summary.txt" in names for names in s.tracker.files.values())


def test_a_trial_that_raises_is_failed_and_the_sweep_goes_on(scene):
    s = scene(job=fakes.raising_job)
    assert s.run() is StopReason.TRIALS
    states = {number: state for number, (state, _, _) in s.engine.told.items()}
    assert states == {0: TrialState.COMPLETE, 1: TrialState.FAILED,
                      2: TrialState.COMPLETE, 3: TrialState.FAILED}  # fmt: skip
    failed = s.tracker.ended[1]
    assert failed.state == "FAILED"
    assert failed.tags["sweeps.reason"] == "RuntimeError: no luck"
    assert "with trial 1" in failed.texts["traceback.txt"]


def test_a_full_disk_fails_the_trial_and_what_was_recorded_stays(scene):
    s = scene(job=fakes.full_disk_job)
    assert s.run() is StopReason.TRIALS
    assert s.tracker.ended[1].state == "FAILED"
    assert "No space left on device" in s.tracker.ended[1].tags["sweeps.reason"]
    assert s.tracker.ended[0].state == s.tracker.ended[2].state == "COMPLETE"


def test_first_trials_that_fail_alike_stop_the_sweep(scene):
    s = scene(job=fakes.always_raising_job, num_trials=9, num_points=9)
    assert s.run() is StopReason.FAILING
    assert len(s.board.rows) == 3


def test_failures_of_different_kinds_do_not_stop_the_sweep(scene):
    s = scene(job=fakes.raising_job, num_trials=8, num_points=8)
    assert s.run() is StopReason.TRIALS


def test_an_interrupt_kills_what_runs_in_engine_and_tracker_alike(scene):
    s = scene(job=fakes.uneven_job, slots=(Slot(0, 1), Slot(1, 1)))
    s.sweep._view = fakes.ScriptedView(lambda board: setattr(s.interrupts, "count", 1))
    assert s.run() is StopReason.INTERRUPTED
    states = {number: state for number, (state, _, _) in s.engine.told.items()}
    assert TrialState.KILLED in states.values() and TrialState.COMPLETE in states.values()
    assert {n: e.state for n, e in s.tracker.ended.items()} == {
        n: x.value for n, x in states.items()
    }
    assert set(states) == set(s.board.rows)


def test_the_time_limit_starts_nothing_and_ends_what_runs_with_its_epoch(scene):
    s = scene(job=fakes.slow_job, timeout_seconds=0.1, num_trials=4)
    assert s.run() is StopReason.TIMEOUT
    assert {n: t[0] for n, t in s.engine.told.items()} == {0: TrialState.PRUNED}
    assert len(s.engine.reports) == 1
    assert s.tracker.ended[0].state == "PRUNED"
    assert "time limit" in s.tracker.ended[0].tags["sweeps.reason"]
    assert s.tracker.kept == []


def test_an_exhausted_engine_ends_the_sweep(scene):
    s = scene(num_points=2)
    assert s.run() is StopReason.EXHAUSTED
    assert len(s.board.rows) == 2


def test_two_slots_are_both_used(scene):
    s = scene(slots=(Slot(0, 1), Slot(1, 1)), job=fakes.slow_job)
    s.run()
    assert {row.slot for row in s.board.rows.values()} == {0, 1}


def broken(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("database or disk is full")


@pytest.mark.parametrize("method", ["ask", "report", "tell"])
def test_an_engine_that_breaks_leaves_no_trial_without_an_end(scene, method):
    s = scene()
    setattr(s.engine, method, broken)
    with pytest.raises(RuntimeError, match="disk is full"):
        s.sweep.run(s.interrupts)
    assert s.calls.drain(10) and s.calls.failures == []
    assert s.executor.closed
    started = {record.number for record in s.tracker.started}
    assert {number: end.state for number, end in s.tracker.ended.items()} == dict.fromkeys(
        started, "KILLED"
    )
    assert {row.state for row in s.board.rows.values()} <= {TrialState.KILLED}
    assert started == (set() if method == "ask" else {0})


def test_a_trial_that_cannot_be_started_is_failed_and_the_sweep_goes_on(scene):
    s = scene()
    original = s.executor.start

    def start(job_id: str, *rest: Any) -> None:
        if job_id == "trial-1":
            raise OSError(28, "No space left on device")
        original(job_id, *rest)

    s.executor.start = start
    assert s.run() is StopReason.TRIALS
    assert s.tracker.ended[1].state == "FAILED"
    assert "No space left" in s.tracker.ended[1].tags["sweeps.reason"]
    assert [s.engine.told[n][0].value for n in (0, 2, 3)] == ["COMPLETE"] * 3


def test_pictures_that_cannot_be_drawn_leave_the_trial_complete_and_are_said(scene):
    s = scene()  # The made-up trials leave no predictions, so nothing can be drawn from them.
    s.run()
    assert {end.state for end in s.tracker.ended.values()} == {"COMPLETE"}
    assert all("No such file" in tags["sweeps.figures"] for tags in s.tracker.tags.values())
    assert set(s.tracker.tags) == set(range(4))


def test_a_process_that_dies_in_an_interrupt_was_killed(scene):
    s = scene(job=fakes.uneven_job, slots=(Slot(0, 1), Slot(1, 1)))
    original = s.executor.events

    def events(timeout: float) -> list[Any]:
        if s.interrupts.count:
            return [Raised("trial-1", "Died", "killed by signal SIGTERM", "")]
        s.interrupts.count = 1
        return [*original(timeout), Raised("trial-1", "Died", "killed by signal SIGTERM", "")]

    s.executor.events = events
    assert s.run() is StopReason.INTERRUPTED
    assert s.engine.told[1][0] is TrialState.KILLED
    assert s.tracker.ended[1].state == "KILLED"


def test_failures_that_differ_in_numbers_only_are_one_cause(scene):
    s = scene(job=fakes.numbered_failure_job, num_trials=9, num_points=9)
    assert s.run() is StopReason.FAILING


def test_an_epoch_that_does_not_end_is_ended_after_the_grace(scene, monkeypatch):
    monkeypatch.setattr("sweeps.sweep.GRACE_SECONDS", 0.3)
    s = scene(job=fakes.endless_job, timeout_seconds=0.1)
    assert s.run() is StopReason.TIMEOUT
    assert s.engine.told[0][0] is TrialState.PRUNED
    assert s.tracker.ended[0].state == "PRUNED"


def test_seeds_of_trials_follow_from_the_sweep_and_differ():
    seeds = {trial_seed(s, n) for s in range(20) for n in range(50)}
    assert len(seeds) == 1000
    assert trial_seed(3, 4) == trial_seed(3, 4)


def test_of_equal_models_the_earlier_stays():
    best = BestModels(OBJECTIVES["val_accuracy"], 2)
    assert best.offer(0, 0.5) == (True, None)
    assert best.offer(1, 0.7) == (True, None)
    assert best.offer(2, 0.5) == (False, None)
    assert best.offer(3, 0.6) == (True, 0)
    none = BestModels(OBJECTIVES["val_loss"], 0)
    assert none.offer(0, 0.5) == (False, None)
