"""A local store in a server: everything arrives, a second run adds nothing, differences are seen."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    Metric,
    Param,
    ViewType,
)
from stack import mlflow_server

from sweeps.cli.commands.migrate import _migrate
from sweeps.cli.main import main
from tracking.tags import Tag

pytestmark = pytest.mark.stack


def fill(uri: str, folder: Path) -> dict[str, str]:
    """A store with one of everything that sweeps make, and what is awkward; ids by name."""
    client = MlflowClient(uri)
    place = (folder / "mlruns").as_uri()
    experiment = client.create_experiment("cnn-mnist", f"{place}/1", {"team": "vision"})
    parent = client.create_run(experiment, 1_000, {"sweeps.kind": "sweep"}, "nightly").info.run_id
    trial = client.create_run(
        experiment, 2_000, {"mlflow.parentRunId": parent, "sweeps.uid": "u"}, "trial 0"
    ).info.run_id
    metrics = [Metric("loss", 1 / (1 + step), 3_000 + step, step) for step in range(1_100)]
    for start in range(0, len(metrics), 500):
        client.log_batch(trial, metrics[start : start + 500])
    client.log_batch(trial, [Metric("odd", math.nan, 5, 1), Metric("odd", math.inf, 6, 2)])
    # One step reported twice, with two values.
    client.log_batch(trial, [Metric("twice", 1.0, 7, 0), Metric("twice", 2.0, 8, 0)])
    client.log_batch(trial, params=[Param(f"p{i}", "x" * 5_000) for i in range(60)])
    data = Dataset("mnist", "abc", "local", '{"sha256": "abc"}', '{"a": 1}', '{"n": 3}')
    client.log_inputs(trial, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
    client.log_text(trial, "grün\n", "notes/deep/a.txt")
    client.log_text(trial, "another", "notes/a.txt")
    client.log_text(trial, "", "empty.txt")
    model = client.create_logged_model(
        experiment, "model", trial, {"sweeps.model_sha256": "f" * 64}, {"k": "v"}, "keras"
    )
    (folder / "model" / "data").mkdir(parents=True)
    (folder / "model" / "data" / "model.keras").write_bytes(bytes(range(256)))
    text = f"model_id: {model.model_id}\nrun_id: {trial}\n"
    (folder / "model" / "MLmodel").write_text(text)
    client.log_model_artifacts(model.model_id, str(folder / "model"))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(trial, [LoggedModelOutput(model.model_id, 3)])
    metric = Metric("accuracy", 0.99, 9, 0, model_id=model.model_id, run_id=trial)
    client.log_batch(trial, [metric])
    client.set_terminated(trial, "FINISHED", 9_000)
    client.set_terminated(parent, "KILLED", 9_500)
    gone = client.create_run(experiment, 100).info.run_id
    client.log_param(gone, "left", "here")
    client.delete_run(gone)
    dropped = client.create_experiment("dropped", f"{place}/2")
    client.set_terminated(client.create_run(dropped).info.run_id)
    client.delete_experiment(dropped)
    client.create_registered_model("it's mine", {"sweeps.champion.00001": "{}"}, "a model")
    for _ in range(3):
        client.create_model_version(
            "it's mine", f"models:/{model.model_id}", trial,
            {"sweeps.model_id": model.model_id, "sweeps.standing": "champion"},
            description=f"from {trial}", model_id=model.model_id,
        )  # fmt: skip
    client.delete_model_version("it's mine", "2")
    client.set_registered_model_alias("it's mine", "champion", "3")
    client.set_registered_model_alias("it's mine", "first", "1")
    return {"parent": parent, "trial": trial, "model": model.model_id, "gone": gone}


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A store, its ids, and a server that it is copied into."""
    yield from store_and_server(tmp_path_factory)


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    """The same, for what is deleted there."""
    yield from store_and_server(tmp_path_factory)


def store_and_server(tmp_path_factory):
    folder, served = tmp_path_factory.mktemp("old"), tmp_path_factory.mktemp("served")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)  # A version's model is looked up there.
        ids = fill(uri, folder)
    with mlflow_server(served) as (_, address):
        yield uri, ids, address


