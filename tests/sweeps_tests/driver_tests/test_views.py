"""What a sweep's log says of its trials, and what functions of a program are given."""

from __future__ import annotations

import dataclasses
import logging

import fake_jobs
import pytest
from loop_scene import Scene

from pipelines.training.trial import Decision
from sweeps.driver.board.trial import Trial, stored_trial
from sweeps.driver.board.views import CallbackError, LogView, TrialCallbacks, Views
from sweeps.driver.plan import StopReason
from sweeps.engines.base import PastTrial, TrialState
from sweeps.state.log import logging_to


def logged(tmp_path, tiny_data, **options) -> list[str]:
    path = tmp_path / "sweep.log"
    with logging_to(path):
        Scene(tiny_data, tmp_path, view=LogView(), **options).run()
    return [line.split(maxsplit=2)[2] for line in path.read_text().splitlines()]


def test_begin_and_end_of_each_trial_are_logged(tiny_data, tmp_path):
    lines = logged(tmp_path, tiny_data, num_trials=2)
    begins = [line for line in lines if " starts, slot 0: " in line]
    ends = [line for line in lines if " COMPLETE at epoch 3 after " in line]
    assert len(begins) == len(ends) == 2
    assert begins[0].startswith("INFO    trial 0 starts, slot 0: num_layers=")
    assert ", val_accuracy 0." in ends[1]


def test_a_failure_is_an_error_with_its_traceback(tiny_data, tmp_path):
    lines = logged(tmp_path, tiny_data, num_trials=2, job=fake_jobs.raising_job)
    (failed,) = [line for line in lines if " FAILED " in line]
    assert failed.startswith("ERROR   trial 1 FAILED at epoch ")
    assert failed.endswith(": RuntimeError: no luck")
    assert "no luck" in lines[-1] or any("Traceback" in line for line in lines)


def test_retries_pauses_and_promotions_are_logged(tiny_data, tmp_path):
    lines = logged(
        tmp_path, tiny_data, num_trials=1, num_points=1, job=fake_jobs.always_dying_job,
        num_retries=1,
    )  # fmt: skip
    (again,) = [line for line in lines if " is tried again " in line]
    assert again.startswith(
        "WARNING trial 0 is tried again from epoch 0 (try 2): Died: the process "
    )
    paused: set[int] = set()

    def decide(number: int, epoch: int) -> Decision:
        if epoch > 1 or number in paused:
            return Decision.GO_ON
        paused.add(number)
        return Decision.PAUSE

    scene = Scene(
        tiny_data, tmp_path / "other", view=LogView(), num_trials=1, num_points=1, decide=decide
    )
    waiting = scene.engine.paused
    scene.engine.next_promotion = lambda *, no_more_trials: (
        waiting.pop(0) if no_more_trials and waiting else None
    )
    with logging_to(tmp_path / "other.log"):
        scene.run()
    lines = (tmp_path / "other.log").read_text().splitlines()
    starts = [line.split(maxsplit=2)[2].split(":")[0] for line in lines]
    assert starts[1].startswith("INFO    trial 0 PAUSED at epoch 1 after ")
    assert starts[2] == "INFO    trial 0 continues after epoch 1, slot 0"
    assert starts[3].startswith("INFO    trial 0 COMPLETE at epoch 3 after ")


def test_a_function_is_given_each_trial_that_ends(tiny_data, tmp_path):
    found: list[Trial] = []
    scene = Scene(
        tiny_data, tmp_path, view=TrialCallbacks([found.append]), job=fake_jobs.raising_job
    )
    scene.run()
    assert [trial.number for trial in found] == [0, 1, 2, 3]
    assert [trial.state for trial in found] == ["COMPLETE", "FAILED", "COMPLETE", "FAILED"]
    assert found[0].value == scene.engine.told[0][1] == max(found[0].curve.values())
    assert list(found[0].curve) == [1.0, 2.0, 3.0] and found[0].params["num_layers"]
    assert found[1].value is None and found[1].reason == "RuntimeError: no luck"
    with pytest.raises(dataclasses.FrozenInstanceError):
        found[0].value = 1.0


def test_a_function_that_raises_ends_the_sweep_and_no_trial_runs_on(tiny_data, tmp_path):
    def refuse(trial: Trial) -> None:
        raise KeyError(trial.number)

    quiet: list[Trial] = []
    view = Views([LogView(), TrialCallbacks([quiet.append, refuse])])
    scene = Scene(tiny_data, tmp_path, view=view)
    with pytest.raises(CallbackError, match=r"on_trial_end raised KeyError after trial 0: 0"):
        scene.sweep.run()
    assert len(quiet) == 1 and scene.executor.closed
    # The trial's end was recorded before, so that nothing is lost when the sweep goes on.
    assert scene.engine.told[0][0] is TrialState.COMPLETE


def test_a_stored_trial_is_the_same_as_a_live_one(tiny_data, tmp_path):
    found: list[Trial] = []
    scene = Scene(tiny_data, tmp_path, view=TrialCallbacks([found.append]), num_trials=1)
    assert scene.run() is StopReason.TRIALS
    row, live = scene.board.rows[0], found[0]
    facts = {"seconds": round(row.seconds, 3), "best_epoch": row.best_epoch,
             "num_parameters": row.num_parameters, "duplicate_of": None}  # fmt: skip
    past = PastTrial(0, row.params, row.state, row.value, row.curve, facts=facts)
    assert stored_trial(past, row.schedule.reports) == live


def test_nothing_of_the_log_reaches_other_handlers(tmp_path, capsys):
    received: list[str] = []

    class Received(logging.Handler):
        def emit(self, record):
            received.append(record.getMessage())

    root, handler = logging.getLogger(), Received()
    root.addHandler(handler)
    try:
        with logging_to(tmp_path / "log"), logging_to(tmp_path / "other"):
            logging.getLogger("sweeps.driver.search").info("an event")
            logging.getLogger("tracking.spool").warning("a warning")
    finally:
        root.removeHandler(handler)
    assert received == ["a warning"]
    for name in ("log", "other"):
        text = (tmp_path / name).read_text()
        assert "INFO    an event\n" in text and "WARNING a warning\n" in text
    assert capsys.readouterr() == ("", "")
    logging.getLogger("sweeps.driver.search").warning("after it")
    assert capsys.readouterr() == ("", "") and "after it" not in (tmp_path / "log").read_text()
    assert logging.getLogger("sweeps").level == logging.NOTSET
    assert logging.getLogger("sweeps").propagate


def test_the_log_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.state.log.MAX_BYTES", 2_000)
    with logging_to(tmp_path / "log"):
        for number in range(1_000):
            logging.getLogger("sweeps").info("line %d", number)
    found = sorted(tmp_path.iterdir())
    assert [path.name for path in found] == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 2_000 for path in found)
    assert "line 999" in found[0].read_text()
