"""Stores that are refused, in time and in words, and what leads a user to the others."""

from __future__ import annotations

import base64
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import resources
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from search_spaces.errors import InputError
from tracking import stores
from tracking.client import open_client
from tracking.mlflow_server import options as server_options
from tracking.runs.tracker import MlflowTracker
from tracking.stores import absolute_uri, sqlite_path


def test_a_store_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(InputError, match="must be a usable MLflow store"):
        MlflowTracker("nonsense://host", "x")
    for uri in (
        "nonsense://host",
        "http://[bad",
        "sqlite:////tmp",
        "sqlite://",
        "postgresql://[bad",
    ):
        with pytest.raises(InputError, match="--tracking-uri"):
            stores.check_store(uri)
    (tmp_path / "text.db").write_text("this is not a database at all")
    with pytest.raises(InputError, match="no SQLite database"):
        stores.check_store(f"sqlite:///{tmp_path / 'text.db'}")
    with pytest.raises(InputError, match="no longer writes plain folders"):
        stores.check_store(str(tmp_path))
    with pytest.raises(InputError, match="existing folder"):
        stores.check_store(f"sqlite:///{tmp_path / 'none' / 'mlflow.db'}")


def test_a_server_that_does_not_answer_is_refused_in_time():
    started = time.monotonic()
    with pytest.raises(InputError, match="does not answer at /health"):
        stores.check_store("http://user:secret@127.0.0.1:9")
    assert time.monotonic() - started < 10


def test_a_server_that_hangs_is_refused_in_time(monkeypatch):
    monkeypatch.setattr(stores, "CHECK_SECONDS", 0.5)

    class Hanging(BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(5)

    server = HTTPServer(("127.0.0.1", 0), Hanging)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(InputError, match="does not answer"):
        stores.check_store(f"http://127.0.0.1:{server.server_port}")


def test_a_store_that_is_refused_shows_no_password():
    with pytest.raises(InputError) as caught:
        stores.check_store("http://user:secret@127.0.0.1:9")
    assert "secret" not in str(caught.value)
    assert "secret" not in stores.public_address("http://u:secret@h:5")


def test_a_server_that_wants_a_password_is_told_from_one_that_is_not_there(monkeypatch):
    seen = []

    class Guarded(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers.get("Authorization"))
            known = "Basic " + base64.b64encode(b"me:mine").decode()
            free = self.path == "/health" or seen[-1] == known
            self.send_response(200 if free else 401)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HOME", "/nowhere")
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"):
        stores.check_store(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "mine")
    stores.check_store(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    stores.check_store(uri)  # As for MLflow, a name and password come first.
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    with pytest.raises(InputError):
        stores.check_store(uri)
    assert seen[-1] == "Bearer abc"
    server.shutdown()


def test_links_and_commands_fit_the_store(monkeypatch):
    assert stores.ui_command("sqlite:///mlflow.db") == "mlflow ui"
    assert stores.ui_command("sqlite:////x/y.db").endswith("--backend-store-uri sqlite:////x/y.db")
    assert stores.ui_command("http://h:5000") is None
    assert stores.public_address("http://h:5000/") == "http://h:5000"
    monkeypatch.setenv("SWEEPS_PUBLIC_URL", "https://u:secret@sweeps.example.org/mlflow/")
    address = stores.public_address("http://mlflow:5000")
    assert address == "https://***@sweeps.example.org/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://h:1")
    assert stores.resolve_uri(None) == "http://h:1"
    assert stores.resolve_uri("sqlite:///a.db") == "sqlite:///a.db"


def test_mlflow_is_given_the_whole_path_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute_uri("sqlite:///a/b.db?timeout=5") == f"sqlite:///{tmp_path}/a/b.db?timeout=5"
    for same in ("sqlite:////a/b.db", "sqlite://", "sqlite:///:memory:", "http://127.0.0.1:5000"):
        assert absolute_uri(same) == same
    odd = tmp_path / "100%20?"
    odd.mkdir()
    found = absolute_uri("sqlite:///a b.db?timeout=5", odd)
    assert "/" not in found.removeprefix("sqlite:///"), "or MLflow would make that folder"
    assert sqlite_path(found) == odd / "a b.db" and found.endswith("?timeout=5")


OPENED = """
import sys
from tracking.client import open_client
print("ready", flush=True)
sys.stdin.readline()
open_client("sqlite:///mlflow.db").create_experiment(sys.argv[1])
"""


def test_whoever_comes_first_makes_the_tables_and_the_others_wait(tmp_path):
    """Several sweeps that begin in a fresh folder; MLflow itself would leave a broken database."""
    opened = [
        subprocess.Popen(
            [sys.executable, "-c", OPENED, str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    for process in opened:
        process.stdout.readline()  # Each has imported all that it needs.
    for process in opened:
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=120) for process in opened]
    assert [process.returncode for process in opened] == [0, 0], ends
    names = {e.name for e in open_client("sqlite:///mlflow.db").search_experiments()}
    assert names == {"Default", "0", "1"}
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db", "mlruns"}


def test_tables_that_were_left_half_made_are_named_with_the_way_out(tmp_path):
    path = tmp_path / "my store.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE _alembic_tmp_latest_metrics (x INTEGER)")
    with pytest.raises(InputError, match=r"half made.*It holds no runs: move it away") as caught:
        MlflowTracker(f"sqlite:///{path}", "x")
    assert f"mv '{path}' '{path}.half-made'" in str(caught.value)
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany("INSERT INTO runs (run_uuid) VALUES (?)", [("1",), ("2",)])
    with pytest.raises(InputError, match="holds 2 runs: restore a backup, or move it away"):
        MlflowTracker(f"sqlite:///{path}", "x")


@pytest.mark.parametrize(
    "address",
    ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true",
     "sqlite:///file:x%3Fmode=memory&uri=true", "sqlite:///file::memory:?cache=shared&uri=true",
     "sqlite:///file:/x?vfs=memdb&uri=true"],
)  # fmt: skip
def test_what_is_in_memory_is_refused_however_it_is_written(address):
    with pytest.raises(InputError, match="--storage must name a file"):
        stores.check_database(address, "--storage")