def migrate(moved, capsys) -> tuple[int, str, str]:
    status = main(["migrate", "--from", moved[0], "--to", moved[2]])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def copy_of(client: MlflowClient, origin: str):
    experiments = [one.experiment_id for one in client.search_experiments(view_type=ViewType.ALL)]
    (found,) = client.search_runs(experiments, f"tags.`{Tag.ORIGIN}` = '{origin}'", ViewType.ALL)
    return found


def test_everything_arrives(moved, capsys):
    _, ids, address = moved
    status, out, err = migrate(moved, capsys)
    assert status == 0, out + err
    assert "the same  by count and content" in out
    counts = dict(re.findall(r"^  ([a-z ]+?) +([\d,]+) there", out, re.MULTILINE))
    assert counts == {
        "experiments": "3", "runs": "4", "metric points": "1,105", "artifacts": "5",
        "logged models": "1", "registered models": "1", "versions": "2", "aliases": "2",
    }  # fmt: skip
    # Looked at once more with nothing but MLflow's client.
    client = MlflowClient(address)
    trial, parent = copy_of(client, ids["trial"]), copy_of(client, ids["parent"])
    assert trial.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (trial.info.start_time, trial.info.end_time) == (2_000, 9_000)
    assert trial.info.status == "FINISHED" and parent.info.status == "KILLED"
    assert trial.info.run_name == "trial 0" and trial.data.params["p59"] == "x" * 5_000
    history = client.get_metric_history(trial.info.run_id, "loss")
    assert {(m.step, m.timestamp, m.value) for m in history} == {
        (step, 3_000 + step, 1 / (1 + step)) for step in range(1_100)
    }
    odd = {m.step: m.value for m in client.get_metric_history(trial.info.run_id, "odd")}
    assert math.isnan(odd[1]) and odd[2] > 1e308
    assert trial.inputs.dataset_inputs[0].dataset.digest == "abc"
    assert client.download_artifacts(trial.info.run_id, "notes/deep/a.txt")
    assert copy_of(client, ids["gone"]).info.lifecycle_stage == "deleted"
    assert client.get_experiment_by_name("dropped").lifecycle_stage == "deleted"
    version = client.get_model_version_by_alias("it's mine", "champion")
    assert version.version in (3, "3") and version.run_id == trial.info.run_id
    (output,) = trial.outputs.model_outputs
    assert version.tags["sweeps.model_id"] == output.model_id != ids["model"]
    model = client.get_logged_model(output.model_id)
    assert model.tags["sweeps.model_sha256"] == "f" * 64 and model.params == {"k": "v"}
    assert [(m.key, m.value) for m in model.metrics] == [("accuracy", 0.99)]
    assert str(model.status) == "READY" and model.source_run_id == trial.info.run_id


def test_again_adds_nothing_and_what_is_new_follows(moved, capsys):
    uri, ids, address = moved
    before = len(MlflowClient(address).search_experiments())
    status, out, _ = migrate(moved, capsys)
    assert status == 0
    assert re.search(r"^added     0 experiments, 0 runs, 0 metric points, 0 artifacts, 0 logged models, 0 registered models, 0 versions, 0 aliases$", out, re.MULTILINE)  # fmt: skip
    assert len(MlflowClient(address).search_experiments()) == before
    MlflowClient(uri).log_batch(ids["trial"], [Metric("late", 1.0, 10, 0)])
    status, out, _ = migrate(moved, capsys)
    assert status == 0 and "0 runs, 1 metric points, 0 artifacts" in out


def test_a_difference_is_told(moved, capsys):
    _, ids, address = moved
    client = MlflowClient(address)
    copy = copy_of(client, ids["trial"]).info.run_id
    client.log_batch(copy, [Metric("loss", 77.0, 1, 1)])
    status, out, _ = migrate(moved, capsys)
    assert status == 1 and f"DIFFERS   run {ids['trial']}: points" in out
    assert "1 differences" in out


def test_a_models_name_that_means_another_there_is_refused(moved, capsys):
    uri, _, address = moved
    MlflowClient(uri).create_registered_model("taken")
    client = MlflowClient(address)
    client.create_registered_model("taken")
    client.create_model_version("taken", "s3://bucket/model")
    status, _, err = migrate(moved, capsys)
    assert status == 2 and "Received: 'taken'" in err and err.count("\n") == 1
    client.delete_registered_model("taken")
    MlflowClient(uri).delete_registered_model("taken")


