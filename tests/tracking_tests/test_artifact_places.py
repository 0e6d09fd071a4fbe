"""Where files go, and what is said once the folder that they went to is elsewhere."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from tracking.artifact_places import gone, new_location
from tracking.models.model_store import ModelStore
from tracking.runs.run_reader import RunReader
from tracking.runs.tracker import MlflowTracker
from tracking.spool.records import DataRecord, ModelRecord, SweepEnd, SweepRecord, TrialRecord
from tracking.tags import Tag

URI = "sqlite:///mlflow.db"
DATA = DataRecord("d", "0" * 64, "made", {}, {})


def recorded(folder: Path, name: str) -> str:
    """A sweep of one trial with a model, in the stores of the folder; returns the trial's run."""
    model = folder / "spool" / "trial-0_model" / "model.keras"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"weights")
    tracker = MlflowTracker(URI, "e", lambda key: folder / "spool" / key.replace("/", "_"))
    tracker.apply(SweepRecord(name, {}, {}, DATA, uid=name))
    tracker.apply(TrialRecord(0, "trial 0", {"a": 1}, {}))
    digest = hashlib.sha256(b"weights").hexdigest()
    tags = {Tag.MODEL_SHA256: digest, Tag.TRIAL: "0"}
    tracker.apply(ModelRecord(0, model.name, (8, 8, 1), 3, {}, 1, tags))
    tracker.apply(SweepEnd("FINISHED", texts={"report.html": "done"}))
    return str(tracker.run_id(0))


def fetched(run_id: str, folder: Path) -> bytes:
    folder.mkdir(exist_ok=True)
    store = ModelStore(URI)
    return store.fetch(store.of_run(run_id), folder).read_bytes()


@pytest.mark.parametrize("name", ["plain", "100%20 #1 really? ü"])
def test_files_are_in_the_folder_and_a_move_of_it_is_told_with_the_way_out(
    tmp_path, monkeypatch, name
):
    before, after = tmp_path / "before" / name, tmp_path / "after"
    before.mkdir(parents=True)
    monkeypatch.chdir(before)
    run_id = recorded(before, "s")
    assert fetched(run_id, tmp_path / "fetched") == b"weights"
    assert [path.name for path in before.parent.iterdir()] == [name]
    (report,) = before.glob("mlruns/*/*/artifacts/report.html")
    assert report.read_text() == "done"
    assert RunReader(URI, "s", "m").files_problem() == ""

    before.rename(after)
    monkeypatch.chdir(after)
    told = f"{before} was moved to {after}"
    for refused in (lambda: fetched(run_id, tmp_path / "fetched"), lambda: recorded(after, "t")):
        with pytest.raises(InputError, match=re.escape(told)):
            refused()
    problem = RunReader(URI, "s", "m").files_problem()
    assert problem.startswith(told)
    assert not before.exists(), "and nothing is written where the folder was"
    assert os.system(problem.partition("make a link: ")[2]) == 0
    assert fetched(run_id, tmp_path / "fetched") == b"weights"


def test_only_a_path_that_is_read_otherwise_as_an_address_needs_a_location(tmp_path):
    assert new_location(tmp_path / "a b ü") is None
    assert new_location(tmp_path / "a#b").startswith(f"file://{tmp_path}/a%23b/mlruns/")


def test_files_elsewhere_and_files_that_are_there_are_not_gone(tmp_path):
    assert gone(URI, "s3://bucket/x") == gone(URI, "mlflow-artifacts:/1") == ""
    assert gone(URI, str(tmp_path)) == gone(URI, tmp_path.as_uri()) == ""
    assert "does not exist. If the folder was moved" in gone(URI, str(tmp_path / "x" / "y"))
