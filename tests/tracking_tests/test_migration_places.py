"""A store that names files which are not its own is not copied."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from search_spaces.errors import InputError
from tracking.migration.contents import StoreReader
from tracking.migration.places import check_artifact_places


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with a run and a logged model, their ids, and a secret elsewhere."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("mine", (folder / "mlruns" / "1").as_uri())
    run = client.create_run(experiment).info.run_id
    client.log_text(run, "hello", "notes/a.txt")
    model = client.create_logged_model(experiment, "model", run).model_id
    (folder / "home" / ".ssh").mkdir(parents=True)
    (folder / "home" / ".ssh" / "id").write_text("secret")
    return folder, uri, run, model


def change(folder: Path, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.execute(statement, values)
        database.commit()


def test_a_store_of_its_own_files_passes(store):
    check_artifact_places(StoreReader(store[1], {}))


@pytest.mark.parametrize(
    ("table", "column", "key"),
    [("runs", "artifact_uri", "run_uuid"), ("logged_models", "artifact_location", "model_id")],
)
def test_what_names_a_foreign_folder_is_refused_by_name(store, table, column, key):
    folder, uri, *ids = store
    found = ids[0] if table == "runs" else ids[1]
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        (before,) = database.execute(f"SELECT {column} FROM {table}").fetchone()
    change(folder, f"UPDATE {table} SET {column} = ?", str(folder / "home" / ".ssh"))
    try:
        with pytest.raises(InputError, match=f"{found} of experiment 'mine' has its files in"):
            check_artifact_places(StoreReader(uri, {}))
    finally:
        change(folder, f"UPDATE {table} SET {column} = ?", before)


def test_an_experiment_cannot_be_placed_above_a_foreign_folder(store):
    """The run's id is a part of its place, and may be any text in a store that was made by hand."""
    folder, uri, run, _ = store
    (folder / "home" / ".ssh" / "artifacts").mkdir()
    places = (str(folder / "mlruns" / "1"), str(folder / "home"))
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.executescript(f"""
            CREATE TABLE kept AS SELECT * FROM runs; PRAGMA foreign_keys = OFF;
            UPDATE experiments SET artifact_location = '{places[1]}' WHERE name = 'mine';
            UPDATE runs SET run_uuid = '.ssh', artifact_uri = '{places[1]}/.ssh/artifacts';
        """)
    try:
        with pytest.raises(InputError, match=r"run \.ssh of experiment 'mine'"):
            check_artifact_places(StoreReader(uri, {}))
    finally:
        with closing(sqlite3.connect(folder / "mlflow.db")) as database:
            database.executescript(f"""
                UPDATE experiments SET artifact_location = '{Path(places[0]).as_uri()}'
                WHERE name = 'mine';
                UPDATE runs SET run_uuid = '{run}', artifact_uri =
                (SELECT artifact_uri FROM kept); DROP TABLE kept;
            """)


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_what_leads_out_of_a_folder_is_refused(store, kind):
    folder, uri, run, _ = store
    path = folder / "mlruns" / "1" / run / "artifacts" / "notes" / "odd"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        home = folder / "home" / ".ssh"
        path.symlink_to(home / "id" if kind == "file" else home)
    try:
        with pytest.raises(InputError, match=rf"run {run} of experiment 'mine' has \S*odd"):
            check_artifact_places(StoreReader(uri, {}))
    finally:
        path.unlink()
