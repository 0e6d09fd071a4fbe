"""What a sweep must do on any backend, on the cores: killed, resumed, finalized, promoted, used.

A file for each backend, so that two processes share them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

ROOT = Path(__file__).parents[2]
OPTIONS = (
    "--space", "mlp", "--dataset", "digits", "--trials", "3", "--epochs", "2", "--no-baselines",
    "--pruner", "none", "--fix", "num_layers=1", "--fix", "batch_size=128", "--fix",
    "dropout=0.25", "--fix", "batch_norm=true", "--fix", "weight_averaging=true", "--workers", "1",
    "--name", "s",
)  # fmt: skip


class Swept:
    """A sweep that was killed in its second trial, between two epochs, and resumed."""

    def __init__(self, backend: str, folder: Path, python: Path) -> None:
        self.backend, self.folder, self._python = backend, folder, str(python)
        self.begun = self._kill_in_the_second_trial((*OPTIONS, "--backend", backend))
        self.resumed = self.run("sweeps/run.py", "--resume")

    def run(self, script: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._python, str(ROOT / script), *options],
            cwd=self.folder, capture_output=True, text=True,
        )  # fmt: skip

    def _kill_in_the_second_trial(self, options: tuple[str, ...]) -> list[str]:
        command = [self._python, str(ROOT / "sweeps/run.py"), *options]
        process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("trial 1 epoch 1/2"):
                break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1)  # Its workers notice by themselves.
        return lines

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def runs(self, kind: str):
        experiments = [e.experiment_id for e in self.client.search_experiments()]
        return self.client.search_runs(experiments, f"tags.`sweeps.kind` = '{kind}'")


class BackendContract:
    """Tests of a backend; the class that inherits them says which, and what it calls itself."""

    backend: str
    compute: str

    @pytest.fixture(scope="class")
    def python(self) -> Path:
        """What runs the commands: that of another environment where a class says so."""
        return Path(sys.executable)

    @pytest.fixture(scope="class")
    def swept(self, request, tmp_path_factory, python) -> Swept:
        backend = request.cls.backend
        return Swept(backend, tmp_path_factory.mktemp(backend), python)

    def test_it_says_and_records_what_it_trained_with(self, swept):
        assert f"compute   {self.compute} (jit by rule)\n" in swept.begun
        assert swept.resumed.returncode == 0, swept.resumed.stderr
        runs = swept.runs("trial")
        assert len(runs) == 3
        for run in runs:
            assert run.data.tags["sweeps.backend"] == swept.backend
            assert run.data.tags["sweeps.precision"] == "float32"
            assert f"sweeps.version.{swept.backend}" in run.data.tags
            assert run.data.tags["sweeps.device"].startswith("cpu, ")

    def test_a_resumed_sweep_keeps_its_backend(self, swept):
        other = "jax" if swept.backend == "torch" else "torch"
        done = swept.run("sweeps/run.py", "--resume", "--name", "s", "--backend", other)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert f"--backend was {swept.backend}, is {other}" in done.stderr

    def test_what_was_killed_and_continued_equals_a_training_without_a_break(self, swept):
        """Which is what a replay does, on the recorded backend."""
        (run,) = (run for run in swept.runs("trial") if run.data.tags["sweeps.trial"] == "1")
        done = swept.run("sweeps/replay.py", run.info.run_id)
        assert "identical: 2 reports" in done.stdout, done.stdout + done.stderr

    def test_the_winner_becomes_the_champion_and_predicts(self, swept):
        options = ("s", "--finalists", "1", "--finalist-seeds", "2", "--quiet")
        done = swept.run("sweeps/finalize.py", *options)
        assert done.returncode == 0, done.stderr
        assert {run.data.tags["sweeps.backend"] for run in swept.runs("finalist")} == {
            swept.backend
        }
        done = swept.run("sweeps/promote.py", "s")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "images bit for bit the same" in done.stdout
        flavor = yaml.safe_load(next(swept.folder.glob("mlruns/**/MLmodel")).read_text())["flavors"]
        assert flavor["keras"]["keras_backend"] == swept.backend
        Image.new("L", (8, 8)).save(swept.folder / "black.png")
        done = swept.run(
            "pipelines/predict.py", "black.png", "--model", "mlp-digits@champion",
            "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["predictions"][0]["probabilities"]) == 10
        assert swept.run("sweeps/doctor.py", "s").returncode == 0
