"""How `benchmarks/peers.py --part faults` kills and counts; what it finds is not judged."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_a_schedule_follows_from_its_seed_and_kills_each_as_often():
    from peer_parts.faults import MOST_SECONDS_BETWEEN, VICTIMS, schedule

    kills = schedule(3, 15)
    assert kills == schedule(3, 15) != schedule(4, 15)
    assert Counter(victim for victim, _ in kills) == dict.fromkeys(VICTIMS, 5)
    assert all(0 <= seconds <= MOST_SECONDS_BETWEEN for _, seconds in kills)


def tracked(path: Path, runs: list[tuple[str, str, float, list[int]]]) -> str:
    """A database with the parts of MLflow's tables that are looked at: id, status, point, steps."""
    with sqlite3.connect(path) as database:
        database.executescript(
            "CREATE TABLE runs (run_uuid, status, lifecycle_stage);"
            "CREATE TABLE params (run_uuid, key, value);"
            "CREATE TABLE metrics (run_uuid, key, step, value);"
        )
        for run, status, point, steps in runs:
            database.execute("INSERT INTO runs VALUES (?, ?, 'active')", (run, status))
            database.execute("INSERT INTO params VALUES (?, 'learning_rate', ?)", (run, str(point)))
            for step in steps:
                database.execute(
                    "INSERT INTO metrics VALUES (?, 'val_accuracy', ?, 0.5)", (run, step)
                )
    return str(path)


def test_what_became_of_the_points_is_counted_over_all_their_runs(tmp_path):
    from peer_parts.faults import EPOCHS, found_in

    whole = list(range(EPOCHS))
    database = tracked(tmp_path / "server.db", [
        ("a", "FINISHED", 0.1, whole),
        ("b1", "RUNNING", 0.2, whole[:3]), ("b2", "FINISHED", 0.2, whole),
        ("c1", "RUNNING", 0.3, whole[:3]), ("c2", "FINISHED", 0.3, whole[4:]),
        ("d", "RUNNING", 0.4, whole[:1]),
    ])  # fmt: skip
    found = found_in({0.1: True, 0.2: True, 0.3: True, 0.4: False, 0.5: False}, database)
    assert found == {
        "trials": 3, "trials_lost": 2, "epochs_lost": 1, "epochs_doubled": 3,
        "runs_running": 3, "runs_too_many": 1,
    }  # fmt: skip


def test_a_driver_without_workers_is_killed_itself():
    from peer_parts.faults import busiest

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as program:
        driver = psutil.Process(program.pid)
        assert busiest(driver) == driver
        program.kill()


def test_a_program_that_ends_with_an_error_is_started_again_and_counted(tmp_path, monkeypatch):
    from peer_parts.faults import Sweep

    monkeypatch.chdir(tmp_path)
    sweep = Sweep("Optuna", 1, tmp_path, "")
    code = "import pathlib; path = pathlib.Path('n'); path.touch(); path.write_text(path.read_text() + 'x')"
    code += "; raise SystemExit(len(path.read_text()) < 3)"
    monkeypatch.setattr(sweep, "_command", lambda: [sys.executable, "-c", code])
    sweep.finish()
    assert sweep.num_errors == 2


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("side", ["ours", "Keras Tuner"])
def test_a_side_is_killed_goes_on_and_comes_to_its_end(side, tmp_path):
    """Of ours nothing is lost or doubled, and no run is left RUNNING."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "peers.py"), "--part", "faults", "--trials", "2",
         "--only", side, "--output", "found.jsonl"],
        cwd=tmp_path, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(rf"\| {side} \| \d+ \| 2 \|", done.stdout)
    found = json.loads((tmp_path / "found.jsonl").read_text())["found"]
    assert found["kills"] == 2 and found["seconds_until"]["driver"] > 0
    if side == "ours":
        bad = {
            name: num
            for name, num in found.items()
            if name.startswith(("trials_", "epochs_", "runs_"))
        }
        assert set(bad.values()) == {0}, bad
