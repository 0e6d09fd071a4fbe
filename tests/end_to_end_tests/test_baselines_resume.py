"""Published models that are interrupted while they train: real processes, real stores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import chaos
import pytest
from mlflow import MlflowClient

from search_spaces.registry import all_baselines

pytestmark = pytest.mark.long

DRIVER = Path(chaos.__file__).with_name("baselines_driver.py")
NUM_EPOCHS = 8
"""The training that is interrupted takes 0.5 s an epoch: a busy machine has three seconds."""
OPTIONS = (
    "--baselines-only", "--dataset", "digits", "--epochs", str(NUM_EPOCHS), "--jit", "off",
    "--workers", "1", "--name", "b",
)  # fmt: skip
BASELINES = [baseline.name for baseline in all_baselines()]
TRAINING = BASELINES[1]
"""Which is interrupted; the one before it is complete by then."""


def command(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DRIVER), *options],
        cwd=folder, env=chaos.environment(), capture_output=True, text=True, timeout=200,
    )  # fmt: skip


def start(folder: Path) -> subprocess.Popen[str]:
    """Starts the command, and returns when two epochs of `TRAINING` are over."""
    process = subprocess.Popen(
        [sys.executable, str(DRIVER), "run", *OPTIONS],
        cwd=folder, env=chaos.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if line.startswith(f"{TRAINING} epoch 2/"):
            return process
    raise AssertionError(f"{TRAINING} never trained: {process.stderr.read()}")


def wait_for_end(pids: list[int]) -> None:
    """Waits until these processes, which nobody here started, have ended."""

    def lives(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    deadline = time.monotonic() + 60
    while any(lives(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlives its driver"
        time.sleep(0.05)


def runs(folder: Path) -> tuple[Any, list[Any]]:
    """The parent run, and its children."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    return parent, [run for run in found if run is not parent]


def statuses(folder: Path) -> dict[str, str]:
    """By run, the parent's included, its status."""
    parent, children = runs(folder)
    return {run.info.run_name: run.info.status for run in [parent, *children]}


def check_finished(folder: Path) -> None:
    """Asserts that every published model is recorded once, and completely."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    parent, children = runs(folder)
    assert Counter(run.data.tags["sweeps.baseline"] for run in children) == Counter(BASELINES)
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    for run in children:
        for metric in ("loss", "accuracy"):
            history = client.get_metric_history(run.info.run_id, metric)
            steps = sorted(value.step for value in history)
            assert steps == list(range(1, NUM_EPOCHS + 1)), (run.info.run_name, metric)
        assert run.data.metrics["test_accuracy"] == 0.9
    checked = command(folder, "doctor", "b")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("stop", "resume"),
    [
        # The suite looks at these two with trainings in its own process (test_baselines.py).
        pytest.param(signal.SIGINT, ("--resume",), marks=pytest.mark.slow),
        pytest.param(
            signal.SIGTERM,
            ("--baselines-only", "--resume", "--name", "b"),
            marks=pytest.mark.slow,
        ),
        (signal.SIGKILL, ("--resume", "--name", "b")),
    ],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_what_was_interrupted_in_a_training_goes_on(tmp_path, stop, resume):
    process = start(tmp_path)
    try:
        if stop is signal.SIGKILL:
            workers = chaos.descendants(process.pid)
            assert workers
            process.kill()
            process.wait()
            wait_for_end(workers)
        else:  # A terminal and a service manager signal the workers, too.
            os.killpg(process.pid, stop)
        _, err = process.communicate(timeout=120)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if stop is signal.SIGKILL:
        found = command(tmp_path, "doctor", "b")
        assert found.returncode == 1 and "no process is running it" in found.stdout
        repaired = command(tmp_path, "doctor", "b", "--repair")
        assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    else:
        assert process.returncode == 130, err
        status = "KILLED" if stop is signal.SIGINT else "SCHEDULED"
        assert statuses(tmp_path) == {"b": status, BASELINES[0]: "FINISHED", TRAINING: status}
    left = statuses(tmp_path)
    assert "RUNNING" not in left.values() and left[BASELINES[0]] == "FINISHED"
    assert "Traceback" not in err
    done = command(tmp_path, "run", *resume)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{BASELINES[0]} started" not in done.stdout, "what is complete is not trained again"
    assert f"{TRAINING} epoch 1/" not in done.stdout, "it goes on after its checkpoint"
    check_finished(tmp_path)
