"""What a sweep's records tell without MLflow: trials, ranking, times; also half-written ones."""

from __future__ import annotations

import json

import pytest
from made_sweeps import BEGAN_MS, made_trial, write_sweep

from search_spaces.errors import InputError
from sweeps.engines.base import TrialState
from sweeps.history.export import report_rows, trial_rows
from sweeps.history.listing import list_sweeps, summarized
from sweeps.history.recorded_sweep import read_sweep, typed
from sweeps.history.references import DEFAULTS, recorded_references
from sweeps.reporting.recorded import board_of
from sweeps.state.lock import driving
from tracking.spool.records import SweepStateRecord, SweepTagsRecord, TrialEnd, TrialRecord
from tracking.spool.spool import Spool

FIRST = {"num_layers": "1", "optimizer": "adam", "nesterov": "inactive"}
SECOND = {"num_layers": "2", "optimizer": "adam", "nesterov": "inactive"}


@pytest.fixture
def paths(tmp_path):
    return write_sweep(
        tmp_path / ".sweeps", "made",
        [
            *made_trial(0, [0.5, 0.7, 0.6], FIRST, tags={"sweeps.baseline": "default"}),
            *made_trial(1, [0.6, 0.8, 0.9], SECOND, begun=30),
            *made_trial(2, [0.4], FIRST, state="PRUNED", begun=60),
        ],
        page="x" * 100_000,
    )  # fmt: skip


def test_a_sweep_is_read_with_its_trials_and_times(paths):
    sweep = read_sweep(paths)
    assert sweep.state == "finished" and sweep.stopped_by == "all trials ended"
    assert sweep.begun_ms == BEGAN_MS and sweep.seconds == 70
    assert [trial.number for trial in sweep.ranking()] == [1, 0]
    assert [trial.number for trial in sweep.ordered()] == [1, 0, 2]
    best = sweep.best
    assert best is not None and best.value(sweep.objective) == 0.9
    assert best.params == {"num_layers": 2, "optimizer": "adam"}, "typed, without inactive ones"
    assert [report.epochs for report in best.reports] == [1, 2, 3]
    assert best.seconds(0) == 30
    assert sweep.trials[2].value(sweep.objective) is None
    assert sweep.trials[2].last_value(sweep.objective) == 0.4
    assert sweep.varying == ["num_layers"]
    assert recorded_references(sweep)[DEFAULTS]["num_layers"] == 2


