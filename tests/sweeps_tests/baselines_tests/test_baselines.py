"""Published models are trials of the one loop: seeds, interruption, resuming, the comparison."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_executor
import fake_jobs
import pytest

from pipelines.training.options import TrainingOptions
from search_spaces.errors import InputError
from search_spaces.registry import all_baselines
from sweeps.baselines import session
from sweeps.baselines.report import BaselinesReport, Reproduced, median_result
from sweeps.baselines.session import BaselinesResult, BaselinesStart, reproduce_baselines
from sweeps.cli.baseline_table import print_baselines, print_report
from sweeps.cli.main import main
from sweeps.driver.board.views import QuietView
from sweeps.driver.plan import trial_seed
from sweeps.interrupts import Interrupts
from sweeps.outcome import Outcome
from sweeps.settings import SweepSettings
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import BASELINES, find_sweep, read_sweep_file, write_sweep_file
from tracking.spool.records import (
    EpochRecord,
    ModelRecord,
    SweepEnd,
    SweepRecord,
    SweepStateRecord,
    TrialEnd,
    TrialRecord,
    TrialStateRecord,
)
from tracking.spool.spool import Spool

BASELINE = all_baselines()[0]
SETTINGS = SweepSettings("", "digits", num_epochs=2, name="b", offline=True)


def result(accuracy: float) -> Reproduced:
    return Reproduced(accuracy, 0.03, 93_322, 60.0)


def test_the_difference_is_in_points():
    assert result(0.990).difference_points(BASELINE) == pytest.approx(-0.2)
    assert not result(0.990).is_off(BASELINE) and result(0.980).is_off(BASELINE)


def test_the_median_is_one_of_the_results():
    assert median_result([]) is None
    assert median_result([result(0.9)]).test_accuracy == 0.9
    assert median_result([result(0.98), result(0.99), result(0.91)]) == result(0.98)
    assert median_result([result(0.98), result(0.99)]) == result(0.98)


def test_every_seed_is_shown(capsys):
    results = {BASELINE.name: [result(0.98), result(0.993), result(0.991)]}
    print_report(BaselinesReport(all_baselines(), results, "mnist", frozenset(), {}))
    out = capsys.readouterr().out
    assert re.search(r"cnn3_valid_50k\s+93,322\s+0\.9920\s+0\.9910\s+-0\.10", out)
    assert "the median of 3 seeds is shown (0.9800, 0.9930, 0.9910)" in out
    assert out.count("not trained") == len(all_baselines()) - 1


# With made-up trainings


def measured_job(task: Any, report: Any, slot: Any) -> Any:
    """As training does with a published model: the test split is read after the last epoch."""
    assert task.schedule.measure_test and task.schedule.keeps_last
    found = fake_jobs.recorded_job(task, report, slot)
    return replace(found, test_metrics={"test_accuracy": 0.9, "test_loss": 0.3})


@pytest.fixture
def made_up(monkeypatch, tiny_data):
    monkeypatch.setattr(
        "sweeps.executors.processes.ProcessExecutor",
        lambda *_, **__: fake_executor.InlineExecutor(),
    )
    monkeypatch.setattr(session, "prepare_data", lambda *_: tiny_data)
    monkeypatch.setattr(session, "reopen_data", lambda *_: tiny_data)
    monkeypatch.setattr(session, "train_job", measured_job)
    monkeypatch.setattr("sweeps.driver.figures.figures_job", fake_jobs.chaos_figures_job)


def train(settings: SweepSettings = SETTINGS, **start: Any) -> BaselinesResult:
    lines: list[str] = []
    how = BaselinesStart(lines.append, QuietView, **start)
    return reproduce_baselines(settings, how)


def records(kind: type, name: str = "b") -> list[Any]:
    spool = Spool(paths(name).spool, read_only=True)
    return [record for record in spool.replay() if isinstance(record, kind)]


def paths(name: str = "b") -> SweepPaths:
    return find_sweep(Path(".sweeps"), name, kind=BASELINES)


def resumed(**changes: Any) -> BaselinesResult:
    earlier = read_sweep_file(paths().state)
    return train(replace(SETTINGS, **changes), earlier=earlier)


def test_each_is_trained_as_published_and_its_run_says_so(made_up, capsys):
    found = train()
    assert found.outcome is Outcome.DONE and not found.problems
    runs = records(TrialRecord)
    assert [run.name for run in runs] == [b.name for b in all_baselines()]
    for place, (run, baseline) in enumerate(zip(runs, all_baselines(), strict=True)):
        assert run.tags["sweeps.baseline"] == baseline.name
        assert run.tags["sweeps.space"] == baseline.space
        assert run.tags["sweeps.seed"] == str(trial_seed(0, place))
        assert run.params["train_on"] == baseline.train_on and run.params["max_epochs"] == 2
    ends = records(TrialEnd)
    assert {end.state for end in ends} == {"COMPLETE"}
    assert all(end.tags["sweeps.test_split_read"] == "true" for end in ends)
    assert ends[0].metrics["published_test_accuracy"] == BASELINE.accuracy
    assert ends[0].metrics["test_accuracy"] == 0.9
    assert len(records(EpochRecord)) == 2 * len(runs)
    assert not records(ModelRecord), "no model is kept"
    (end,) = records(SweepEnd)
    assert end.status == "FINISHED"
    assert read_sweep_file(paths().state).is_finished
    said: list[str] = []
    assert print_baselines(found, said.append) == 0
    assert capsys.readouterr().out.count("0.9000") == len(runs)
    assert any(line.startswith("  keras-sweeps sync b ") for line in said), "it was offline"
    assert list(paths().sweep.glob("trial-*")) == []


def test_a_space_has_its_own_baselines_only(made_up):
    train(replace(SETTINGS, space="mlp"))
    assert [run.name for run in records(TrialRecord)] == ["mlp_512x2"]
    # Whichever are chosen, each has the same seed.
    (run,) = records(TrialRecord)
    assert run.tags["sweeps.seed"] == str(trial_seed(0, len(all_baselines()) - 1))


def test_one_that_is_off_is_trained_on_two_further_seeds(made_up, monkeypatch, tiny_data):
    def job(task: Any, report: Any, slot: Any) -> Any:
        cnn = [b for b in all_baselines() if b.space == "cnn"]
        accuracy = 0.95 if task.number == 0 else cnn[task.number % len(cnn)].accuracy
        found = measured_job(task, report, slot)
        return replace(found, test_metrics={"test_accuracy": accuracy, "test_loss": 0.3})

    monkeypatch.setattr(session, "train_job", job)
    monkeypatch.setattr(session, "prepare_data", lambda *_: replace(tiny_data, name="mnist"))
    monkeypatch.setattr("pipelines.training.trial.Schedule.end_epoch", property(lambda s: 1))
    settings = replace(SETTINGS, space="cnn", num_epochs=None)
    lines: list[str] = []
    how = BaselinesStart(lines.append, QuietView)
    found = reproduce_baselines(settings, how)
    of_first = [run for run in records(TrialRecord) if run.name == BASELINE.name]
    assert [run.number for run in of_first] == [0, 4, 8]
    num = len(all_baselines())
    assert [run.tags["sweeps.seed"] for run in of_first] == [
        str(trial_seed(0, k * num)) for k in range(3)
    ]
    assert found.report.median(BASELINE).test_accuracy == BASELINE.accuracy
    assert sum("training two more seeds" in line for line in lines) == 1
    assert not [p for p in found.report.problems() if p.startswith(BASELINE.name)]


def test_one_that_fails_is_said_and_the_others_are_trained(made_up, monkeypatch, capsys):
    def job(task: Any, report: Any, slot: Any) -> Any:
        if task.number == 1:
            raise ValueError("no such luck")
        return measured_job(task, report, slot)

    monkeypatch.setattr(session, "train_job", job)
    found = train()
    assert found.outcome is Outcome.FAILED
    assert print_baselines(found, lambda line: None) == 1
    captured = capsys.readouterr()
    assert "error: cnn3_valid_60k: ValueError: no such luck" in captured.err
    assert captured.out.count("not trained") == 1


def test_one_that_crashes_is_tried_again(made_up, monkeypatch):
    tries = []

    def job(task: Any, report: Any, slot: Any) -> Any:
        if task.number == 0 and len(tries) < 2:
            tries.append(task.number)
            raise fake_jobs.Died("the process was killed by signal SIGKILL")
        return measured_job(task, report, slot)

    monkeypatch.setattr(session, "train_job", job)
    assert train().outcome is Outcome.DONE and len(tries) == 2


def test_those_that_fail_alike_do_not_end_the_others(made_up, monkeypatch):
    def job(task: Any, report: Any, slot: Any) -> Any:
        if task.number < 3:
            raise ValueError("no such luck")
        return measured_job(task, report, slot)

    monkeypatch.setattr(session, "train_job", job)
    found = train()
    assert found.outcome is Outcome.FAILED
    ends = {end.number: end.state for end in records(TrialEnd)}
    assert ends == {0: "FAILED", 1: "FAILED", 2: "FAILED", 3: "COMPLETE", 4: "COMPLETE"}
    assert len(found.report.problems()) == 3


def test_one_that_hangs_is_said(made_up, monkeypatch):
    def job(task: Any, report: Any, slot: Any) -> Any:
        if task.number == 1:
            threading.Event().wait(30)
        return measured_job(task, report, slot)

    monkeypatch.setattr(session, "train_job", job)
    found = train(replace(SETTINGS, stall_seconds=1.0, num_retries=0))
    (problem,) = found.report.problems()
    assert problem == "cnn3_valid_60k: Hang: no report within 1 seconds"


def test_what_is_recorded_is_what_was_done(made_up):
    options = TrainingOptions(deterministic=True, early_stopping=3, jit="off")
    train(replace(SETTINGS, training=options))
    (record,) = records(SweepRecord)
    assert record.params["deterministic"] is True
    assert record.params["patience"] is None, "published models train to their end"
    (end,) = records(SweepEnd)
    assert end.tags["sweeps.stopped_by"] == "all trials ended"


def test_a_refusal_leaves_the_name_free(made_up, capsys):
    options = ["run", "--baselines-only", "--dataset", "digits", "--name", "q", "--offline"]
    assert main([*options, "--objective", "foo"]) == 2
    assert main([*options, "--pixels", "unit"]) == 2
    assert "rescale pixels themselves" in capsys.readouterr().err
    assert main([*options, "--epochs", "1", "--jit", "off"]) == 0


def test_a_search_does_not_take_the_name_of_published_models(made_up, capsys):
    train(replace(SETTINGS, space="cnn"))
    path = paths().state
    write_sweep_file(path, replace(read_sweep_file(path), status="interrupted"))
    assert main(["run", "--space", "cnn", "--dataset", "digits", "--name", "b"]) == 2
    assert "--baselines-only --resume --name b" in capsys.readouterr().err
    assert main(["run", "--resume", "--write-config"]) == 2
    assert "settings of a search" in capsys.readouterr().err
    assert main(["run", "--baselines-only", "--name", "b"]) == 0, "the name is enough"


@pytest.mark.parametrize(("how", "state", "status"), [
    ("interrupted", "KILLED", "KILLED"), ("terminated", "PAUSED", "SCHEDULED"),
])  # fmt: skip
def test_an_interrupt_leaves_nothing_running_and_it_goes_on(
    made_up, monkeypatch, how, state, status
):
    stopper: list[Interrupts] = []

    class Known(Interrupts):
        def __enter__(self) -> Interrupts:
            stopper.append(self)
            return self

        def __exit__(self, *_: Any) -> None:
            return None

    def job(task: Any, report: Any, slot: Any) -> Any:
        if task.number == 2:
            stopper[0].count, stopper[0].terminated = 1, how == "terminated"
        return measured_job(task, report, slot)

    monkeypatch.setattr(session, "Interrupts", Known)
    monkeypatch.setattr(session, "train_job", job)
    found = train()
    assert found.outcome is Outcome.INTERRUPTED
    last: dict[int, str] = {}
    for record in records((TrialStateRecord, TrialEnd)):
        last[record.number] = record.state
    assert last == {0: "COMPLETE", 1: "COMPLETE", 2: state}
    ends = records((SweepEnd, SweepStateRecord))
    assert ends[-1].status == status
    assert not read_sweep_file(paths().state).is_finished
    monkeypatch.setattr(session, "train_job", measured_job)
    assert resumed().outcome is Outcome.DONE
    epochs = [(r.number, r.epoch) for r in records(EpochRecord)]
    assert sorted(epochs) == [(n, e) for n in range(len(all_baselines())) for e in (1, 2)]
    assert len(records(SweepRecord)) == 1


def test_other_epochs_are_refused_when_it_goes_on(made_up):
    train()
    earlier = read_sweep_file(paths().state)
    with pytest.raises(InputError, match="--epochs was 2, is 3"):
        train(replace(SETTINGS, num_epochs=3), earlier=earlier, given={"num_epochs"})


@pytest.mark.parametrize(("is_away", "status"), [(True, 1), (False, 0)])
def test_what_never_reached_the_server_is_a_failure(made_up, monkeypatch, capsys, is_away, status):
    class Destination:
        def __init__(self, *_: Any) -> None: ...

        def check(self) -> None: ...

        def __call__(self) -> Destination:
            if is_away:
                raise ConnectionError("the server is away")
            return self

        def apply(self, record: Any, *, again: bool) -> dict[str, Any]:
            return {}

    monkeypatch.setattr(session, "Destination", Destination)
    monkeypatch.setattr("sweeps.driver.session.DRAIN_SECONDS", 0.0 if is_away else 60.0)
    found = train(replace(SETTINGS, space="mlp", offline=False))
    assert found.outcome is Outcome.DONE and found.recorded is not is_away
    assert print_baselines(found, lambda line: None) == status
    assert ("`keras-sweeps sync b` sends them" in capsys.readouterr().err) is is_away


class Killed(BaseException):
    """As SIGKILL would: nothing catches it."""


def outcome(name: str) -> dict[str, Any]:
    epochs = [(r.number, r.epoch) for r in records(EpochRecord, name)]
    assert len(epochs) == len(set(epochs)), "no epoch is recorded twice"
    last = {r.number: r for r in records(TrialEnd, name)}
    return {
        "epochs": sorted(epochs),
        "ends": {n: (end.state, dict(end.metrics)) for n, end in sorted(last.items())},
        "sweep": [r.status for r in records(SweepEnd, name)][-1],
    }


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_write_changes_nothing(made_up, monkeypatch, step):
    train(replace(SETTINGS, name="whole"))
    expected = outcome("whole")
    put, answer = Spool.put, fake_executor.InlineExecutor.answer
    for kill_at in range(step // 2, 300, step):
        name, writes = f"killed-{kill_at}", {"left": kill_at}

        def mortal(original, writes=writes):
            def call(*arguments, **options):
                writes["left"] -= 1
                if writes["left"] < 0:
                    raise Killed
                return original(*arguments, **options)

            return call

        settings, done = replace(SETTINGS, name=name), False
        with monkeypatch.context() as patch:
            patch.setattr(Spool, "put", mortal(put))
            patch.setattr(fake_executor.InlineExecutor, "answer", mortal(answer))
            try:
                train(settings)
                done = True
            except Killed:
                pass
        if done:
            assert kill_at > 20
            return
        found = train(settings, earlier=read_sweep_file(paths(name).state))
        assert found.outcome is Outcome.DONE
        assert outcome(name) == expected, f"killed at write {kill_at}"
    raise AssertionError("more than 300 writes")