def test_what_was_decided_on_the_server_stays(moved, capsys, monkeypatch):
    """A rollback, a new version, a name, a remark, a deleted run; and a copy made twice."""
    uri, ids, address = moved
    client, name = MlflowClient(address), "it's mine"
    trial, parent = copy_of(client, ids["trial"]), copy_of(client, ids["parent"])
    client.set_registered_model_alias(name, "champion", "1")
    client.set_model_version_tag(name, "1", "sweeps.standing", "champion again")
    (output,) = trial.outputs.model_outputs
    own = client.create_model_version(
        name, f"models:/{output.model_id}", trial.info.run_id, model_id=output.model_id
    )
    listed = client.get_logged_model(output.model_id).tags["mlflow.modelVersions"]
    client.update_run(parent.info.run_id, name="the best night")
    client.set_tag(trial.info.run_id, "mlflow.note.content", "look here")
    MlflowClient(uri).set_tag(ids["trial"], "mlflow.note.content", "older")
    twin = client.create_run(trial.info.experiment_id, tags={Tag.ORIGIN: ids["parent"]}).info.run_id
    status, _, err = migrate(moved, capsys)
    assert status != 0 and "copies of one; delete one of them" in err
    client.delete_run(twin)
    status, out, err = migrate(moved, capsys)
    assert "copies of one" not in err and "kept      as it is on the server" in out
    assert client.get_model_version_by_alias(name, "champion").version in (1, "1")
    assert client.get_model_version(name, "1").tags["sweeps.standing"] == "champion again"
    assert str(own.version) in {str(one.version) for one in client.search_model_versions()}
    after = client.get_logged_model(output.model_id).tags["mlflow.modelVersions"]
    assert sorted(map(str, json.loads(after))) == sorted(map(str, json.loads(listed)))
    assert client.get_run(parent.info.run_id).info.run_name == "the best night"
    tags = client.get_run(trial.info.run_id).data.tags
    assert tags["mlflow.note.content"] == "look here"
    for line in (f"registered model '{name}': aliases", f"run {ids['parent']}: name"):
        assert f"kept      as it is on the server: {line}" in out
        assert f"DIFFERS   {line}" not in out
    client.delete_run(parent.info.run_id)
    status, out, _ = migrate(moved, capsys)
    assert f"server: run {ids['parent']}: stage" in out
    assert client.get_run(parent.info.run_id).info.lifecycle_stage == "deleted"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # A version's model is looked up there.
    MlflowClient(uri).create_model_version(
        name, f"models:/{ids['model']}", ids["trial"], model_id=ids["model"]
    )
    status, _, err = migrate(moved, capsys)
    assert status == 2 and "must keep its number" in err and err.count("\n") == 1


def test_what_was_deleted_on_the_server_stays_deleted(decided, capsys):
    """An alias, a version, a logged model, an experiment, a whole registered model."""
    _, ids, address = decided
    client, name = MlflowClient(address), "it's mine"
    assert migrate(decided, capsys)[0] == 0
    trial = copy_of(client, ids["trial"])
    client.delete_registered_model_alias(name, "first")
    client.delete_model_version(name, "3")
    client.set_experiment_tag(trial.info.experiment_id, "team", "sound")
    status, out, err = migrate(decided, capsys)
    assert status == 0, out + err
    assert f"kept      as it is on the server: registered model '{name}': deleted: 3, first" in out
    assert "server: experiment 'cnn-mnist': tags" in out
    assert [str(one.version) for one in client.search_model_versions(f'name="{name}"')] == ["1"]
    assert client.get_registered_model(name).aliases == {}
    assert client.get_experiment(trial.info.experiment_id).tags["team"] == "sound"
    # The number of the next version of its own is the one that nobody has used up meanwhile.
    (output,) = trial.outputs.model_outputs
    own = client.create_model_version(
        name, f"models:/{output.model_id}", trial.info.run_id, model_id=output.model_id
    )
    assert str(own.version) == "4"
    assert migrate(decided, capsys)[0] == 0
    client.delete_registered_model(name)
    client.delete_logged_model(output.model_id)
    status, out, err = migrate(decided, capsys)
    assert status == 0, out + err
    assert f"server: logged model {ids['model']}: deleted" in out
    assert client.search_registered_models() == []
    assert client.search_logged_models([trial.info.experiment_id]) == []
    client.delete_experiment(trial.info.experiment_id)
    status, out, err = migrate(decided, capsys)
    assert status == 0, out + err
    assert "server: experiment 'cnn-mnist': deleted" in out
    assert client.get_experiment(trial.info.experiment_id).lifecycle_stage == "deleted"