def test_runs_that_were_sent_are_known(paths):
    lines = [
        {"key": "sweep", "id": "aa"},
        {"key": "trial-1", "id": "bb"},
        {"key": "trial-1/epoch-1"},
    ]
    (paths.spool / "sent.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sweep = read_sweep(paths)
    assert (sweep.run_id, sweep.trials[1].run_id, sweep.trials[0].run_id) == ("aa", "bb", "")


def test_a_line_that_is_being_written_is_left_out_and_a_damaged_one_is_said(paths):
    file = paths.spool / "records.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"kind": "TrialRec')
    assert len(read_sweep(paths).trials) == 3
    file.write_bytes(b"no record\n" + whole)
    with pytest.raises(InputError, match="line 1, is damaged"):
        read_sweep(paths)


def test_what_ran_when_nothing_drives_the_sweep_waits_to_be_resumed(tmp_path):
    trials = made_trial(0, [0.5, 0.6], FIRST, state="RUNNING")
    paths = write_sweep(tmp_path / ".sweeps", "cut", trials, status="running")
    sweep = read_sweep(paths)
    assert sweep.state == "interrupted"
    assert sweep.trials[0].state is TrialState.PAUSED and "resumed" in sweep.trials[0].reason
    assert sweep.trials[0].seconds(10**15) == 20, "it ended with its last report"
    with driving(paths):
        running = read_sweep(paths)
        assert running.state == "running"
        assert running.trials[0].state is TrialState.RUNNING
        assert running.trials[0].seconds(BEGAN_MS + 25_000) == 25
        assert running.seconds == 20 and running.seconds_so_far(BEGAN_MS + 25_000) == 25
    assert sweep.seconds_so_far(BEGAN_MS + 25_000) == 20, "no process is running it"


def test_the_time_between_sessions_and_a_later_note_are_not_the_sweeps(tmp_path):
    paths = write_sweep(
        tmp_path / ".sweeps", "two", made_trial(0, [0.5], FIRST, state="PAUSED"), status="running"
    )
    spool = Spool(paths.spool)
    spool.put(SweepStateRecord("RUNNING", {}, BEGAN_MS + 5_000_000))
    spool.put(TrialEnd(0, "COMPLETE", {"best_val_accuracy": 0.5}, at_ms=BEGAN_MS + 5_010_000))
    spool.put(SweepTagsRecord({"sweeps.note": "first"}, BEGAN_MS + 90_000_000))
    spool.put(SweepTagsRecord({"sweeps.note": "second"}, BEGAN_MS + 91_000_000))
    spool.close()
    sweep = read_sweep(paths)
    assert sweep.seconds == 20 == Spool(paths.spool, read_only=True).active_seconds()
    assert sweep.note == "second"


def test_a_repeated_point_is_in_no_ranking(tmp_path):
    twice = TrialRecord(1, "trial 1", {**FIRST, "max_epochs": 3}, {}, BEGAN_MS)
    end = TrialEnd(1, "COMPLETE", {}, {"sweeps.duplicate_of": "0"}, at_ms=BEGAN_MS + 1)
    records = [*made_trial(0, [0.5, 0.6, 0.7], FIRST), twice, end]
    sweep = read_sweep(write_sweep(tmp_path / ".sweeps", "twice", records))
    assert [trial.number for trial in sweep.ranking()] == [0] and len(sweep.trained) == 1
    assert summarized(sweep).num_trials == 1


def test_rows_have_the_same_columns_and_values_as_they_were(paths):
    rows = trial_rows(read_sweep(paths))
    assert [row["trial"] for row in rows] == [0, 1, 2]
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert [row["val_accuracy"] for row in rows] == [0.7, 0.9, None]
    assert [row["params_num_layers"] for row in rows] == [1, 2, 1]
    reports = report_rows(read_sweep(paths))
    assert [(row["trial"], row["epochs"]) for row in reports] == [
        (0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 1),
    ]  # fmt: skip


def test_sweeps_are_listed_newest_first_and_damaged_ones_last(tmp_path, paths):
    other = write_sweep(tmp_path / ".sweeps", "damaged", [])
    other.state.write_text("{")
    newer = write_sweep(tmp_path / ".sweeps", "newer", [])
    text = (newer.spool / "records.jsonl").read_text()
    (newer.spool / "records.jsonl").write_text(text.replace(str(BEGAN_MS), str(BEGAN_MS + 1)))
    listed = list_sweeps(tmp_path / ".sweeps")
    assert [one.name for one in listed] == ["newer", "made", "damaged"]
    assert listed[2].sweep is None and "damaged" in listed[2].problem
    summary = summarized(read_sweep(paths))
    assert (summary.best_trial, summary.best_value, summary.num_complete) == (1, 0.9, 2)
    assert summary.trials_text == "3: 2 complete"


def test_the_board_of_a_recorded_sweep_is_that_of_its_driver(paths):
    board = board_of(read_sweep(paths))
    assert [row.number for row in board.ranking()] == [1, 0]
    assert board.rows[1].curve == {1: 0.6, 2: 0.8, 3: 0.9}
    assert board.rows[1].num_parameters == 100
    assert board.elapsed_seconds() == pytest.approx(70)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.001", 0.001), ("1e-05", 1e-05), ("True", True), ("adam", "adam"), (7, 7)],
)
def test_recorded_values_are_what_they_were(text, value):
    assert typed(text) == value and type(typed(text)) is type(value)
