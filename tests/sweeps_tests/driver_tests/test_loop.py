"""The loop: what is started, told and recorded, however trials and sweeps end."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import fake_jobs
import fake_loop_parts
import pytest
from loop_scene import SPACE, Scene, states_of, trial_order

from pipelines.evaluation.metrics import PREDICT_BATCH
from pipelines.objectives import OBJECTIVES
from pipelines.training.trial import Decision, Schedule
from search_spaces.errors import SearchEndedError
from sweeps.driver.board.row import TrialRow
from sweeps.driver.choosing.next_trial import MAX_UNTRAINED
from sweeps.driver.plan import StopReason, trial_seed
from sweeps.driver.records.recorder import BestModels
from sweeps.engines.base import PastTrial, TrialState
from sweeps.engines.limits import parse_limits
from sweeps.executors.base import Raised, Slot


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
    s = scene(job=fake_jobs.raising_job)
    assert s.run() is StopReason.TRIALS
    states = {number: state for number, (state, _, _) in s.engine.told.items()}
    assert states == {0: TrialState.COMPLETE, 1: TrialState.FAILED,
                      2: TrialState.COMPLETE, 3: TrialState.FAILED}  # fmt: skip
    failed = s.tracker.ended[1]
    assert failed.state == "FAILED"
    assert failed.tags["sweeps.reason"] == "RuntimeError: no luck"
    assert "with trial 1" in failed.texts["traceback.txt"]


def test_a_full_disk_fails_the_trial_and_what_was_recorded_stays(scene):
    s = scene(job=fake_jobs.full_disk_job)
    assert s.run() is StopReason.TRIALS
    assert s.tracker.ended[1].state == "FAILED"
    assert "No space left on device" in s.tracker.ended[1].tags["sweeps.reason"]
    assert s.tracker.ended[0].state == s.tracker.ended[2].state == "COMPLETE"


def test_first_trials_that_fail_alike_stop_the_sweep(scene):
    s = scene(job=fake_jobs.always_raising_job, num_trials=9, num_points=9)
    assert s.run() is StopReason.FAILING
    assert len(s.board.rows) == 3


def test_failures_of_different_kinds_do_not_stop_the_sweep(scene):
    s = scene(job=fake_jobs.raising_job, num_trials=8, num_points=8)
    assert s.run() is StopReason.TRIALS


def test_an_interrupt_kills_what_runs_in_engine_and_tracker_alike(scene):
    s = scene(job=fake_jobs.uneven_job, slots=(Slot(0, 1), Slot(1, 1)))
    s.sweep._trials.view = fake_loop_parts.ScriptedView(
        lambda board: setattr(s.interrupts, "count", 1)
    )
    assert s.run() is StopReason.INTERRUPTED
    states = {number: state for number, (state, _, _) in s.engine.told.items()}
    assert TrialState.KILLED in states.values() and TrialState.COMPLETE in states.values()
    assert {n: e.state for n, e in s.tracker.ended.items()} == {
        n: x.value for n, x in states.items()
    }
    assert set(states) == set(s.board.rows)


def test_the_time_limit_starts_nothing_and_ends_what_runs_with_its_epoch(scene):
    s = scene(job=fake_jobs.slow_job, rules={"timeout_seconds": 0.1}, num_trials=4)
    assert s.run() is StopReason.TIMEOUT
    assert len(s.engine.reports) == 1
    # It is the best that there is, so its model is worth keeping.
    assert {n: t[0] for n, t in s.engine.told.items()} == {0: TrialState.COMPLETE}
    reason = "trained for 1 of 3 epochs: the time limit was reached"
    assert s.tracker.ended[0].tags["sweeps.reason"] == reason
    assert s.tracker.kept == [0]


def test_an_exhausted_engine_ends_the_sweep(scene):
    s = scene(num_points=2)
    assert s.run() is StopReason.EXHAUSTED
    assert len(s.board.rows) == 2


def test_two_slots_are_both_used(scene):
    s = scene(slots=(Slot(0, 1), Slot(1, 1)), job=fake_jobs.slow_job)
    s.run()
    assert {row.slot for row in s.board.rows.values()} == {0, 1}


def broken(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("database or disk is full")


@pytest.mark.parametrize("method", ["ask", "report", "tell"])
def test_an_engine_that_breaks_leaves_every_trial_to_be_resumed(scene, method):
    s = scene()
    setattr(s.engine, method, broken)
    with pytest.raises(RuntimeError, match="disk is full"):
        s.sweep.run()
    s.sent()
    assert s.executor.closed
    assert {row.state for row in s.board.rows.values()} <= {TrialState.PAUSED, TrialState.RUNNING}
    if method == "report":
        assert s.tracker.states == [(0, "RUNNING"), (0, "PAUSED")]
        assert s.tracker.ended == {}


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


def test_pictures_that_cannot_be_drawn_leave_the_trial_complete_and_are_said(scene, caplog):
    s = scene()  # The made-up trials leave no curve, so nothing can be drawn from them.
    s.run()
    assert {end.state for end in s.tracker.ended.values()} == {"COMPLETE"}
    assert all("out of range" in tags["sweeps.figures"] for tags in s.tracker.tags.values())
    assert set(s.tracker.tags) == set(range(4))
    said = [line for line in caplog.messages if "figures" in line]
    assert len(said) == 1 and "out of range" in said[0], "once, and not for every trial"


def test_a_process_that_dies_in_an_interrupt_was_killed(scene):
    s = scene(job=fake_jobs.uneven_job, slots=(Slot(0, 1), Slot(1, 1)))
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
    s = scene(job=fake_jobs.numbered_failure_job, num_trials=9, num_points=9)
    assert s.run() is StopReason.FAILING


def test_an_epoch_that_does_not_end_is_ended_after_the_grace(scene, monkeypatch):
    monkeypatch.setattr("sweeps.driver.failures.retries.GRACE_SECONDS", 0.3)
    s = scene(job=fake_jobs.endless_job, rules={"timeout_seconds": 0.1})
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


# Pausing, failures, rules, resuming


def trained(s: Any, number: int) -> list[int]:
    """The epochs that a trial's worker trained, in order, over all its lives."""
    return [int(x) for x in (s.paths.trial(number) / "trained.txt").read_text().split()]


