"""The sweep's page once its finalists are compared."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from made_sweeps import made_trial, write_sweep

from sweeps.finalists.page import show_finalists
from sweeps.history.recorded_sweep import read_sweep
from sweeps.html_report import page
from sweeps.interrupts import Interrupts
from sweeps.state.lock import driving
from sweeps.state.sweep_file import StoredSweep, read_sweep_file
from tracking.spool.records import SweepTagsRecord
from tracking.spool.spool import Spool

FINALIST = {
    "name": "trial 0", "trial": 0, "mean": 0.9, "low": 0.88, "high": 0.92, "num_seeds": 3,
    "probability_best": 1.0, "test_accuracy": 0.91, "params": {},
}  # fmt: skip


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_plotly", lambda: "/* plotly */")
    records = made_trial(0, [0.5, 0.6, 0.9], {"optimizer": "adam"})
    paths = write_sweep(tmp_path, "s", records, offline=True)
    (paths.sweep / "finalists").mkdir()
    (paths.sweep / "finalists" / "finalists.json").write_text(json.dumps({"ranking": [FINALIST]}))
    return StoredSweep(paths, read_sweep_file(paths.state))


def test_page_and_note_are_made_anew_and_wait_for_mlflow(sweep):
    before = read_sweep(sweep.paths)
    with driving(sweep.paths):
        assert show_finalists(sweep, "tiny", Interrupts()) == []
    assert "won on fresh seeds" in sweep.paths.report.read_text()
    spool = Spool(sweep.paths.spool, read_only=True)
    (record,) = [r for r in spool.replay() if isinstance(r, SweepTagsRecord)]
    assert set(record.texts) == {"report.html", "best_so_far.svg"}
    assert record.texts["report.html"] == sweep.paths.report.read_text()
    assert "finished" in record.texts["report.html"], "it is over, although its lock is held"
    assert "won on fresh seeds" in record.tags["mlflow.note.content"]
    after = read_sweep(sweep.paths)
    assert (after.seconds, after.stopped_by) == (before.seconds, before.stopped_by)


def test_a_page_that_cannot_be_written_fails_no_comparison(sweep, monkeypatch):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("sweeps.finalists.page.write_report", full)
    assert show_finalists(sweep, "tiny", Interrupts()) == []


def test_a_store_that_is_away_is_said_with_the_way_out(sweep, monkeypatch):
    settings = replace(sweep.file.settings, offline=False, tracking_uri="http://127.0.0.1:9")
    sent = replace(sweep, file=replace(sweep.file, settings=settings))
    monkeypatch.setattr("sweeps.finalists.page.DRAIN_SECONDS", 0.1)

    def away(*_, **__):
        raise OSError("refused")

    monkeypatch.setattr("sweeps.finalists.page.Destination", lambda *_: away)
    (problem,) = show_finalists(sent, "tiny", Interrupts())
    assert "is not in MLflow yet" in problem and "`keras-sweeps sync s" in problem
