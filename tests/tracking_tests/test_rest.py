"""`list` and `show` over a server with 5,000 runs: few requests and runs, no heavy library."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from made_sweeps import made_trial, write_sweep
from stack import mlflow_server

from sweeps.cli.main import main
from sweeps.history import server as on_server

pytestmark = [pytest.mark.timeout(600), pytest.mark.stack]
NUM_TRIALS, NUM_SWEEPS = 4_000, 1_000
IS_THERE = ["/health", "experiments/search?max_results=1", "experiments/search"]
HEAVY = ("mlflow", "optuna", "keras", "tensorflow", "pandas", "sqlalchemy")


def copy(store: sqlite3.Connection, run_id: str, num: int) -> None:
    """Copies a run with its tags, params and metrics; `copies` has `run` and `n` from 2 on."""
    for table in ("runs", "tags", "params", "latest_metrics"):
        columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
        copied = ["run_uuid || n" if name == "run_uuid" else name for name in columns]
        store.execute(
            "WITH RECURSIVE counted(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM counted "
            f"WHERE n <= ?) INSERT INTO {table} ({', '.join(columns)}) "
            f"SELECT {', '.join(copied)} FROM {table}, counted WHERE run_uuid = ?",
            (num, run_id),
        )
    store.execute("DROP TABLE IF EXISTS temp.copies")
    store.execute("CREATE TEMP TABLE copies (run TEXT PRIMARY KEY, n INTEGER)")
    store.execute(
        "INSERT INTO copies SELECT run_uuid, CAST(substr(run_uuid, ?) AS INTEGER) FROM runs "
        "WHERE run_uuid LIKE ? AND run_uuid != ?",
        (len(run_id) + 1, f"{run_id}%", run_id),
    )


OF_COPY = "FROM copies WHERE run = run_uuid AND"
VARIED = f"""
UPDATE tags SET value = n {OF_COPY} key = 'sweeps.trial';
UPDATE tags SET value = 'trial ' || n {OF_COPY} key = 'mlflow.runName';
UPDATE params SET value = n {OF_COPY} key = 'units';
UPDATE runs SET start_time = start_time + 1000 * n, end_time = end_time + 1500 * n
    {OF_COPY} TRUE;
UPDATE latest_metrics SET value = (n * 7919 % 97) / 100.0 {OF_COPY} key = 'best_val_accuracy';
UPDATE tags SET value = CASE n % 3 WHEN 0 THEN 'PRUNED' ELSE 'FAILED' END
    {OF_COPY} key = 'sweeps.state' AND n % 7 < 2;
INSERT INTO tags (key, value, run_uuid)
    SELECT 'sweeps.duplicate_of', '2', run FROM copies WHERE n % 11 = 3;
DELETE FROM latest_metrics WHERE run_uuid IN (SELECT run FROM copies WHERE n % 11 = 3);
"""
"""Of each value there are several; some were not trained to the end, or had another's point."""


def fill(database: Path, sweep: str, num: int, more: str = "") -> None:
    """Adds trials to a sweep until it has so many; `ours` has its runs."""
    with closing(sqlite3.connect(database)) as store, store:
        store.execute("CREATE TEMP TABLE ours (run TEXT PRIMARY KEY, kind TEXT)")
        ours = (
            "INSERT OR IGNORE INTO ours SELECT s.run_uuid, k.value FROM tags s "
            "JOIN tags k ON k.run_uuid = s.run_uuid AND k.key = 'sweeps.kind' "
            f"WHERE s.key = 'sweeps.sweep' AND s.value = '{sweep}'"
        )
        store.execute(ours)
        (run_id,) = store.execute(
            "SELECT run FROM ours JOIN tags ON run = run_uuid "
            "WHERE kind = 'trial' AND key = 'sweeps.trial' AND value = '1'"
        ).fetchone()
        copy(store, run_id, num - 2)
        store.executescript(f"{VARIED}; {ours}; {more}")


@dataclass
class Asked:
    """What was asked of a server, and how many runs its answers had."""

    calls: list[str] = field(default_factory=list)
    num_runs: int = 0


@contextmanager
def counted(address: str) -> Iterator[tuple[str, Asked]]:
    """Passes requests on to a server; its address, and what was asked."""
    asked = Asked()

    class Passing(BaseHTTPRequestHandler):
        def _pass(self) -> None:
            asked.calls.append(self.path.rpartition("2.0/mlflow/")[2])
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind = {"Content-Type": "application/json"}
            answer = requests.request(
                self.command, f"{address}{self.path}", data=body, headers=kind, timeout=100
            )
            if asked.calls[-1] == "runs/search":
                asked.num_runs += len(answer.json().get("runs", ()))
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