def pause_at_one(paused_once: set[int]) -> Any:
    def decide(number: int, epoch: int) -> Decision:
        if epoch == 1 and number not in paused_once:
            paused_once.add(number)
            return Decision.PAUSE
        return Decision.GO_ON

    return decide


def test_a_paused_trial_frees_its_slot_and_goes_on_without_training_an_epoch_twice(scene):
    s = scene(decide=pause_at_one(set()), num_trials=3, num_points=3)
    s.recorder_forget = s.sweep._recorder.forget
    kept: dict[int, list[int]] = {}

    def forget(number: int) -> None:
        if (s.paths.trial(number) / "trained.txt").exists():
            kept[number] = trained(s, number)
        s.recorder_forget(number)

    s.sweep._recorder.forget = forget
    original = s.engine.next_promotion
    s.engine.next_promotion = lambda *, no_more_trials: (
        s.engine.paused.pop(0)
        if no_more_trials and s.engine.paused
        else original(no_more_trials=no_more_trials)
    )
    assert s.run() is StopReason.TRIALS
    assert states_of(s) == dict.fromkeys(range(3), "COMPLETE")
    assert kept == {n: [1, 2, 3] for n in range(3)}
    assert sorted(s.tracker.epochs) == [(n, e) for n in range(3) for e in (1, 2, 3)]
    assert sorted(r[:2] for r in s.engine.reports) == sorted(s.tracker.epochs)
    assert s.tracker.states.count((0, "PAUSED")) == 1


