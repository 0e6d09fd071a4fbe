"""`list` and `show` over a server with 5,000 runs: few requests, and no heavy library."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from made_sweeps import made_trial, write_sweep
from stack import mlflow_server

from sweeps.cli.main import main

pytestmark = [pytest.mark.timeout(600), pytest.mark.stack]
NUM_TRIALS, NUM_SWEEPS = 4_000, 1_000
HEAVY = ("mlflow", "optuna", "keras", "tensorflow", "pandas", "sqlalchemy")


def multiply(database: Path, run_id: str, num: int, tags: dict[str, str]) -> None:
    """Copies a run with its tags, params and metrics; a tag of each copy may hold its number."""
    with closing(sqlite3.connect(database)) as store, store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master")]
        for table in ("runs", "tags", "params", "latest_metrics"):
            assert table in tables
            columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
            copied = ["run_uuid || n" if name == "run_uuid" else name for name in columns]
            store.execute(
                "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted "
                f"WHERE n < ?) INSERT INTO {table} ({', '.join(columns)}) "
                f"SELECT {', '.join(copied)} FROM {table}, counted WHERE run_uuid = ?",
                (num, run_id),
            )
        for key, text in tags.items():
            store.execute(
                "UPDATE tags SET value = ? || substr(run_uuid, ?) "
                "WHERE key = ? AND run_uuid LIKE ? AND run_uuid != ?",
                (text, len(run_id) + 1, key, f"{run_id}%", run_id),
            )


@contextmanager
def counted(address: str) -> Iterator[tuple[str, list[str]]]:
    """Passes requests on to a server; its address, and what was asked."""
    asked: list[str] = []

    class Passing(BaseHTTPRequestHandler):
        def _pass(self) -> None:
            asked.append(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind = {"Content-Type": "application/json"}
            answer = requests.request(
                self.command, f"{address}{self.path}", data=body, headers=kind, timeout=100
            )
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = _pass

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Passing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server whose store holds a sweep, and is filled while the server runs."""
    folder = tmp_path_factory.mktemp("served")
    with mlflow_server(folder) as (_, address), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        records = [
            *made_trial(0, [0.5, 0.7], {"units": 8}),
            *made_trial(1, [0.6, 0.9], {"units": 16}, begun=30),
        ]
        write_sweep(folder / ".sweeps", "s", records)
        assert main(["sync", "s", "--tracking-uri", address]) == 0
        yield folder, address


def asked_by(address: str, capsys, *commands: list[str]) -> tuple[list[list[str]], list[str]]:
    """The calls of each command, and what each printed."""
    calls, texts = [], []
    with counted(address) as (passing, asked):
        for command in commands:
            asked.clear()
            assert main([*command, "--tracking-uri", passing]) == 0
            texts.append(capsys.readouterr().out)
            calls.append([path.rpartition("2.0/mlflow/")[2] for path in asked])
    return calls, texts


def test_requests_do_not_grow_with_runs_or_sweeps(served, capsys):
    folder, address = served
    (database,) = folder.glob("*.db")
    commands = (["list", "--json"], ["show", "s", "--json"])
    first, (listed, shown) = asked_by(address, capsys, *commands)
    is_there = ["/health", "experiments/search?max_results=1"]
    search = [*is_there, "experiments/search", "runs/search"]
    assert first == [search, [*search, "runs/search"]]
    assert [one["name"] for one in json.loads(listed)] == ["s"]
    assert [row["trial"] for row in json.loads(shown)] == [0, 1]

    with closing(sqlite3.connect(database)) as store:
        kinds = "SELECT run_uuid FROM tags WHERE key = 'sweeps.kind' AND value = ?"
        sweep, trial = (store.execute(kinds, (kind,)).fetchone()[0] for kind in ("sweep", "trial"))
    multiply(database, trial, NUM_TRIALS, {"sweeps.trial": "1"})
    multiply(database, sweep, NUM_SWEEPS, {"sweeps.sweep": "s", "sweeps.uid": "u"})
    then, (listed, shown) = asked_by(address, capsys, *commands)
    assert then == first
    assert len(json.loads(listed)) == 1 + NUM_SWEEPS
    assert len(json.loads(shown)) == 2 + NUM_TRIALS


def test_no_heavy_library_is_imported(served):
    folder, address = served
    code = (
        "import sys; from sweeps.cli.main import main; uri = ['--tracking-uri', sys.argv[1]];"
        "main(['list', *uri]); main(['show', 's', *uri]);"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, address],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    assert done.stdout.splitlines()[-1] == "[]"
