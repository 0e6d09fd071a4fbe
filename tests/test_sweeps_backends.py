"""One short sweep on each other backend, on the cores: killed, resumed, finalized, promoted, used."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

ROOT = Path(__file__).parents[1]
TIMINGS = ("epoch_seconds", "images_per_second")
pytestmark = pytest.mark.timeout(900)
"""The first test pays for three sweeps, and JAX compiles for most of that time."""
OPTIONS = (
    "--space", "mlp", "--dataset", "digits", "--trials", "3", "--epochs", "2", "--no-baselines",
    "--pruner", "none", "--fix", "num_layers=1", "--fix", "batch_size=128", "--fix",
    "dropout_0=0.25", "--workers", "1", "--name", "s",
)  # fmt: skip


def keras_sweeps(folder: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / script), *options],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip


class Swept:
    """A sweep that was killed in its second trial and resumed, beside one that was not."""

    def __init__(self, backend: str, root: Path) -> None:
        self.backend, self.folder, whole = backend, root / "killed", root / "whole"
        self.folder.mkdir(parents=True)
        whole.mkdir()
        options = (*OPTIONS, "--backend", backend)
        self.done = keras_sweeps(whole, "sweeps/run.py", *options)
        assert self.done.returncode == 0, self.done.stderr
        self._kill_in_the_second_trial(options)
        self.resumed = keras_sweeps(self.folder, "sweeps/run.py", "--resume")
        self.whole = numbers(whole)
        self.numbers = numbers(self.folder)

    def _kill_in_the_second_trial(self, options: tuple[str, ...]) -> None:
        command = [sys.executable, str(ROOT / "sweeps/run.py"), *options]
        process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("trial 1 epoch 1/2"):
                break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1)  # Its workers notice by themselves.

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def runs(self, kind: str):
        experiments = [e.experiment_id for e in self.client.search_experiments()]
        return self.client.search_runs(experiments, f"tags.`sweeps.kind` = '{kind}'")


def numbers(folder: Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Trial and metric -> its points, without those that measure time."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = {}
    for run in client.search_runs(experiments, "tags.`sweeps.kind` = 'trial'"):
        for name in set(run.data.metrics) - {*TIMINGS, "training_seconds"}:
            history = client.get_metric_history(run.info.run_id, name)
            points = sorted((point.step, point.value) for point in history)
            found[run.data.tags["sweeps.trial"], name] = points
    return found


def parameters() -> Iterator[object]:
    for backend in ("jax", "torch"):
        missing = importlib.util.find_spec(backend) is None
        skip = pytest.mark.skipif(missing, reason=f"{backend} is not installed")
        yield pytest.param(backend, marks=[pytest.mark.backends, skip])


@pytest.fixture(scope="module", params=list(parameters()))
def swept(request, tmp_path_factory) -> Swept:
    return Swept(request.param, tmp_path_factory.mktemp(request.param))


def test_it_says_and_records_what_it_trained_with(swept):
    title = {"jax": "JAX, float32, jit on", "torch": "PyTorch, float32, jit off"}[swept.backend]
    assert f"compute   {title} (jit by rule)" in swept.done.stdout
    assert swept.done.stderr == ""
    runs = swept.runs("trial")
    assert len(runs) == 3
    for run in runs:
        assert run.data.tags["sweeps.backend"] == swept.backend
        assert run.data.tags["sweeps.precision"] == "float32"
        assert f"sweeps.version.{swept.backend}" in run.data.tags
        assert run.data.tags["sweeps.device"].startswith("cpu, ")


def test_resumed_equals_uninterrupted(swept):
    assert swept.resumed.returncode == 0, swept.resumed.stderr
    assert len({trial for trial, _ in swept.whole}) == 3
    assert swept.numbers == swept.whole


def test_a_resumed_sweep_keeps_its_backend(swept):
    done = keras_sweeps(
        swept.folder, "sweeps/run.py", "--resume", "--name", "s", "--backend", "tensorflow"
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"--backend was {swept.backend}, is tensorflow" in done.stderr


def test_a_replay_on_the_recorded_backend_is_identical(swept):
    best = max(swept.runs("trial"), key=lambda run: run.data.metrics["best_val_accuracy"])
    done = keras_sweeps(swept.folder, "sweeps/replay.py", best.info.run_id)
    assert "identical: 2 epochs" in done.stdout, done.stdout + done.stderr


def test_the_winner_becomes_the_champion_and_predicts(swept):
    options = ("s", "--finalists", "2", "--finalist-seeds", "2", "--quiet")
    done = keras_sweeps(swept.folder, "sweeps/finalize.py", *options)
    assert done.returncode == 0, done.stderr
    assert {run.data.tags["sweeps.backend"] for run in swept.runs("finalist")} == {swept.backend}
    done = keras_sweeps(swept.folder, "sweeps/promote.py", "s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "images bit for bit the same" in done.stdout
    flavor = yaml.safe_load(next(swept.folder.glob("mlruns/**/MLmodel")).read_text())["flavors"]
    assert flavor["keras"]["keras_backend"] == swept.backend
    Image.new("L", (8, 8)).save(swept.folder / "black.png")
    done = keras_sweeps(
        swept.folder, "pipelines/predict.py", "black.png", "--model", "mlp-digits@champion",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["predictions"][0]["probabilities"]) == 10
    assert keras_sweeps(swept.folder, "sweeps/doctor.py", "s").returncode == 0