def test_what_is_never_promoted_ends_pruned_with_what_it_reached(scene):
    s = scene(decide=pause_at_one(set()), num_trials=2, num_points=2)
    s.run()
    assert states_of(s) == {0: "PRUNED", 1: "PRUNED"}
    end = s.tracker.ended[0]
    assert end.state == "PRUNED" and end.metrics["num_epochs"] == 1
    assert "paused at epoch 1 and not promoted" in end.tags["sweeps.reason"]
    assert "model_bytes" not in end.metrics and s.tracker.kept == []
    assert list(s.paths.sweep.glob("trial-*")) == []


@pytest.mark.parametrize(
    ("job", "options", "words"),
    [
        (fake_jobs.crashing_once_job, {}, "killed by signal"),
        (fake_jobs.memory_once_job, {}, "out of memory"),
        (fake_jobs.hanging_once_job, {"stall_seconds": 0.5}, "no report within"),
        (fake_jobs.passing_error_once_job, {}, "ConnectionError"),
    ],
)
def test_what_another_try_can_help_is_tried_again_from_its_checkpoint(scene, job, options, words):
    s = scene(job=job, num_trials=2, num_points=2, num_retries=1, **options)
    assert s.run() is StopReason.TRIALS
    assert states_of(s) == {0: "COMPLETE", 1: "COMPLETE"}
    assert words in s.tracker.tags[0]["sweeps.retry_reason"]
    assert s.tracker.tags[0]["sweeps.num_retries"] == "1"
    assert s.tracker.epochs == [(n, e) for n in range(2) for e in (1, 2, 3)]


def test_a_driver_that_was_stopped_takes_no_trial_for_one_that_hangs(scene):
    """Ctrl-Z stops the workers, too: they have reported nothing when all go on."""
    s = scene(num_trials=2, num_points=2, num_retries=0, stall_seconds=50)
    events, looks, stopped = s.executor.events, [0], [0.0]
    s.board.clock = lambda: time.monotonic() + stopped[0]

    def after_a_while(seconds: float) -> list[Any]:
        looks[0] += 1
        if looks[0] == 2:
            stopped[0] = 1000.0
            return []
        return events(seconds)

    s.executor.events = after_a_while
    assert s.run() is StopReason.TRIALS
    assert states_of(s) == {0: "COMPLETE", 1: "COMPLETE"} and not s.executor.stopped
    longest = s.sweep._retries.longest_epoch
    assert longest < 50, "nor for one whose epochs are as long"


def test_a_trial_that_fails_again_and_again_is_failed_with_the_number_of_tries(scene):
    s = scene(job=fake_jobs.always_dying_job, num_trials=1, num_points=1, num_retries=2)
    s.run()
    assert states_of(s) == {0: "FAILED"}
    assert s.tracker.ended[0].tags["sweeps.reason"].endswith("(after 3 tries)")


def test_a_loss_that_is_not_finite_is_not_tried_again(scene):
    s = scene(job=fake_jobs.not_finite_job, num_trials=1, num_points=1, num_retries=2)
    s.run()
    assert "sweeps.num_retries" not in s.tracker.tags.get(0, {})
    assert s.tracker.ended[0].tags["sweeps.reason"].startswith("NonFiniteLossError")


def test_a_trial_whose_memory_ran_out_runs_alone_and_predicts_in_smaller_steps(scene):
    s = scene(
        job=fake_jobs.memory_once_job, num_trials=4, num_retries=1, slots=(Slot(0, 1), Slot(1, 1))
    )
    alone = []
    original = s.executor.start

    def start(job_id: str, job: Any, task: Any, *rest: Any) -> None:
        if job_id.startswith("trial-") and task.predict_batch < PREDICT_BATCH:
            alone.append((task.number, len(s.board.running())))
        original(job_id, job, task, *rest)

    s.executor.start = start
    s.run()
    assert alone == [(0, 1)]
    assert set(states_of(s).values()) == {"COMPLETE"}


