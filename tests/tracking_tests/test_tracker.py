"""Real MLflow: states, params, metrics, inputs, and models that load."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode

from search_spaces import cnn_blocks
from search_spaces.errors import InputError
from tracking.errors import store_errors
from tracking.metric_names import MetricNames
from tracking.models.model_store import ModelStore
from tracking.runs import tracker as tracker_module
from tracking.runs.run_reader import RunReader, read_run
from tracking.runs.tracker import MlflowTracker, sweep_exists
from tracking.spool import sender as sender_module
from tracking.spool.records import (
    DataRecord,
    EpochRecord,
    FilesRecord,
    MachineRecord,
    ModelDropRecord,
    ModelRecord,
    ProgressRecord,
    SweepEnd,
    SweepRecord,
    TagsRecord,
    TrialEnd,
    TrialRecord,
    TrialStateRecord,
)
from tracking.spool.sender import RejectedError, Sender
from tracking.spool.spool import Spool
from tracking.stores import sqlite_path

DATA = DataRecord("tiny", "f" * 64, "made", {}, {"num_images": {"train": 3}})


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def tracker(uri, tmp_path, request):
    client = MlflowClient(uri)
    name = request.node.name[:60]
    client.create_experiment(name, artifact_location=str(tmp_path / "artifacts"))
    tracker = MlflowTracker(uri, name, lambda key: tmp_path / key.replace("/", "_"))
    record = SweepRecord("s1", {"seed": 0}, {"sweeps.space": "cnn"}, DATA, uid=name)
    tracker.apply(record)
    tracker.apply(TrialRecord(0, "trial 0", {"a": 1, "b": "inactive"}, {}))
    return tracker


def test_metrics_that_an_earlier_version_spooled_under_refused_names_arrive(tracker, uri):
    tracker.apply(EpochRecord(0, 1, {"top@3": 0.5, "top#3": 0.25, "val_loss": 0.6}, 1_000))
    found = MlflowClient(uri).get_run(tracker.run_id(0)).data.metrics
    assert sorted(found.values()) == [0.25, 0.5, 0.6] and found["val_loss"] == 0.6


@pytest.mark.parametrize(
    ("state", "status"),
    [("COMPLETE", "FINISHED"), ("PRUNED", "FINISHED"), ("FAILED", "FAILED"), ("KILLED", "KILLED")],
)
def test_states_are_truthful_and_distinct(tracker, uri, state, status):
    tracker.apply(TrialEnd(0, state, tags={"sweeps.reason": "because"}))
    run = MlflowClient(uri).get_run(tracker.run_id(0))
    assert run.info.status == status
    assert run.data.tags["sweeps.state"] == state
    assert run.data.tags["sweeps.reason"] == "because"


def test_a_run_holds_what_it_was_told(tracker, uri):
    tracker.apply(EpochRecord(0, 1, {"loss": 0.5, "val_loss": 0.6}, 1_000))
    tracker.apply(EpochRecord(0, 2, {"loss": 0.4, "val_loss": 0.7}, 2_000))
    tracker.apply(TrialEnd(0, "FAILED", {"best_epoch": 1}, {}, {"traceback.txt": "Oh!"}))
    client = MlflowClient(uri)
    run = client.get_run(tracker.run_id(0))
    assert run.data.params == {"a": "1", "b": "inactive"}
    assert run.data.tags["mlflow.parentRunId"] == tracker.parent_run_id
    assert run.data.tags["sweeps.space"] == "cnn"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value, m.timestamp) for m in history] == [(1, 0.5, 1_000), (2, 0.4, 2_000)]
    assert [a.path for a in client.list_artifacts(run.info.run_id)] == ["traceback.txt"]
    (entry,) = run.inputs.dataset_inputs
    assert entry.dataset.name == "tiny"
    assert json.loads(entry.dataset.source)["sha256"] == "f" * 64


def test_grouped_metrics_are_read_back_by_their_plain_names(tracker, uri, tmp_path, request):
    name, names = request.node.name, MetricNames(True, "val_loss")
    grouped = MlflowTracker(uri, name, lambda key: tmp_path / key)
    grouped.apply(SweepRecord("s", {}, {"sweeps.space": "cnn", **names.tags}, DATA, uid="grouped"))
    grouped.apply(TrialRecord(0, "trial 0", {}, {}))
    grouped.apply(EpochRecord(0, 1, {"epoch": 1.0, "val_loss": 0.6, "own": 2.0}, 1_000))
    grouped.apply(TrialEnd(0, "COMPLETE", {"best_val_loss": 0.6, "best_loss": 1.0}))
    grouped.apply(SweepEnd("FINISHED", {}, {"num_complete": 1.0}))
    run = MlflowClient(uri).get_run(grouped.run_id(0))
    assert run.data.metrics == {"epoch/val_loss": 0.6, "epoch/own": 2.0, "best/val_loss": 0.6}
    plain = {"val_loss": 0.6, "own": 2.0, "best_val_loss": 0.6}
    (stored,) = RunReader(uri, "grouped", "val_loss").trial_runs()[0]
    assert (stored.reports, dict(stored.metrics)) == ({1: 0.6}, plain)
    assert read_run(uri, run.info.run_id).epochs == {1: {"val_loss": 0.6, "own": 2.0}}
    facts = ModelStore(uri).facts(run.info.run_id)
    assert (facts.metrics, facts.parent_metrics) == (plain, {"num_complete": 1.0})
    # A sweep of an earlier version goes on with its plain names.
    tracker.apply(EpochRecord(0, 1, {"epoch": 1.0, "val_loss": 0.6}, 1_000))
    earlier = MlflowClient(uri).get_run(tracker.run_id(0)).data.metrics
    assert earlier == {"epoch": 1.0, "val_loss": 0.6}


def test_names_that_are_not_utf_8_are_recorded_with_escapes(tracker, uri):
    """A data set in a folder of an old disk; no database takes such a text as it is."""
    name = "caf\udce9 ü"
    tracker.apply(TrialRecord(1, name, {"data": name}, {"origin": name}))
    tracker.apply(TrialEnd(1, "COMPLETE", texts={"page.md": name}))
    run = MlflowClient(uri).get_run(tracker.run_id(1))
    written = r"caf\xe9 ü"
    assert (run.info.run_name, run.data.params["data"], run.data.tags["origin"]) == (written,) * 3


def test_a_space_with_more_than_a_hundred_parameters_is_recorded(tracker, uri):
    tracker.apply(TrialRecord(1, "trial 1", {f"p{i}": i for i in range(230)}, {}))
    assert len(MlflowClient(uri).get_run(tracker.run_id(1)).data.params) == 230


def test_a_used_name_is_known(tracker, uri):
    assert sweep_exists(uri, "s1")
    assert not sweep_exists(uri, "s2")


def test_the_parent_ends_with_leaderboard_and_pages(tracker, uri):
    tracker.apply(ProgressRecord({"best_val_accuracy": 0.9}, 1))
    tracker.apply(ProgressRecord({"best_val_accuracy": 0.95}, 2))
    tracker.apply(
        SweepEnd(
            "FINISHED",
            {"sweeps.best_trial": "0"},
            {"num_complete": 1.0},
            {"study.html": "<html></html>"},
            {"rank": [1], "trial": [0]},
        )  # fmt: skip
    )
    client = MlflowClient(uri)
    run = client.get_run(tracker.parent_run_id)
    assert run.info.status == "FINISHED"
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {
        "leaderboard.json", "study.html"
    }  # fmt: skip
    steps = client.get_metric_history(run.info.run_id, "best_val_accuracy")
    assert [(m.step, m.value) for m in steps] == [(1, 0.9), (2, 0.95)]


def test_every_record_can_be_applied_again(tracker, uri, tmp_path):
    folder = tmp_path / "trial-0_files_epoch-1"
    folder.mkdir()
    (folder / "curves.csv").write_text("epoch")
    records = [
        SweepRecord("s1", {"seed": 0}, {"sweeps.space": "cnn"}, DATA, "again"),
        TrialRecord(0, "trial 0", {"a": 1}, {}),
        EpochRecord(0, 1, {"val_loss": 0.5}, 1_000),
        TrialStateRecord(0, "PAUSED"),
        FilesRecord(0, "", "epoch-1"),
        TagsRecord(0, {"sweeps.note": "x"}),
        TrialEnd(0, "COMPLETE", {"best_val_loss": 0.5}, {}, {"a.txt": "b"}),
        ProgressRecord({"best": 0.5}, 1),
        MachineRecord({"system/gpu_0_utilization_percentage": 50.0}, 20),
        SweepEnd("FINISHED", {}, {"wall_seconds": 1.0}, {}, {"rank": [1], "trial": [0]}),
    ]
    fresh = MlflowTracker(uri, "again", lambda key: tmp_path / key.replace("/", "_"))
    ids = [fresh.apply(record).get("id") for record in records]
    # Another process, which knows nothing of what arrived, sends everything once more.
    second = MlflowTracker(uri, "again", lambda key: tmp_path / key.replace("/", "_"))
    assert [second.apply(record, again=True).get("id") for record in records] == ids
    client = MlflowClient(uri)
    runs = client.search_runs([fresh.experiment_id])
    assert len(runs) == 2
    history = client.get_metric_history(ids[1], "val_loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.5)]
    history = client.get_metric_history(ids[0], "system/gpu_0_utilization_percentage")
    assert [(m.step, m.value) for m in history] == [(20, 50.0)]
    table = client.download_artifacts(ids[0], "leaderboard.json")
    assert json.loads(Path(table).read_text()) == {"columns": ["rank", "trial"], "data": [[1, 0]]}
    assert client.get_run(ids[1]).info.status == "FINISHED"


def test_a_double_that_a_slow_server_made_goes_and_the_known_run_stays(tracker, uri):
    client = MlflowClient(uri)
    known = tracker.run_id(0)
    tag = client.get_run(known).data.tags["sweeps.record"]
    for start_time in (1, None):
        client.create_run(tracker.experiment_id, start_time, tags={"sweeps.record": tag})
    tracker.apply(EpochRecord(0, 1, {"val_loss": 0.5}))
    assert tracker.apply(TrialRecord(0, "trial 0", {"a": 1}, {}), again=True) == {"id": known}
    client.create_run(tracker.experiment_id, tags={"sweeps.record": tag})
    tracker.apply(TrialEnd(0, "COMPLETE"))
    left = client.search_runs([tracker.experiment_id], f"tags.`sweeps.record` = '{tag}'")
    assert [run.info.run_id for run in left] == [known]
    assert left[0].info.status == "FINISHED"


def test_acknowledgements_that_a_loss_of_power_took_make_no_doubles(uri, tmp_path):
    spool = Spool(tmp_path / "spool")
    spool.put(SweepRecord("s", {}, {}, DATA, "power"))
    for number in range(3):
        spool.put(TrialRecord(number, f"trial {number}", {"a": 1}, {}))
        spool.put(EpochRecord(number, 1, {"val_loss": 0.5}))
    for _ in range(2):
        spool = Spool(tmp_path / "spool")
        tracker = MlflowTracker(uri, "power", spool.folder_of, spool.answers())
        sender = Sender(spool, lambda tracker=tracker: tracker)
        assert sender.drain(30)
        sender.close()
        (tmp_path / "spool" / "sent.jsonl").write_bytes(b"")
    runs = MlflowClient(uri).search_runs([tracker.experiment_id])
    assert len(runs) == 4


def test_a_store_that_is_removed_meanwhile_takes_nothing_more(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    spool = Spool(tmp_path / "spool")
    spool.put(SweepRecord("s", {}, {}, DATA, "removed"))
    sender = Sender(spool, lambda: MlflowTracker(uri, "removed", spool.folder_of))
    assert sender.drain(30)
    (tmp_path / "mlflow.db").unlink()
    spool.put(TrialRecord(0, "trial 0", {"a": 1}, {}))
    assert not sender.drain(1)
    sender.close()
    assert spool.num_waiting == 1 and "mlflow.db was removed or replaced" in sender.problem


def test_what_a_store_will_never_take_is_told_from_what_may_pass(tracker, monkeypatch):
    def failing(code: str) -> None:
        def fail(*args, **kwargs):
            raise MlflowException("no", error_code=ErrorCode.Value(code))

        monkeypatch.setattr(tracker._client, "log_batch", fail)

    record = EpochRecord(0, 1, {"val_loss": 0.5})
    for code, final in (
        ("INVALID_PARAMETER_VALUE", True),
        ("INTERNAL_ERROR", False),
        ("TEMPORARILY_UNAVAILABLE", False),
        ("PERMISSION_DENIED", False),
        ("BAD_REQUEST", False),
    ):
        failing(code)
        with pytest.raises(RejectedError if final else MlflowException):
            tracker.apply(record)
    with pytest.raises(RejectedError):
        tracker.apply(EpochRecord(99, 1, {"val_loss": 0.5}))


def keep_a_model(tracker, tmp_path) -> tuple[keras.Model, str]:
    model = cnn_blocks.build(
        cnn_blocks.SPACE.complete({"num_blocks": 1}), (8, 8, 1), 3, num_steps=1
    )
    path = tmp_path / "trial-0_model" / "model.keras"
    path.parent.mkdir()
    model.save(path)
    record = ModelRecord(
        0, path.name, (8, 8, 1), 3, {"val_accuracy": 0.9}, 1, {"sweeps.trial": "0"}
    )
    tracker.apply(record)
    assert not path.exists()
    return model, tracker.model_id(0)


def test_a_kept_model_loads_everywhere_and_takes_raw_pixels(tracker, uri, tmp_path):
    model, model_id = keep_a_model(tracker, tmp_path)
    folder = Path(MlflowClient(uri).get_logged_model(model_id).artifact_location)
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {
        "MLmodel", "data/model.keras", "data/keras_module.txt", "requirements.txt", "conda.yaml",
        "python_env.yaml",
    }  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    expected = model.predict(pixels, verbose=0)
    mlflow.set_tracking_uri(uri)
    try:
        for found in (f"models:/{model_id}", f"runs:/{tracker.run_id(0)}/model"):
            loaded = mlflow.pyfunc.load_model(found)
            np.testing.assert_array_equal(loaded.predict(pixels), expected)
        native = mlflow.keras.load_model(f"models:/{model_id}")
        np.testing.assert_array_equal(native.predict(pixels, verbose=0), expected)
        with pytest.raises(mlflow.exceptions.MlflowException, match="shape"):
            loaded.predict(pixels[:, :4])
        version = mlflow.register_model(f"models:/{model_id}", "tiny")
        assert version.version == 1
    finally:
        mlflow.set_tracking_uri(None)
    logged = MlflowClient(uri).get_logged_model(model_id)
    assert {m.key: m.value for m in logged.metrics} == {"val_accuracy": 0.9}


def test_a_model_whose_folder_cannot_be_written_holds_up_nothing(uri, tmp_path, monkeypatch):
    def missing(*args, **kwargs):
        raise importlib.metadata.PackageNotFoundError("tensorflow")

    write_model_folder = tracker_module.write_model_folder
    monkeypatch.setattr(tracker_module, "write_model_folder", missing)
    monkeypatch.setattr(sender_module, "FIRST_PAUSE_SECONDS", 0.01)
    spool = Spool(tmp_path / "spool")
    spool.put(SweepRecord("s", {}, {}, DATA, "aside"))
    spool.put(TrialRecord(0, "trial 0", {"a": 1}, {}))
    file = tmp_path / "model.keras"
    file.write_bytes(b"a model")
    record = ModelRecord(0, file.name, (8, 8, 1), 3, {"val_accuracy": 0.9}, 1)
    spool.adopt(file, record.key)
    for each in (record, TrialEnd(0, "COMPLETE"), SweepEnd("FINISHED")):
        spool.put(each)

    def send() -> tuple[MlflowTracker, Spool]:
        spool = Spool(tmp_path / "spool")
        tracker = MlflowTracker(uri, "aside", spool.folder_of, spool.answers())
        tracker.knows(next(spool.replay()))
        sender = Sender(spool, lambda: tracker)
        assert sender.drain(30)
        sender.close()
        return tracker, spool

    tracker, spool = send()
    (line,) = spool.aside_lines()
    assert line.startswith("trial-0/model: PackageNotFoundError: No package metadata")
    client = MlflowClient(uri)
    assert client.get_run(tracker.run_id(0)).info.status == "FINISHED"
    assert tracker.model_id(0) is None
    monkeypatch.setattr(tracker_module, "write_model_folder", write_model_folder)
    tracker, spool = send()
    assert spool.aside_lines() == []
    (model,) = client.search_logged_models([tracker.experiment_id])
    assert model.status == "READY" and model.model_id == tracker.model_id(0)
    assert client.get_run(tracker.run_id(0)).info.status == "FINISHED"
    # A session later it is known still, and could be dropped.
    later = MlflowTracker(uri, "aside", spool.folder_of, Spool(tmp_path / "spool").answers())
    assert later.model_id(0) == model.model_id


def test_a_dropped_model_leaves_nothing_behind(tracker, uri, tmp_path):
    _, model_id = keep_a_model(tracker, tmp_path)
    folder = Path(MlflowClient(uri).get_logged_model(model_id).artifact_location)
    assert folder.exists()
    tracker.apply(ModelDropRecord(0))
    assert not any(folder.rglob("*")) or not folder.exists()
    assert tracker.model_id(0) is None
    found = MlflowClient(uri).search_logged_models([tracker.experiment_id])
    assert [m.model_id for m in found] == []


@pytest.mark.parametrize(
    ("revision", "words"),
    [
        # Of MLflow 3.4, whose tables are known, and of none.
        ("0584bdc529eb", "MLflow before the installed .* backup .*mlflow db upgrade sqlite:.*db"),
        ("0123456789ab", "a later one made them. Install that version again, or restore"),
    ],
)
def test_tables_of_another_mlflow_are_named_with_what_to_do(
    tracker, uri, tmp_path, revision, words
):
    # A copy, because MLflow looks at a store's tables once in a process, by its address.
    path = tmp_path / "mlflow.db"
    shutil.copyfile(sqlite_path(uri), path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        database.commit()
    for opened in (
        lambda: MlflowTracker(f"sqlite:///{path}", "another"),
        lambda: RunReader(f"sqlite:///{path}", "uid", "val_loss"),
    ):
        with pytest.raises(InputError, match=f"mlflow.db .*{words}"):
            opened()
    with (
        pytest.raises(OSError, match=f"mlflow.db failed .*{words}"),
        store_errors(f"sqlite:///{path}"),
    ):
        MlflowClient(f"sqlite:///{path}").search_experiments()


def test_telemetry_is_off_wherever_we_import_mlflow():
    code = "import tracking.runs.tracker, os; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "true"


IMPORTS_BESIDE_A_THREAD = """
import threading, time, warnings
import tracking

def work():
    while not done.is_set():
        with warnings.catch_warnings():
            time.sleep(0.0005)

done = threading.Event()
threading.Thread(target=work).start()
import tracking.runs.tracker
done.set()
"""


def test_what_is_imported_beside_another_thread_says_nothing():
    command = [sys.executable, "-c", IMPORTS_BESIDE_A_THREAD]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout + done.stderr == ""
