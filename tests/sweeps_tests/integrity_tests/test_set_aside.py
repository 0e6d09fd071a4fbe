"""A record that MLflow cannot take is named and counted by `sync`, by the doctor and at the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_sweeps import made_trial, write_sweep

from sweeps.cli.main import main
from sweeps.driver.session import Recording, Session
from sweeps.state.sweep_file import BASELINES, read_sweep_file, write_sweep_file
from tracking.spool.records import ModelRecord
from tracking.spool.spool import Spool

URI = "sqlite:///mlflow.db"


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of two trials; the file of one's model is gone, so it can never be sent."""
    monkeypatch.chdir(tmp_path)
    lost = ModelRecord(0, "model.keras", (8, 8, 1), 3, {}, 1)
    records = [*made_trial(0, [0.5], {"units": 8}), lost, *made_trial(1, [0.6], {"units": 9})]
    return write_sweep(Path(".sweeps"), "s", records, tracking_uri=URI)


def test_sync_and_the_end_of_a_session_name_and_count_what_is_set_aside(sweep, capsys):
    num = Spool(sweep.spool).num_waiting
    for sent in (num - 1, 0):  # The second time it is tried again, and stays aside.
        assert main(["sync", "s"]) == 1
        out, error = capsys.readouterr()
        assert f"sent {sent}, 0 left, 1 set aside\n" in out
        assert "not recorded in MLflow: trial-0/model: " in error
        assert "No such file" in error or "FileNotFoundError" in error
    session = SimpleNamespace(
        recording=Recording(Spool(sweep.spool), "s", URI, None), _sender=None, _scrubbed=str,
        plan=SimpleNamespace(paths=sweep),
    )  # fmt: skip
    named, counted = Session.send_rest(session)  # type: ignore[arg-type]
    assert named.startswith("not recorded in MLflow: trial-0/model: ")
    assert counted.startswith("1 record set aside, and kept") and "keras-sweeps sync s" in counted


def test_the_doctor_names_what_is_set_aside(sweep, capsys):
    # Of published models the spool is the study, too.
    file = read_sweep_file(sweep.state)
    write_sweep_file(sweep.state, replace(file, kind=BASELINES))
    assert main(["sync", "s"]) == 1
    capsys.readouterr()
    assert main(["doctor", "s"]) == 1
    out, error = capsys.readouterr()
    assert (out + error).count("not recorded in MLflow: trial-0/model: ") == 1
    assert "not sent to MLflow yet" not in out + error