def test_a_promoted_trial_whose_memory_ran_out_before_waits_for_a_machine_of_its_own(scene):
    paused: list[int] = []

    def decide(number: int, epoch: int) -> Decision:
        if (number, epoch) == (0, 2) and not paused:
            paused.append(number)
            return Decision.PAUSE
        if number == 2 and epoch == 1:
            s.engine.promotions.append(0)
        return Decision.GO_ON

    def job(task: Any, report: Any, slot: Any) -> Any:
        time.sleep(0.5 if task.number == 3 else 0)
        return fake_jobs.memory_once_job(task, report, slot)

    s = scene(
        job=job, decide=decide, num_trials=6, num_points=6, num_epochs=4,
        num_retries=1, slots=(Slot(0, 1), Slot(1, 1)),
    )  # fmt: skip
    began = []
    original = s.executor.start

    def start(job_id: str, job: Any, task: Any, *rest: Any) -> None:
        if job_id.startswith("trial-"):
            began.append((task.number, len(s.board.running())))
        original(job_id, job, task, *rest)

    s.executor.start = start
    assert s.run() is StopReason.TRIALS
    lives = [running for number, running in began if number == 0]
    assert lives[1:] == [1, 1], "after its memory ran out, and after it was promoted"
    assert paused == [0]
    assert set(states_of(s).values()) == {"COMPLETE"}


def test_the_target_ends_the_trial_as_complete_and_the_sweep(scene):
    s = scene(rules={"target": 0.3}, num_trials=4)
    assert s.run() is StopReason.TARGET
    (state, value, _) = s.engine.told[0]
    assert state is TrialState.COMPLETE and value >= 0.3
    assert len(s.board.rows) == 1 and s.tracker.kept == [0]


def test_the_limit_of_epochs_ends_the_sweep(scene):
    s = scene(rules={"max_total_epochs": 5})
    assert s.run() is StopReason.EPOCHS
    assert len(s.engine.reports) == 5
    assert states_of(s) == {0: "COMPLETE", 1: "PRUNED"}
    assert "limit of epochs" in s.tracker.ended[1].tags["sweeps.reason"]


def test_trials_without_a_new_best_end_the_sweep(scene):
    s = scene(rules={"patience_trials": 2}, num_trials=30, num_points=30)
    assert s.run() is StopReason.NO_IMPROVEMENT
    best = s.board.best()
    assert best is not None and max(s.board.rows) == best.number + 2


def test_a_repeated_point_is_not_trained_and_takes_the_first_ones_result(scene):
    s = scene(num_trials=3, num_points=3)
    s.engine.duplicates = {1: 0}
    s.run()
    assert s.engine.told[1][:2] == s.engine.told[0][:2]
    assert {epoch[0] for epoch in s.tracker.epochs} == {0, 2}
    assert s.tracker.ended[1].tags["sweeps.duplicate_of"] == "0"
    assert s.tracker.ended[1].state == "COMPLETE"
    assert [row.number for row in s.board.ranking()].count(1) == 0


def test_points_that_are_not_trained_do_not_count_as_trials(scene):
    s = scene(num_trials=2, num_points=9)
    s.engine.duplicates, s.engine.broken_limits = {1: 0, 3: 0}, {2: "parameters 3k > 2k"}
    assert s.run() is StopReason.TRIALS
    assert {epoch[0] for epoch in s.tracker.epochs} == {0, 4}, "two points were trained"
    assert set(s.engine.told) == {0, 1, 2, 3, 4}
    done = s.board.progress()
    assert (done.unit, done.total, done.done) == ("trials", 2, 2)


@pytest.mark.parametrize("counted", [False, True])
def test_a_resumed_sweep_counts_as_it_did(scene, counted):
    s = scene(num_trials=2, num_points=9)
    s.board.counts_untrained = counted
    point, done = s.engine._points[0], TrialState.COMPLETE
    s.engine.history = [
        PastTrial(0, point, done, 0.9, {3: 0.9}),
        PastTrial(1, point, done, 0.9, {}, facts={"duplicate_of": 0}),
    ]
    s.engine._next = 2
    assert s.run() is StopReason.TRIALS
    assert set(s.engine.told) == (set() if counted else {2})


