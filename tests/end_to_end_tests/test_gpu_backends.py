"""Trials of every backend share a GPU that is not there: measured, packed, warm, and really trained."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import chaos
import pytest
from fake_gpu import environment_with_a_gpu
from mlflow import MlflowClient

OPTIONS = (
    "run", "--space", "mlp", "--dataset", "digits", "--trials", "4", "--epochs", "2",
    "--no-baselines", "--pruner", "none", "--sampler", "random", "--fix", "num_layers=1",
    "--fix", "batch_size=128", "--threads", "1", "--name", "s", "--jit", "off",
)  # fmt: skip


def swept(folder: Path, backend: str) -> str:
    options = [*OPTIONS, "--backend", backend]
    if backend == "jax":
        options[options.index("--jit") + 1] = "on"
    done = subprocess.run(
        [sys.executable, str(chaos.HERE / "device_driver.py"), *options],
        cwd=folder, env=environment_with_a_gpu(folder), capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.backends
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_trials_are_measured_packed_and_trained(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    said = swept(tmp_path, backend)
    assert "1 or 2 trials at once on each" in said
    assert "packing   1 per GPU: " in said and "; 2 per GPU: " in said
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    trials = client.search_runs(ids, "tags.`sweeps.kind` = 'trial'")
    assert len(trials) == 4
    for run in trials:
        assert run.data.tags["sweeps.device"] == "gpu 0: Stand-in"
        assert run.data.tags["sweeps.backend"] == backend
        assert run.data.metrics["epoch/val_accuracy"] > 0.2
    told = [json.loads(path.read_text()) for path in tmp_path.glob("told-*.json")]
    assert len(told) >= 3 + 4, "three that measured, one for each trial"
    assert {one["CUDA_VISIBLE_DEVICES"] for one in told} == {"0"}
    fractions = {
        "tensorflow": {one["TF_FORCE_GPU_ALLOW_GROWTH"] for one in told},
        "jax": {one["XLA_CLIENT_MEM_FRACTION"] for one in told},
        "torch": {fraction for one in told for fraction in one["torch"]},
    }[backend]
    if backend == "tensorflow":
        assert fractions == {"true"}
    else:
        shared = [float(one) for one in fractions if float(one) < 0.5]
        assert shared and min(shared) > 0.4, "half of the GPU, without the contexts"
