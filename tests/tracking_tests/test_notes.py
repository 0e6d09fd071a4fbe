"""Notes on MLflow's pages: ours to write, somebody's to keep."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient

from tracking.migration.contents import is_remark
from tracking.runs.notes import note_registered, note_sweeps, tags_with_note
from tracking.runs.removal import find_runs, remove_runs
from tracking.runs.tracker import MlflowTracker
from tracking.spool.records import (
    DataRecord,
    SweepEnd,
    SweepRecord,
    SweepTagsRecord,
    TrialEnd,
    TrialRecord,
    ViewRecord,
)
from tracking.tags import Tag
from tracking.views.links import VIEW_PREFIX, artifact_here, charts_here, trials_view

DATA = DataRecord("tiny", "f" * 64, "made", {}, {"num_images": {"train": 3}})
VIEWS = [f"{VIEW_PREFIX}sweep-{'a' * 12}", f"{VIEW_PREFIX}sweeps"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    MlflowClient(uri).create_experiment("notes", artifact_location=str(folder / "files"))
    return uri


def begin(uri: str, name: str, uid: str, tmp_path) -> MlflowTracker:
    tracker = MlflowTracker(uri, "notes", lambda key: tmp_path / key)
    tracker.apply(SweepRecord(name, {"objective": "val_loss"}, {}, DATA, uid=uid))
    return tracker


def note_of(uri: str, run_id: str) -> str:
    return MlflowClient(uri).get_run(run_id).data.tags.get(Tag.RUN_NOTE, "")


def test_a_note_has_real_links_and_registered_models_stay_in_it(store, tmp_path):
    tracker = begin(store, "linked", "1" * 32, tmp_path)
    tracker.apply(TrialRecord(0, "trial 0", {}, {}))
    tracker.apply(TrialEnd(0, "COMPLETE", tags={Tag.RUN_NOTE: "**Complete**"}))
    text = f"[c]({charts_here('sweep-1')}) ![b]({artifact_here('best_so_far.svg')})"
    tracker.apply(SweepEnd("FINISHED", {Tag.RUN_NOTE: text}))
    run_id, trial_id = tracker.parent_run_id, tracker.run_id(0)
    note = note_of(store, run_id)
    assert f"(#/experiments/{tracker.experiment_id}/runs?workflowType=machine_learning" in note
    assert f"(get-artifact?path=best_so_far.svg&run_uuid={run_id})" in note
    for _ in range(2):  # A promotion that is repeated says it once.
        note_registered(tracker._client, trial_id, "cnn_a-digits", 3)
    line = r"Registered model: [cnn_a-digits version 3](#/models/cnn_a-digits/versions/3)"
    assert note_of(store, trial_id) == f"**Complete**\n\n{line}"
    assert note_of(store, run_id).count(line) == 1
    tracker.apply(SweepTagsRecord({Tag.RUN_NOTE: "new"}, texts={"report.html": "<p>new"}))
    assert note_of(store, run_id) == f"new\n\n{line}"
    files = {file.path for file in tracker._client.list_artifacts(run_id)}
    assert files == {"report.html"}


def test_what_somebody_wrote_is_never_replaced(store, tmp_path):
    tracker = begin(store, "kept", "2" * 32, tmp_path)
    run_id, client = tracker.parent_run_id, MlflowClient(store)
    tracker.apply(SweepEnd("FINISHED", {Tag.RUN_NOTE: "ours"}))
    client.set_tag(run_id, Tag.RUN_NOTE, "theirs")
    tracker.apply(SweepEnd("FINISHED", {Tag.RUN_NOTE: "ours again", Tag.STOPPED_BY: "x"}))
    note_registered(client, run_id, "m", 1)
    tags = client.get_run(run_id).data.tags
    assert (tags[Tag.RUN_NOTE], tags[Tag.STOPPED_BY]) == ("theirs", "x")
    # A note of before there were checksums may be theirs, too.
    assert tags_with_note({Tag.RUN_NOTE: "new"}, {Tag.RUN_NOTE: "old"}, "1") == {}


def test_a_copy_of_the_store_knows_its_own_notes():
    written = tags_with_note({Tag.RUN_NOTE: charts_here("v")}, {}, "3", "a" * 32)
    copied = {key: text.replace("experiments/3", "experiments/8") for key, text in written.items()}
    assert copied != written and tags_with_note({Tag.RUN_NOTE: "n"}, copied, "8")
    assert is_remark(Tag.RUN_NOTE) and is_remark(Tag.NOTE_CHECKSUM)


def test_the_experiments_note_names_its_latest_sweeps_until_they_are_deleted(store, tmp_path):
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("notes").experiment_id
    for run in client.search_runs([experiment]):
        client.delete_run(run.info.run_id)
    first = begin(store, "first_one", "a" * 32, tmp_path)
    first.apply(ViewRecord(dict.fromkeys(VIEWS, "{}")))
    first.apply(SweepEnd("FINISHED", {}, {"best_val_loss": 0.25}))
    second = begin(store, "second", "b" * 32, tmp_path)
    page = f"(#/experiments/{experiment}/runs/{first.parent_run_id}?workflowType=machine_learning)"
    note = client.get_experiment(experiment).tags[Tag.RUN_NOTE]
    assert note.splitlines()[0].startswith("Latest sweep: [second](#/experiments/")
    assert rf"- [first_one]{page}, val_loss 0.2500 ([charts](" in note
    assert f"viewStateShareKey={trials_view('a' * 32)}" in note and "[Compare the sweeps](" in note
    remove_runs(store, find_runs(store, "second", {second.uid}))
    tags = client.get_experiment(experiment).tags
    assert tags[Tag.RUN_NOTE].startswith(rf"Latest sweep: [first_one]{page}")
    assert set(VIEWS) <= set(tags)
    remove_runs(store, find_runs(store, "first_one", {first.uid}))
    assert (
        not {*VIEWS, Tag.RUN_NOTE, Tag.NOTE_CHECKSUM}
        & client.get_experiment(experiment).tags.keys()
    )
    assert not note_sweeps(client, experiment)


def test_a_sweep_of_a_deleted_experiment_can_be_deleted(store, tmp_path):
    client = MlflowClient(store)
    gone = client.create_experiment("gone", artifact_location=str(tmp_path / "files"))
    tracker = MlflowTracker(store, "gone", lambda key: tmp_path / key)
    tracker.apply(SweepRecord("lost", {}, {}, DATA, uid="c" * 32))
    tracker.apply(ViewRecord({f"{VIEW_PREFIX}sweep-{'c' * 12}": "{}"}))
    client.delete_experiment(gone)
    found = find_runs(store, "lost", {"c" * 32})
    assert len(found.run_ids) == 1 and found.views == ()
    remove_runs(store, found)
    assert find_runs(store, "lost", {"c" * 32}).run_ids == ()