def test_in_a_sweep_of_before_every_point_counts_as_a_trial(scene):
    s = scene(num_trials=2, num_points=9)
    s.board.counts_untrained = True
    s.engine.duplicates = {1: 0}
    assert s.run() is StopReason.TRIALS
    assert set(s.engine.told) == {0, 1}


@pytest.mark.parametrize("hidden", [{}, {"only_seen_here": 1}])
def test_a_sweep_of_more_trials_than_a_space_has_points_ends_with_its_last_point(scene, hidden):
    space = replace(SPACE, sample=lambda hp: {"units": hp.Int("units", 1, 2)}, see_all=None)
    s = scene(num_trials=9, space=space, num_points=0)
    s.engine._points = [{"units": 1}, {"units": 2, **hidden}, {"units": 1}, {"units": 2}]
    s.engine.duplicates = {2: 0}
    assert s.run() is StopReason.EXHAUSTED
    asked = 4 if hidden else 2
    assert set(s.engine.told) == set(range(asked)), "no repetition where all is known"


def test_an_audit_trains_pruned_trials_to_the_end_and_changes_nothing_else(scene):
    best, *others = trial_order()
    s = scene(decide=pause_at_one({best}), num_trials=4, num_audited=2)
    s.run()
    assert states_of(s) == {best: "COMPLETE", **dict.fromkeys(others, "PRUNED")}
    assert len(s.board.audits) == 2
    for number, value in s.board.audits.items():
        assert s.tracker.tags[number]["sweeps.audit_value"] == f"{value:.6g}"
        row = s.board.rows[number]
        assert value == fake_jobs.curve_of(s.sweep._trials.task(row))[-1]
    assert all(epoch[1] == 1 for epoch in s.tracker.epochs if epoch[0] != best)
    assert list(s.paths.sweep.glob("trial-*")) == []


def test_termination_leaves_what_runs_and_waits_to_be_resumed(scene):
    s = scene(job=fake_jobs.uneven_job, slots=(Slot(0, 1), Slot(1, 1)))

    def terminate(board: Any) -> None:
        s.interrupts.count, s.interrupts.terminated = 1, True

    s.sweep._trials.view = fake_loop_parts.ScriptedView(terminate)
    assert s.run() is StopReason.PREEMPTED
    assert set(states_of(s).values()) == {"COMPLETE"}
    open_ones = set(s.board.rows) - set(s.engine.told)
    assert open_ones
    assert {s.tracker.states[-1 - k] for k in range(len(open_ones))} == {
        (n, "PAUSED") for n in open_ones
    }


def test_a_point_that_breaks_a_limit_ends_without_training(scene):
    s = scene(num_trials=3, num_points=3)
    s.engine.broken_limits = {1: "parameters 312k > 200k"}
    s.run()
    assert s.engine.told[1] == (TrialState.PRUNED, None, "parameters 312k > 200k")
    assert {epoch[0] for epoch in s.tracker.epochs} == {0, 2}
    assert s.tracker.ended[1].state == "PRUNED"
    assert s.tracker.ended[1].tags["sweeps.reason"] == "parameters 312k > 200k"


def slow_job(task: Any, report: Any, slot: Any) -> Any:
    """As `recorded_job`; an epoch of trial 1 takes 41 s, and its start some more."""

    def timed(message: Any) -> Any:
        took = 41.0 if task.number == 1 else 3.0
        times = {"epoch_seconds": took + 20.0, "compile_seconds": 20.0}
        later = {"epoch_seconds": took, "compile_seconds": 0.0}
        metrics = {**message.metrics, **(times if message.step == 1 else later)}
        return report(replace(message, metrics=metrics))

    return fake_jobs.recorded_job(task, timed, slot)