def test_a_file_that_is_removed_or_replaced_is_noticed(tmp_path):
    file = tmp_path / "mlflow.db"
    file.write_text("one")
    watched = stores.WatchedFile(f"sqlite:///{file}")
    watched.check()
    stores.WatchedFile("http://127.0.0.1:5000").check()
    file.rename(tmp_path / "kept")
    with pytest.raises(OSError, match="was removed or replaced"):
        watched.check()
    file.write_text("another")
    with pytest.raises(OSError, match="was removed or replaced"):
        watched.check()
    (tmp_path / "kept").replace(file)
    watched.check()


def made_database(path: Path, *tables: str) -> str:
    with closing(sqlite3.connect(path)) as database:
        for table in tables:
            database.execute(f"CREATE TABLE {table} (one)")
    return f"sqlite:///{path}"


def test_a_database_of_the_other_library_is_refused_and_not_changed(tmp_path):
    runs = made_database(tmp_path / "mlflow.db", "experiments", "runs")
    studies = made_database(tmp_path / "optuna.db", "studies", "trials")
    app = made_database(tmp_path / "app.db", "users")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for check in (stores.check_store, lambda uri: server_options.check_database_address(uri, "-u")):
        check(runs)
    with pytest.raises(InputError, match="for MLflow's runs. .*optuna.db, which holds Optuna's"):
        stores.check_store(studies)
    with pytest.raises(InputError, match="for a study. .*mlflow.db, which holds MLflow's runs"):
        stores.check_owner(runs, "--storage", stores.OPTUNA_TABLES)
    for uri in (app, f"sqlite:///{tmp_path / 'new.db'}", studies):
        stores.check_owner(uri, "--storage", stores.OPTUNA_TABLES)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("table", "own", "head"),
    [
        ("alembic_version", stores.MLFLOW_TABLES, "mlflow/store/db_migrations"),
        ("alembic_version_auth", stores.MLFLOW_TABLES, "mlflow/server/auth/db/migrations"),
        ("alembic_version", stores.OPTUNA_TABLES, "optuna/storages/_rdb/alembic"),
    ],
)
def test_tables_of_a_later_version_are_refused_and_not_changed(tmp_path, table, own, head):
    """MLflow and Optuna would add tables of their own before they find out."""
    package, _, folder = head.partition("/")
    (known,) = ScriptDirectory(str(resources.files(package) / folder)).get_heads()
    uri = made_database(tmp_path / "x.db", *own)
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE {table} (version_num)")
        database.execute(f"INSERT INTO {table} VALUES (?)", [known])
    stores.check_owner(uri, "--option", own)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"UPDATE {table} SET version_num = 'z999'")
    before = path.read_bytes()
    with pytest.raises(InputError, match="--option .* have the version 'z999', which .* Update it"):
        stores.check_owner(uri, "--option", own)
    assert path.read_bytes() == before