def a_store(folder: Path, monkeypatch) -> tuple[str, MlflowClient]:
    folder.mkdir()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # A version's model is looked up there.
    return uri, MlflowClient(uri)


def a_model(client: MlflowClient, folder: Path, name: str) -> tuple[str, str]:
    """A run with a logged model that has a metric; ids of both."""
    found = client.get_experiment_by_name(name)
    place = (folder / "mlruns" / name).as_uri()
    experiment = found.experiment_id if found else client.create_experiment(name, place)
    run = client.create_run(experiment).info.run_id
    model = client.create_logged_model(experiment, "model", run).model_id
    (folder / "file").mkdir(exist_ok=True)
    (folder / "file" / "MLmodel").write_text(f"model_id: {model}\n")
    client.log_model_artifacts(model, str(folder / "file"))
    client.finalize_logged_model(model, "READY")
    client.log_batch(run, [Metric("accuracy", 0.5, 9, 0, model_id=model, run_id=run)])
    client.set_terminated(run)
    return run, model


def test_what_is_deleted_in_the_old_store_deletes_nothing_of_the_servers(
    decided, tmp_path, monkeypatch, capsys
):
    address, served = decided[2], MlflowClient(decided[2])
    uri, old = a_store(tmp_path / "old", monkeypatch)
    live = served.create_run(served.create_experiment("live")).info.run_id
    for name in ("live", "later", "with models"):
        a_model(old, tmp_path / "old", name)
    # Of a deleted run and a deleted experiment that have models with metrics, all arrives.
    gone, _ = a_model(old, tmp_path / "old", "later")
    old.delete_run(gone)
    old.delete_experiment(old.get_experiment_by_name("live").experiment_id)
    old.delete_experiment(old.get_experiment_by_name("with models").experiment_id)
    status, out, err = migrate((uri, {}, address), capsys)
    assert status == 0, out + err
    assert served.get_run(live).info.lifecycle_stage == "active"
    assert served.get_experiment_by_name("live").lifecycle_stage == "active"
    assert served.get_experiment_by_name("with models").lifecycle_stage == "deleted"
    later = served.get_experiment_by_name("later").experiment_id
    stages = {
        run.data.tags[Tag.ORIGIN]: run.info.lifecycle_stage
        for run in served.search_runs([later], run_view_type=ViewType.ALL)
    }
    assert stages[gone] == "deleted" and len(stages) == 2
    # The old store is tidied up, and somebody restores a run on the server: both stay.
    served.restore_run(copy_of(served, gone).info.run_id)
    old.delete_experiment(old.get_experiment_by_name("later").experiment_id)
    status, out, err = migrate((uri, {}, address), capsys)
    assert status == 0, out + err
    assert "server: experiment 'later': active" in out
    assert served.get_experiment(later).lifecycle_stage == "active"
    assert copy_of(served, gone).info.lifecycle_stage == "active"
    # A deleted experiment of the server's own is nobody's to restore.
    served.delete_experiment(served.create_experiment("over"))
    a_model(old, tmp_path / "old", "over")
    status, _, err = migrate((uri, {}, address), capsys)
    assert status == 2 and "Received: 'over'" in err and err.count("\n") == 1
    assert served.get_experiment_by_name("over").lifecycle_stage == "deleted"


def test_a_promotion_in_the_old_store_is_followed_and_two_models_are_not_mixed(
    decided, tmp_path, monkeypatch, capsys
):
    address, served = decided[2], MlflowClient(decided[2])
    for store in ("a", "b"):
        uri, old = a_store(tmp_path / store, monkeypatch)
        run, model = a_model(old, tmp_path / store, f"of {store}")
        old.create_registered_model("shared")
        old.create_model_version("shared", f"models:/{model}", run, model_id=model)
        old.set_registered_model_alias("shared", "champion", "1")
        status, _, err = migrate((uri, {}, address), capsys)
        assert status == (0 if store == "a" else 2), err
    assert "Received: 'shared'" in err and err.count("\n") == 1
    uri = f"sqlite:///{tmp_path / 'a' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    old = MlflowClient(uri)
    run, model = a_model(old, tmp_path / "a", "of a")
    old.create_model_version("shared", f"models:/{model}", run, model_id=model)
    old.set_registered_model_alias("shared", "champion", "2")
    assert migrate((uri, {}, address), capsys)[0] == 0
    assert str(served.get_registered_model("shared").aliases["champion"]) == "2"