def test_with_a_time_limit_a_slow_trial_is_pruned_at_its_first_report(scene):
    limits = parse_limits(["epoch_seconds<=30"])
    s = scene(
        num_trials=3, num_points=3, job=slow_job, limits=limits, rules={"timeout_seconds": 60}
    )
    s.run()
    assert s.engine.told[1] == (TrialState.PRUNED, None, "epoch_seconds 41 > 30")
    assert [epoch for epoch in s.tracker.epochs if epoch[0] == 1] == [(1, 1)]
    assert states_of(s) == {0: "COMPLETE", 1: "PRUNED", 2: "COMPLETE"}
    assert s.tracker.ended[1].tags["sweeps.reason"] == "epoch_seconds 41 > 30"
    assert s.engine.measured[1] == {"epoch_seconds": 41.0}
    assert 1 not in {row.number for row in s.board.ranking()} and 1 not in s.tracker.kept


def test_without_a_time_limit_a_slow_trial_trains_to_its_end_and_is_left_out_then(scene):
    limits = parse_limits(["epoch_seconds<=30"])
    s = scene(num_trials=3, num_points=3, job=slow_job, limits=limits, keep=3)
    s.run()
    assert [epoch for epoch in s.tracker.epochs if epoch[0] == 1] == [(1, 1), (1, 2), (1, 3)]
    assert s.engine.told[1] == (TrialState.PRUNED, None, "epoch_seconds 41 > 30")
    assert s.tracker.ended[1].state == "PRUNED"
    assert 1 not in {row.number for row in s.board.ranking()}
    assert sorted(s.tracker.kept) == [0, 2]


def test_what_an_earlier_session_measured_is_judged_again_in_the_same_way(scene):
    limits = parse_limits(["epoch_seconds<=30"])
    s = scene(num_trials=1, num_points=0, limits=limits, rules={"timeout_seconds": 60})
    params = fake_loop_parts.random_points(SPACE, 1)[0]
    past = PastTrial(
        0, params, TrialState.RUNNING, None, {1: 0.5}, measured={"epoch_seconds": 41.0}
    )
    s.engine.history = [past]
    s.run()
    assert s.engine.told[0] == (TrialState.PRUNED, None, "epoch_seconds 41 > 30")


def test_the_size_of_a_model_that_nobody_knew_is_judged_after_the_trial(scene):
    s = scene(num_trials=1, num_points=1, limits=parse_limits(["parameters<=9"]))
    s.run()
    assert s.engine.told[0] == (TrialState.PRUNED, None, "parameters 10 > 9")


def test_a_source_that_changes_meanwhile_ends_no_trial_and_the_sweep_can_be_resumed(scene):
    s = scene(job=fake_jobs.source_changed_job)
    assert s.run() is StopReason.CHANGED
    assert states_of(s) == {0: "COMPLETE"}, "trial 1 was not told an end"
    assert s.tracker.states[-1] == (1, "PAUSED")
    assert "my_space.py" in s.sweep.error


def test_a_resumed_sweep_goes_on_with_what_ran_and_repeats_nothing(scene, tmp_path):
    s = scene(num_trials=3, num_points=3)
    points = fake_loop_parts.random_points(SPACE, 3)
    row = TrialRow(1, "trial 1", points[1], trial_seed(0, 1), Schedule(3), SPACE)
    task = s.sweep._trials.task(row)
    curve = fake_jobs.curve_of(task)
    s.engine.history = [
        PastTrial(0, points[0], TrialState.COMPLETE, 0.9, {1: 0.5, 2: 0.9}, facts={"seconds": 5.0}),
        PastTrial(1, points[1], TrialState.RUNNING, None, {1: curve[0]}),
    ]
    s.engine._next = 2
    s.engine.reports = [(1, 1, curve[0])]
    s.paths.trial(1).mkdir(parents=True)
    (s.paths.trial(1) / "checkpoint.npz").write_text("xx")
    assert s.run() is StopReason.TRIALS
    assert states_of(s) == {1: "COMPLETE", 2: "COMPLETE"}
    assert [e for e in s.tracker.epochs if e[0] == 1] == [(1, 2), (1, 3)]
    assert s.board.rows[0].past and s.board.rows[0].seconds == 5.0


