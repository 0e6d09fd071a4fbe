"""Every benchmark runs to its end and prints both sides, their ratio and n; what it measures is not judged."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tracking.spool.records import SweepEnd, TrialEnd, TrialRecord
from tracking.spool.spool import Spool

ROOT = Path(__file__).parents[2]
NUMBER = r"\d+\.\d+"
CURVES = ("--dataset", "digits", "--space", "mlp", "--points", "12", "--output", "curves.jsonl.gz")
CASES = {
    "throughput": (["--images", "640", "--repeats", "2"], rf"ratio.*{NUMBER}.*n = 2"),
    "overhead": (
        ["--space", "mlp", "--dataset", "digits", "--trials", "1", "--epochs", "1",
         "--repeats", "1"],
        rf"median {NUMBER}.*n = 1",
    ),
    "tracking_server": (
        ["--trials", "2", "--epochs", "2", "--epoch-seconds", "0.1", "--repeats", "1"],
        rf"median ratio {NUMBER}.*n = 1",
    ),
    "engines": (
        ["--space", str(ROOT / "tests" / "support" / "user_models.py:Small"), "--epochs", "3",
         "--max-total-epochs", "6", "--seeds", "1"],
        rf"(?s)optuna: tpe, asha.*{NUMBER}",
    ),
    "peers": (
        ["--trials", "12", "--output", "peers.jsonl"],
        r"(?s)ms at 12 .*ours, prior \| \d+ \(\d+\).*Optuna, prior \| \d+ \(\d+\).*n = 1",
    ),
    "search_quality": (
        ["--space", "mlp", "--dataset", "digits", "--seeds", "1", "--timeout", "20s",
         "--output", "quality", "--test-seeds", "2"],
        rf"(?s)points.*test {NUMBER}.*n = 1",
    ),
    "gpu": (["--stand-in", "--output", "found"], r"(?s)stand-in on cores.*n.*1.*\nauto "),
    "cluster": (["reports", "--nodes", "2", "--reports", "2"], r"2 nodes, 4 reports in"),
    "record_curves": ([*CURVES, "--epochs", "2"], rf"(?m)^11: {NUMBER}"),
    "replay_search": (
        ["--curves", "curves.jsonl.gz", "--space", "mlp", "--samplers", "--seeds", "2",
         "--minutes", "0.5"],
        rf"(?s)12 recorded points.*n = 2 seeds.*prior +{NUMBER}.*tpe +{NUMBER}",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
def test_it_runs_to_its_end(name, tmp_path):
    options, wanted = CASES[name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / script), *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip

    if name == "cluster":
        pytest.importorskip("ray")
    if name == "replay_search":
        assert run("benchmarks/record_curves.py", *CURVES, "--epochs", "9").returncode == 0
    done = run(f"benchmarks/{name}.py", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(wanted, done.stdout), done.stdout


@pytest.mark.peers
@pytest.mark.timeout(300)
def test_what_a_trial_costs_is_measured_beside_a_bare_loop_and_peers(tmp_path):
    images, classes = np.zeros((300, 28, 28), np.uint8), np.arange(300, dtype=np.uint8) % 10
    np.savez(tmp_path / "mnist.npz", x_train=images, y_train=classes, x_test=images, y_test=classes)
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "peers.py"), "--part", "overhead", "--trials",
         "2", "--epochs", "1", "--output", "found.jsonl"],
        cwd=tmp_path, env={**os.environ, "SWEEPS_DATA_DIR": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| bare loop", "| ours", "| Optuna, MLflow", "| Keras Tuner, MLflow"
    ]  # fmt: skip
    assert all(re.search(rf"\| [+-]{NUMBER} \| [+-]{NUMBER} \|", row) for row in rows[1:])


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_has_its_test():
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert modules - {"cluster_jobs"} == set(CASES)  # Jobs are imported by workers.


@pytest.mark.parametrize(
    ("status", "baseline", "words"),
    [
        ("KILLED", True, "interrupted before a proposed point was complete"),
        ("FINISHED", True, "the winner is a published model"),
        ("KILLED", False, ""),
    ],
)
def test_who_wins_a_sweep_that_is_interrupted_early_is_not_told(tmp_path, status, baseline, words):
    quality = script("search_quality")
    spool = Spool(tmp_path / ".sweeps" / "sweeps" / quality.NAME / "spool")
    spool.put(TrialRecord(0, "trial 0", {}, {"sweeps.baseline": "cnn3"} if baseline else {}))
    spool.put(TrialEnd(0, "COMPLETE", {"best_val_accuracy": 0.98}))
    spool.put(SweepEnd(status))
    found = quality.Found(**quality._measured(tmp_path))
    assert quality._text(found).endswith(words) and ("published model" in words) == bool(
        found.winner_is_published
    )
    judged = 0 if found.winner_is_published is None else 1
    assert f"of {judged}, n = 1" in quality._summary([found])


def test_what_is_better_than_the_point_of_the_defaults_is_told(tmp_path):
    quality = script("search_quality")
    spool = Spool(tmp_path / ".sweeps" / "sweeps" / quality.NAME / "spool")
    for number, (kind, value) in enumerate([("default", 0.98), ("uniform", 0.99)]):
        spool.put(TrialRecord(number, f"trial {number}", {}, {"sweeps.proposed_by": kind}))
        spool.put(TrialEnd(number, "COMPLETE", {"best_val_accuracy": value}))
    found = quality.Found(**quality._measured(tmp_path))
    assert (found.defaults, found.best) == (0.98, 0.99)
    assert "+0.0100 beside the defaults" in quality._summary([found])


def test_a_folder_with_a_sweep_of_other_options_is_refused(tmp_path):
    quality = script("search_quality")
    for _ in range(2):
        quality._same_as_before(tmp_path / "here-mnist-1", ["--timeout", "15m"])
    with pytest.raises(SystemExit, match="run with other options: choose another --output"):
        quality._same_as_before(tmp_path / "here-mnist-1", ["--timeout", "5m"])