@pytest.mark.parametrize(
    "call",
    [
        "create_model_version", "delete_model_version", "set_registered_model_tag",
        "create_logged_model", "set_tag", "delete_run", "set_experiment_tag",
    ],
)  # fmt: skip
def test_a_copy_that_broke_off_anywhere_is_completed(decided, tmp_path, monkeypatch, capsys, call):
    """After the call was carried out, and before anything else was."""
    address, served = decided[2], MlflowClient(decided[2])
    name = f"broken {call}"
    uri, old = a_store(tmp_path / "old", monkeypatch)
    run, model = a_model(old, tmp_path / "old", name)
    old.log_outputs(run, [LoggedModelOutput(model, 1)])
    gone, _ = a_model(old, tmp_path / "old", name)
    old.delete_run(gone)
    a_model(old, tmp_path / "old", f"dropped {call}")
    old.delete_experiment(old.get_experiment_by_name(f"dropped {call}").experiment_id)
    old.create_registered_model(name)
    for _ in range(3):
        old.create_model_version(name, f"models:/{model}", run, model_id=model)
    old.delete_model_version(name, "2")
    old.set_registered_model_alias(name, "champion", "3")
    real, count = getattr(MlflowClient, call), [0]

    def breaking(self, *arguments, **options):
        found = real(self, *arguments, **options)
        count[0] += 1
        raise ConnectionError(f"lost after {call}")
        return found

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, call, breaking)
        with pytest.raises(ConnectionError):
            _migrate(uri, address)
    assert count == [1]
    capsys.readouterr()
    status, out, err = migrate((uri, {}, address), capsys)
    assert status == 0, out + err
    assert [str(v.version) for v in served.search_model_versions(f"name='{name}'")] == ["3", "1"]
    assert str(served.get_registered_model(name).aliases["champion"]) == "3"
    there = served.get_experiment_by_name(name).experiment_id
    runs = served.search_runs([there], run_view_type=ViewType.ALL)
    assert len(runs) == 2 and len(served.search_logged_models([there])) == 2
    assert served.get_experiment_by_name(f"dropped {call}").lifecycle_stage == "deleted"
    assert migrate((uri, {}, address), capsys)[0] == 0


def test_files_that_are_not_where_the_store_says_are_refused(decided, capsys):
    """They read like a folder without files: the copy would lose them, and be the same."""
    folder = Path(decided[0].removeprefix("sqlite:///")).parent
    (folder / "mlruns").rename(folder / "elsewhere")
    status, out, err = migrate(decided, capsys)
    assert status == 2 and "added" not in out
    assert "must be where it says" in err and str(folder / "mlruns") in err
    assert err.count("\n") == 1
    (folder / "elsewhere").rename(folder / "mlruns")


@pytest.mark.parametrize(
    ("revision", "words"),
    [("451aebb31d03", "mlflow db upgrade"), ("later", "pip install --upgrade mlflow")],
)
def test_a_store_of_another_mlflow_is_not_changed(decided, revision, words, tmp_path, capsys):
    path = tmp_path / "older.db"
    path.write_bytes(Path(decided[0].removeprefix("sqlite:///")).read_bytes())
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", [revision])
        database.commit()
    before = path.read_bytes()
    assert main(["migrate", "--from", f"sqlite:///{path}", "--to", decided[2]]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--to"),
        (["--to", "http://127.0.0.1:9"], "The MLflow store (--from) is"),
        (["--to", "sqlite:///other.db"], "--to must be a running MLflow server"),
        (["--from", "http://h", "--to", "http://h"], "--from must be a local store, a SQLite file"),
        (["--from", "postgresql://u@h/d", "--to", "http://h"], "pg_dump"),
    ],
)
def test_bad_options_are_one_line(options, words, capsys, tmp_path):
    assert main(["migrate", *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