MINIMIZED = """
UPDATE latest_metrics SET key = 'best/error'
    WHERE key = 'best_val_accuracy' AND run_uuid IN (SELECT run FROM ours);
INSERT OR REPLACE INTO tags (key, value, run_uuid)
    SELECT 'sweeps.metric_names', 'sections', run FROM ours;
INSERT OR REPLACE INTO tags (key, value, run_uuid)
    SELECT 'sweeps.objective', 'error', run FROM ours;
INSERT OR REPLACE INTO params (key, value, run_uuid)
    SELECT 'objective', 'error:min', run FROM ours WHERE kind = 'sweep';
UPDATE tags SET value = 'my_space' WHERE key = 'sweeps.space' AND run_uuid IN (SELECT run FROM ours)
"""
"""As new sweeps name metrics, and of a space that nobody knows but by its trials."""
EARLY = """
UPDATE tags SET value = 'PAUSED' WHERE key = 'sweeps.state' AND value = 'COMPLETE'
    AND run_uuid IN (SELECT run FROM copies WHERE n > 9)
"""
NODES = """
INSERT INTO tags (key, value, run_uuid)
    SELECT 'sweeps.node.a', '2 GPUs', run FROM ours WHERE kind = 'sweep';
INSERT INTO tags (key, value, run_uuid)
    SELECT 'sweeps.node', 'a', run FROM ours WHERE kind = 'trial'
"""
RISING = """
UPDATE latest_metrics SET value = n / 1e7 FROM copies
    WHERE run = run_uuid AND key = 'best_val_accuracy'
"""
"""The newest is the best of all but the first two, and its value needs an exponent."""
WAITING = f"""
{RISING};
UPDATE tags SET value = 'PAUSED' WHERE key = 'sweeps.state'
    AND run_uuid IN (SELECT run FROM copies WHERE n > 280 AND n != 297)
"""
"""Of the newest one alone is complete."""
SWEEPS = {
    "two": (2, ""),
    "few": (60, NODES),
    "some": (300, NODES),
    "low": (300, MINIMIZED),
    "early": (300, EARLY),
    "rising": (300, RISING),
    "waiting": (300, WAITING),
    "many": (NUM_TRIALS, ""),
}
"""Sweep -> its number of trials, and what else is so in the store."""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server whose store is filled while the server runs."""
    folder = tmp_path_factory.mktemp("served")
    with mlflow_server(folder) as (_, address), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        defaults = {"sweeps.baseline": "default"}
        records = [
            *made_trial(0, [0.5, 0.7], {"units": 8}, tags=defaults),
            *made_trial(1, [0.6, 0.9], {"units": 16}, begun=30),
        ]
        for name, (num, more) in SWEEPS.items():
            write_sweep(folder / ".sweeps", name, records)
            assert main(["sync", name, "--tracking-uri", address]) == 0
            if num > 2:
                (database,) = folder.glob("*.db")
                fill(database, name, num, more)
        yield folder, address


@pytest.fixture
def show(served, capsys):
    """Runs a command: what it prints on either stream, and what it asked."""

    def run(*command: str) -> tuple[str, str, Asked]:
        capsys.readouterr()
        with counted(served[1]) as (passing, asked):
            assert main([*command, "--tracking-uri", passing]) == 0
        printed = capsys.readouterr()
        return printed.out, printed.err, asked

    return run


def test_requests_and_runs_do_not_grow_with_trials_or_sweeps(served, show):
    assert show("show", "two")[2] == Asked([*IS_THERE, *["runs/search"] * 2], 1 + 2)
    few = show("show", "few")[2]
    assert few == Asked([*IS_THERE, *["runs/search"] * 3], 1 + 10 + 60)
    some = show("show", "some")[2]
    # The sweep, the newest, the best, the baselines.
    assert some == Asked([*IS_THERE, *["runs/search"] * 4], 1 + 10 + 10 + 1)
    assert show("show", "many")[2] == some
    one = show("show", "many", "--trial", "7")[2]
    assert one == Asked(some.calls, 1 + 10 + 1 + 1)
    # Few are as good as the best of the newest; enough as its worst, or only without such a bound.
    twice = Asked([*IS_THERE, *["runs/search"] * 5], 1 + 10 + 3 + 10 + 1)
    assert show("show", "rising")[2] == twice
    assert show("show", "waiting")[2] == twice

    (database,) = served[0].glob("*.db")
    with closing(sqlite3.connect(database)) as store, store:
        (run_id,) = store.execute(
            "SELECT k.run_uuid FROM tags k JOIN tags s ON k.run_uuid = s.run_uuid WHERE k.key = "
            "'sweeps.kind' AND k.value = 'sweep' AND s.key = 'sweeps.sweep' AND s.value = 'two'"
        ).fetchone()
        copy(store, run_id, NUM_SWEEPS)
    listed, _, asked = show("list", "--json")
    assert len(json.loads(listed)) == len(SWEEPS) + NUM_SWEEPS
    assert asked.calls == [*IS_THERE, "runs/search"]
    assert show("show", "many")[2] == some


@pytest.mark.parametrize("name", ["two", "few", "low", "early", "rising", "waiting", "many"])
@pytest.mark.parametrize("options", [(), ("--trial", "1")])
def test_what_is_shown_is_what_all_trials_tell(show, monkeypatch, name, options):
    text, error, _ = show("show", name, *options)
    monkeypatch.setattr(on_server, "MOST_READ", 1_000_000)
    from_all, nothing, all_asked = show("show", name, *options)
    assert text == from_all
    assert all_asked.num_runs >= SWEEPS[name][0]
    assert not nothing
    reads_all = name == "early" and not options
    assert ("Fewer than 10 trials are complete, so all 300 are read" in error) == reads_all
    if not options and SWEEPS[name][0] > 10:
        assert f"{SWEEPS[name][0] - 10:,} more trials" in text


def test_json_and_all_have_every_trial_and_say_that_it_takes_long(show):
    text, error, _ = show("show", "some", "--json")
    assert [row["trial"] for row in json.loads(text)] == list(range(300))
    assert "All 300 trials are read" in error
    text, error, _ = show("show", "some", "--all")
    assert "node a: 300 trials; 2 GPUs" in text
    assert "All 300 trials are read" in error


def test_trials_of_a_node_are_counted_where_they_are_few(show):
    assert "node a: 60 trials; 2 GPUs\n" in show("show", "few")[0]
    text = show("show", "some")[0]
    assert "node a: 2 GPUs\n" in text
    assert "--all reads and counts them" in text


def test_no_heavy_library_is_imported(served):
    folder, address = served
    code = (
        "import sys; from sweeps.cli.main import main; uri = ['--tracking-uri', sys.argv[1]];"
        "main(['list', *uri]); main(['show', 'many', *uri]);"
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