def test_two_hundred_trials_leave_no_files_behind(scene):
    s = scene(num_trials=200, num_points=200, decide=pause_at_one(set(range(0, 200, 3))))
    most = []
    original = s.executor.start

    def start(*args: Any) -> None:
        most.append(len(list(s.paths.sweep.glob("trial-*"))))
        original(*args)

    s.engine.unpromotable = lambda num_trials: [
        n for n in s.engine.paused if n not in s.engine.told and len(s.engine.paused) > 5
    ]
    s.executor.start = start
    s.run()
    assert max(most) <= 10, "trials that ended or cannot be promoted leave nothing"
    assert list(s.paths.sweep.glob("trial-*")) == []
    assert len(s.tracker.kept) == 2
    # Arrived models are gone from the spool; the fake tracker leaves those of the records it took.
    assert len(list((s.paths.spool / "files").rglob("*.keras"))) == len(
        [key for key in s.tracker.keys if key.endswith("/model")]
    )


def test_when_all_fail_alike_what_still_runs_ends_too(scene):
    def job(task: Any, report: Any, slot: Any) -> Any:
        if task.number == 1:
            return fake_jobs.endless_job(task, report, slot)
        return fake_jobs.always_raising_job(task, report, slot)

    s = scene(job=job, num_trials=9, num_points=9, slots=(Slot(0, 1), Slot(1, 1)))
    assert s.run() is StopReason.FAILING
    assert states_of(s)[1] == "KILLED"
    assert set(states_of(s)) == set(s.board.rows)


def test_no_improvement_counts_from_the_end_of_the_best_one(scene):
    from sweeps.driver.plan import trials_without_best

    s = scene(num_trials=4)
    s.run()
    for row, value, order in zip(s.board.rows.values(), (0.9, 0.1, 0.2, 0.3), (3, 0, 1, 2),
                                 strict=True):  # fmt: skip
        row.value, row.end_order = value, order
    assert trials_without_best(s.board) == 0, "the best one ended last, though it began first"
    s.board.rows[0].end_order, s.board.rows[2].end_order, s.board.rows[3].end_order = 1, 2, 3
    assert trials_without_best(s.board) == 2


def test_an_interrupt_leaves_paused_trials_to_be_promoted_later(scene):
    s = scene(decide=pause_at_one(set()), num_trials=3, num_points=3)
    s.sweep._trials.view = fake_loop_parts.ScriptedView(
        lambda board: setattr(s.interrupts, "count", int(len(board.rows) == 2))
    )
    assert s.run() is StopReason.INTERRUPTED
    assert {row.state for row in s.board.rows.values()} == {TrialState.PAUSED}
    assert len(list(s.paths.sweep.glob("trial-*/checkpoint.npz"))) == 2


def test_an_audit_that_hangs_or_fails_is_said(scene):
    def job(task: Any, report: Any, slot: Any) -> Any:
        if task.reported_step:
            if task.number == 0:
                return fake_jobs.endless_job(task, report, slot)
            raise RuntimeError("no luck")
        return fake_jobs.recorded_job(task, report, slot)

    s = scene(
        job=job, decide=pause_at_one(set()), num_trials=2, num_points=2, num_audited=2,
        stall_seconds=0.5,
    )  # fmt: skip
    s.run()
    assert s.board.audits == {}
    assert "no report within" in s.board.failed_audits[0]
    assert s.board.failed_audits[1] == "RuntimeError: no luck"


