"""Short sweeps whose workers are spawned, as on macOS: the command, and a script without a guard."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
COMMAND = """
import multiprocessing

from sweeps.cli.main import console_main

multiprocessing.set_start_method("spawn")
console_main()
"""
OPTIONS = ["run", "--space", "mlp", "--dataset", "digits", "--trials", "1", "--epochs", "1",
           "--workers", "1", "--no-baselines", "--pruner", "none", "--name", "spawned",
           "--keep-models", "0", "--quiet"]  # fmt: skip
SCRIPT = """
import multiprocessing

import keras_sweeps as ks

with open("times-run.txt", "a") as file:
    file.write("once\\n")
multiprocessing.set_start_method("spawn")
sweep = ks.run(
    "mlp", "digits", trials=1, epochs=1, workers=1, no_baselines=True, pruner="none",
    name="spawned", keep_models=0, verbose=0,
)
print(sweep.state, *(trial.state for trial in sweep.trials))
"""


def started(folder: Path, program: str, *options: str) -> subprocess.Popen[str]:
    """A program in a folder and a group of its own."""
    folder.mkdir()
    (folder / "program.py").write_text(program)
    return subprocess.Popen(
        [sys.executable, "program.py", *options], cwd=folder, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Both, which ran side by side: their folder, process, output and errors."""
    root = tmp_path_factory.mktemp("spawn")
    processes = {
        "command": started(root / "command", COMMAND, *OPTIONS),
        "script": started(root / "script", SCRIPT),
    }
    return {
        name: (root / name, process, *process.communicate(timeout=250))
        for name, process in processes.items()
    }


@pytest.mark.parametrize("name", ["command", "script"])
def test_a_sweep_trains_and_is_recorded(ended, name):
    folder, process, _, errors = ended[name]
    assert (process.returncode, errors) == (0, "")
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = {run.data.tags["sweeps.kind"]: run for run in client.search_runs(experiments)}
    assert [run.info.status for run in runs.values()] == ["FINISHED"] * 2
    assert runs["trial"].data.tags["sweeps.state"] == "COMPLETE"
    assert runs["trial"].data.metrics["best_val_accuracy"] > 0.5


def test_no_worker_runs_the_script(ended):
    folder, _, printed, _ = ended["script"]
    assert printed == "finished COMPLETE\n"
    assert (folder / "times-run.txt").read_text() == "once\n"


@pytest.mark.parametrize("name", ["command", "script"])
def test_no_process_is_left(ended, name):
    group = ended[name][1].pid
    deadline = time.monotonic() + 30
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.1)
