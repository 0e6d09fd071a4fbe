"""The comparison of finalists: who takes part, on which seeds, and what a kill leaves of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import fake_executor
import fake_jobs
import fake_loop_parts
import pytest

from pipelines.objectives import OBJECTIVES
from search_spaces.errors import InputError
from search_spaces.registry import get_space
from sweeps.cli.commands.finalize import output, print_comparison
from sweeps.driver.plan import trial_seed
from sweeps.driver.records.spooled_trials import past_trials, read_trials
from sweeps.engines.base import PastTrial, TrialState
from sweeps.finalists import session
from sweeps.finalists.selection import (
    fresh_seed,
    pick_finalists,
    read_finalists,
)
from sweeps.interrupts import Interrupts
from sweeps.settings import FinalOptions, SweepSettings
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import FINISHED, StoredSweep, SweepFile
from tracking.spool.records import (
    EpochRecord,
    ModelRecord,
    SweepEnd,
    SweepStateRecord,
    TagsRecord,
    TrialEnd,
    TrialRecord,
    ViewRecord,
)
from tracking.spool.spool import Spool

SPACE = get_space("mlp")
ACCURACY = OBJECTIVES["val_accuracy"]
POINTS = fake_loop_parts.random_points(SPACE, 6)


def past(number: int, curve: list[float], state=TrialState.COMPLETE, **more: Any) -> PastTrial:
    value = max(curve) if curve and state is TrialState.COMPLETE else None
    fields = {"params": POINTS[number], **more}
    return PastTrial(number=number, state=state, value=value,
                     curve=dict(enumerate(curve, start=1)), **fields)  # fmt: skip


def test_the_best_distinct_configurations_are_picked():
    trials = [
        past(0, [0.5, 0.9], baseline="mlp_512x2, other"),
        past(1, [0.8, 0.7]),
        past(2, [0.95], TrialState.PRUNED),
        past(3, [0.99], TrialState.FAILED),
        past(4, [], TrialState.PRUNED),
        past(5, [0.97], params=POINTS[1]),
    ]
    found = pick_finalists(trials, ACCURACY, 10)
    assert [f.trial for f in found] == [5, 2, 0]
    assert [f.value for f in found] == [0.97, 0.95, 0.9]
    assert found[2].name == "trial 0 (mlp_512x2)"
    assert [f.trial for f in pick_finalists(trials, ACCURACY, 2)] == [5, 2]
    loss = pick_finalists(trials, OBJECTIVES["val_loss"], 1)
    assert loss[0].trial == 0


def test_a_repeated_trial_is_no_second_configuration():
    trials = [past(0, [0.9]), past(1, [0.9], params=POINTS[0], facts={"duplicate_of": 0})]
    assert [f.trial for f in pick_finalists(trials, ACCURACY, 5)] == [0]


def test_a_trial_that_broke_a_limit_is_no_finalist():
    broke = past(1, [0.99], TrialState.PRUNED, facts={"breaks_limit": "latency_ms 9 > 5"})
    assert [f.trial for f in pick_finalists([past(0, [0.9]), broke], ACCURACY, 5)] == [0]


def test_a_sweep_without_epochs_has_no_finalists():
    with pytest.raises(InputError, match="no trial of the sweep has completed an epoch"):
        pick_finalists([past(0, [], TrialState.PRUNED)], ACCURACY, 3)


@pytest.mark.parametrize("seed", [0, 1, 7, 2**31 - 1])
def test_no_seed_of_the_search_is_used_again(seed):
    search = {trial_seed(seed, number) for number in range(2000)}
    fresh = {trial_seed(fresh_seed(seed), number) for number in range(200)}
    assert len(fresh) == 200
    assert not search & fresh


# With made-up trainings


class Killed(BaseException):
    """As SIGKILL would: nothing catches it."""


@pytest.fixture
def sweep(tmp_path, tiny_data, monkeypatch) -> StoredSweep:
    """A finished sweep of three trials, one of which only seems the best."""
    trials = [past(0, [0.9]), past(1, [0.8]), past(2, [0.7])]
    monkeypatch.setattr("sweeps.engines.optuna_study.storage.open_storage", lambda url, **_: None)
    monkeypatch.setattr("sweeps.engines.optuna_study.storage.read_study", lambda *_: trials)
    monkeypatch.setattr(session, "reopen_data", lambda *_, **__: tiny_data)
    monkeypatch.setattr(
        "sweeps.executors.processes.ProcessExecutor",
        lambda *_, **__: fake_executor.InlineExecutor(),
    )
    monkeypatch.setattr(session, "train_job", fake_jobs.finalist_job)
    monkeypatch.setattr("sweeps.driver.figures.figures_job", fake_jobs.chaos_figures_job)
    paths = SweepPaths(tmp_path, "s")
    paths.sweep.mkdir(parents=True)
    settings = SweepSettings("mlp", "digits", num_epochs=3, name="s", offline=True)
    file = SweepFile("uid", FINISHED, settings, "digits", tiny_data.fingerprint, SPACE.fingerprint)
    return StoredSweep(paths, file)


def compare(sweep: StoredSweep, options=None, interrupts=None) -> int:
    options = options or FinalOptions(2, 3, "none")
    found = session.finalize(sweep, options, interrupts or Interrupts(), output(quiet=True))
    return print_comparison(found, sweep)


def records(sweep: StoredSweep, kind: type) -> list[Any]:
    spool = Spool(sweep.paths.sweep / "finalists" / "spool", read_only=True)
    return [record for record in spool.replay() if isinstance(record, kind)]


def outcome(sweep: StoredSweep) -> dict[str, Any]:
    """What the spool says in the end; every epoch once, one run per training, one model."""
    epochs = [(r.number, r.epoch) for r in records(sweep, EpochRecord)]
    assert len(epochs) == len(set(epochs))
    started = [r.number for r in records(sweep, TrialRecord)]
    assert len(started) == len(set(started))
    last = {r.number: r for r in records(sweep, TrialEnd)}
    assert all(end.state == "COMPLETE" for end in last.values())
    (model,) = records(sweep, ModelRecord)
    (end,) = {json.dumps([r.tags, r.metrics, r.leaderboard]) for r in records(sweep, SweepEnd)}
    return {
        "epochs": sorted(epochs),
        "values": {n: dict(e.metrics) for n, e in sorted(last.items())},
        "model": (model.number, model.tags["sweeps.model_sha256"]),
        "winners": {r.number for r in records(sweep, TagsRecord) if "sweeps.winner" in r.tags},
        "end": re.sub("sweep-[0-9a-f]{12}", "VIEW", end),  # Each comparison has its own.
    }


def test_every_finalist_is_trained_on_every_seed_and_measured_once(sweep, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # As in a notebook.
    assert compare(sweep) == 0
    found = records(sweep, TrialRecord)
    assert [(r.tags["sweeps.finalist_of"], r.name) for r in found] == [
        ("0", "trial 0, fresh seed 1"), ("1", "trial 1, fresh seed 1"),
        ("0", "trial 0, fresh seed 2"), ("1", "trial 1, fresh seed 2"),
        ("0", "trial 0, fresh seed 3"), ("1", "trial 1, fresh seed 3"),
    ]  # fmt: skip
    assert len({r.tags["sweeps.seed"] for r in found}) == 6
    ends = records(sweep, TrialEnd)
    assert all(end.tags["sweeps.test_split_read"] == "true" for end in ends)
    assert all("test_accuracy" in end.metrics for end in ends)
    assert (
        ends[0]
        .tags["mlflow.note.content"]
        .splitlines()[1]
        .startswith("The point of trial 0 of the search, trained again with the fresh seed")
    )
    (whole,) = records(sweep, SweepEnd)
    note = whole.tags["mlflow.note.content"]
    assert note.startswith("**On fresh seeds trial ") and " won.**" in note
    assert r"mean val_accuracy (95% interval)" in note and "[Table of the trainings](#/" in note
    (view,) = records(sweep, ViewRecord)
    assert [json.loads(text)["name"] for text in view.tags.values()] == ["Finalists of s"]
    header, *rows = whole.texts["leaderboard.csv"].splitlines()
    assert len(rows) == 2 and "params_num_layers" in header.split(",")
    text = capsys.readouterr().out
    assert "\x1b" not in text, "what is stored has no colours"
    assert "Winner: trial" in text and "2 configurations x 3 fresh seeds, 3 epochs each" in text
    result = outcome(sweep)
    assert result["winners"] == {result["model"][0]}
    # The winner's means decide, and its median training is kept.
    means = {
        k: sum(result["values"][n]["best_val_accuracy"] for n in range(k, 6, 2)) / 3 for k in (0, 1)
    }
    winner = max(means, key=means.get)
    values = {n: result["values"][n]["best_val_accuracy"] for n in range(winner, 6, 2)}
    assert sorted(values, key=values.get)[1] == result["model"][0]
    # Nothing is left but what was recorded.
    left = {path.name for path in (sweep.paths.sweep / "finalists").iterdir()}
    assert left <= {"finalists.json", "spool", "server.log"}


def test_asking_again_tells_the_same_and_trains_nothing(sweep, capsys):
    compare(sweep)
    first = capsys.readouterr().out
    before = (sweep.paths.sweep / "finalists" / "spool" / "records.jsonl").read_bytes()
    assert compare(sweep, FinalOptions()) == 0
    assert capsys.readouterr().out.strip() in first
    assert (sweep.paths.sweep / "finalists" / "spool" / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "options", [FinalOptions(3), FinalOptions(num_seeds=4), FinalOptions(retrain="all")]
)
def test_another_comparison_is_refused(sweep, options):
    compare(sweep)
    with pytest.raises(InputError, match="cannot be compared again"):
        compare(sweep, options)


def test_the_winner_is_trained_on_all_data_for_the_epochs_that_validation_chose(sweep):
    assert compare(sweep, FinalOptions(2, 2, "all")) == 0
    (record,) = [r for r in records(sweep, TrialRecord) if r.tags["sweeps.kind"] == "retrained"]
    assert record.params["train_on"] == "train+validation"
    assert record.params["last_epoch"] == 3  # Made-up curves rise to the end.
    assert record.params["max_epochs"] == 3
    assert outcome(sweep)["model"][0] == record.number == 4


def test_a_winner_whose_training_on_all_data_failed_is_trained_again(sweep, monkeypatch, capsys):
    def failing(task, report, slot):
        if task.schedule.train_on != "train":
            raise RuntimeError("out of luck")
        return fake_jobs.finalist_job(task, report, slot)

    monkeypatch.setattr(session, "train_job", failing)
    assert compare(sweep, FinalOptions(2, 2, "all")) == 1
    assert "could not be trained on all data" in capsys.readouterr().err
    assert [r.status for r in records(sweep, SweepStateRecord)] == ["SCHEDULED"]
    assert [r.state for r in records(sweep, TrialEnd)] == ["COMPLETE"] * 4 + ["FAILED"]
    monkeypatch.setattr(session, "train_job", fake_jobs.finalist_job)
    assert compare(sweep, FinalOptions()) == 0
    assert {r.number: r.state for r in records(sweep, TrialEnd)}[4] == "COMPLETE"
    (model,) = records(sweep, ModelRecord)
    assert model.number == 4


def test_a_finalist_that_fails_is_said_and_left_out(sweep, monkeypatch, capsys):
    monkeypatch.setattr(session, "train_job", fake_jobs.failing_finalist_job)
    assert compare(sweep) == 0
    captured = capsys.readouterr()
    assert "trial 1: 0 of 3 trainings completed" in captured.err
    assert "Left out: trial 1: 0 of 3 trainings completed." in captured.out
    assert "Winner: trial 0." in captured.out


def test_survivors_of_a_configuration_that_fails_are_not_its_measure(sweep, monkeypatch, capsys):
    """Of the better configuration one seed diverges: it does not win by the others."""

    def unstable(task, report, slot):
        place, seed = task.number % 2, task.number // 2
        if place == 1 and seed == 1:
            raise ValueError("diverged")
        result = fake_jobs.finalist_job(task, report, slot)
        return replace(result, value=0.99 if place else 0.9)

    monkeypatch.setattr(session, "train_job", unstable)
    assert compare(sweep) == 0
    out = capsys.readouterr().out
    assert "Winner: trial 0." in out
    assert "Left out: trial 1: 2 of 3 trainings completed." in out


def test_a_retraining_that_crashes_is_tried_again(sweep, monkeypatch):
    tries = []

    def crashing(task, report, slot):
        if task.schedule.train_on != "train":
            tries.append(task.number)
            if len(tries) < 3:
                raise fake_jobs.Died("the process was killed by signal SIGKILL")
        return fake_jobs.finalist_job(task, report, slot)

    monkeypatch.setattr(session, "train_job", crashing)
    assert compare(sweep, FinalOptions(2, 2, "all")) == 0
    assert tries == [4, 4, 4]
    assert outcome(sweep)["model"][0] == 4


def test_a_retraining_that_was_interrupted_goes_on_beside_a_finalist_that_always_fails(
    sweep, monkeypatch
):
    interrupts, trained = Interrupts(), []

    def job(task, report, slot):
        if task.schedule.train_on != "train" and not trained:
            interrupts.count = 1
            trained.append(task.number)
        if task.number % 2 and task.number < 6:
            raise ValueError("this configuration cannot be trained")
        return fake_jobs.finalist_job(task, report, slot)

    monkeypatch.setattr(session, "train_job", job)
    assert compare(sweep, FinalOptions(2, 3, "all"), interrupts) == 130
    assert compare(sweep, FinalOptions()) == 0
    (model,) = records(sweep, ModelRecord)
    assert model.number == 6


def test_a_retraining_that_is_complete_is_not_trained_again(sweep, monkeypatch):
    trained = []

    def job(task, report, slot):
        trained.append(task.number)
        return fake_jobs.finalist_job(task, report, slot)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session, "train_job", job)
    with monkeypatch.context() as patch:
        patch.setattr("sweeps.finalists.recording.WinnerRecorder.record", full)
        assert compare(sweep, FinalOptions(2, 2, "all")) == 1
    assert trained == [0, 1, 2, 3, 4]
    assert compare(sweep, FinalOptions()) == 0
    assert trained == [0, 1, 2, 3, 4]
    assert outcome(sweep)["model"][0] == 4


def test_leftovers_of_a_kill_at_the_very_end_go(sweep):
    compare(sweep)
    models = sweep.paths.sweep / "finalists" / "models"
    models.mkdir()
    (models / "3.keras").touch()
    assert compare(sweep, FinalOptions()) == 0
    assert not models.exists()


def test_nothing_to_compare_is_an_error(sweep, monkeypatch, capsys):
    monkeypatch.setattr(session, "train_job", fake_jobs.always_raising_job)
    assert compare(sweep) == 1
    assert "nothing to compare" in capsys.readouterr().err


def test_ctrl_c_leaves_a_comparison_that_goes_on(sweep, monkeypatch, capsys):
    interrupts = Interrupts()

    def interrupting(task, report, slot):
        if task.number == 3:
            interrupts.count = 1
        return fake_jobs.finalist_job(task, report, slot)

    monkeypatch.setattr(session, "train_job", interrupting)
    assert compare(sweep, interrupts=interrupts) == 130
    assert "keras-sweeps finalize s" in capsys.readouterr().out
    monkeypatch.setattr(session, "train_job", fake_jobs.finalist_job)
    assert compare(sweep) == 0
    last = {r.number: r for r in records(sweep, TrialEnd)}
    assert sorted(last) == list(range(6))
    epochs = [(r.number, r.epoch) for r in records(sweep, EpochRecord)]
    assert len(epochs) == len(set(epochs)) == 18


@pytest.mark.parametrize("retrain", ["none", "all"])
@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_write_changes_nothing(sweep, tmp_path, monkeypatch, retrain, step, capsys):
    options = FinalOptions(2, 2, retrain)
    whole = replace(sweep, paths=SweepPaths(tmp_path / "whole", "s"))
    assert compare(whole, options) == 0
    expected = outcome(whole)
    put, adopt, answer = Spool.put, Spool.adopt, fake_executor.InlineExecutor.answer
    for kill_at in range(step // 2, 500, step):
        killed = replace(sweep, paths=SweepPaths(tmp_path / f"killed {kill_at}", "s"))
        writes = {"left": kill_at}

        def mortal(original, writes=writes):
            def call(*arguments, **options):
                writes["left"] -= 1
                if writes["left"] < 0:
                    raise Killed
                return original(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(Spool, "put", mortal(put))
            patch.setattr(Spool, "adopt", mortal(adopt))
            patch.setattr(fake_executor.InlineExecutor, "answer", mortal(answer))
            try:
                compare(killed, options)
            except Killed:
                done = False
            else:
                done = True
        assert compare(killed, options) == 0
        assert outcome(killed) == expected, f"killed at write {kill_at}"
        if done:
            assert kill_at > 30
            return
    raise AssertionError("more than 500 writes")


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "finalists.json"
    assert read_finalists(path) is None
    path.write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        read_finalists(path)


def test_a_complete_training_without_its_model_is_trained_again(sweep, tmp_path):
    compare(sweep)
    file = read_finalists(sweep.paths.sweep / "finalists" / "finalists.json")
    spool = Spool(sweep.paths.sweep / "finalists" / "spool", read_only=True)
    plan = file.plan(SPACE)
    past, wanted = past_trials(plan, read_trials(spool), ACCURACY, lambda number: True)
    assert not past and [trial.number for trial in wanted] == list(range(6))
    assert all(len(trial.curve) == 3 for trial in wanted), "they go on after what was recorded"
    past, wanted = past_trials(plan, read_trials(spool), ACCURACY)
    assert {trial.state for trial in past} == {TrialState.COMPLETE} and not wanted
    assert all(trial.value == max(trial.curve.values()) for trial in past)


def test_one_seed_is_refused():
    with pytest.raises(InputError, match="at least 2"):
        SweepSettings("mlp", num_finalist_seeds=1).validate()