def test_an_audit_that_is_killed_is_made_again(scene):
    kills: list[int] = []

    def job(task: Any, report: Any, slot: Any) -> Any:
        if task.reported_step and kills.count(task.number) < 2:
            kills.append(task.number)
            raise fake_jobs.Died("the process was killed by signal SIGKILL", "SIGKILL")
        return fake_jobs.recorded_job(task, report, slot)

    s = scene(job=job, decide=pause_at_one(set()), num_trials=2, num_points=2, num_audited=2)
    s.run()
    assert sorted(kills) == [0, 0, 1, 1]
    assert sorted(s.board.audits) == [0, 1] and s.board.failed_audits == {}


def test_a_rule_that_ends_the_sweep_while_a_trial_has_the_machine_to_itself_frees_it(scene):
    """The audit that follows takes slots as ever."""
    short = [1]

    def job(task: Any, report: Any, slot: Any) -> Any:
        if task.number in short:
            short.remove(task.number)
            raise MemoryError("no room")
        return fake_jobs.recorded_job(task, report, slot)

    s = scene(
        job=job, decide=pause_at_one(set()), num_trials=4, num_audited=2, num_retries=1,
        rules={"max_total_epochs": 2},
    )  # fmt: skip
    assert s.run() is StopReason.EPOCHS
    assert short == [] and sorted(s.board.audits) == [0, 1]


def test_a_sampler_that_only_repeats_itself_ends_the_sweep(scene):
    s = scene(num_trials=None, num_points=300)
    s.engine.duplicates = dict.fromkeys(range(1, 300), 0)
    assert s.run() is StopReason.EXHAUSTED
    assert s.engine.told[0][0] is TrialState.COMPLETE
    assert len(s.engine.told) == 1 + MAX_UNTRAINED


def test_points_beyond_a_limit_do_not_count_as_no_improvement(scene):
    s = scene(num_trials=2, num_points=8, rules={"patience_trials": 3})
    s.engine.broken_limits = dict.fromkeys(range(1, 7), "parameters 3k > 2k")
    assert s.run() is StopReason.TRIALS
    assert s.engine.told[7][0] is TrialState.COMPLETE


def test_when_the_time_is_just_enough_what_would_have_waited_is_trained_in_full(scene):
    s = scene(
        num_trials=None, num_points=50, rungs=(1, 3), decide=pause_at_one(set()),
        rules={"timeout_seconds": 4.0},
    )  # fmt: skip
    assert s.run() is StopReason.EXHAUSTED
    first = next(iter(s.engine.told.items()))
    assert (first[0], first[1][0]) == (0, TrialState.COMPLETE), "no other was begun before its end"
    assert len(s.engine.told) == 50, "it took less than was reserved, so all others were tried, too"


def test_the_best_that_waits_is_trained_in_full_before_the_time_is_over(scene):
    s = scene(
        num_trials=None, num_points=60, rungs=(1, 3), decide=pause_at_one(set()),
        rules={"timeout_seconds": 3600.0},
    )  # fmt: skip
    plan = s.sweep._time_plan
    closes = iter([False] * 18 + [True] * 10_000)
    plan._time_is_up = lambda: next(closes)
    assert s.run() is StopReason.TIMEOUT
    reached = {row.number: row.curve[1] for row in s.board.rows.values()}
    complete = {n for n, (state, _, _) in s.engine.told.items() if state is TrialState.COMPLETE}
    assert max(reached, key=reached.get) in complete


def test_a_space_that_ends_the_search_fails_its_trial_and_suspends_the_sweep(scene):
    def fatal(task: Any, report: Any, slot: Slot) -> Any:
        if task.number == 1:
            raise SearchEndedError("FatalError: no licence")
        return fake_jobs.recorded_job(task, report, slot)

    s = scene(job=fatal, num_retries=2)
    assert s.run() is StopReason.FATAL and s.sweep.error == "FatalError: no licence"
    assert states_of(s) == {0: "COMPLETE", 1: "FAILED"}
    assert "no licence" in s.tracker.ended[1].tags["sweeps.reason"]
