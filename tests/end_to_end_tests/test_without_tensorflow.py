"""Sweeps where TensorFlow is not installed: an environment with all else that this one has."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from backend_contract import BackendContract
from mlflow import MlflowClient

ROOT = Path(__file__).parents[2]
MODELS = Path(__file__).parents[1] / "support" / "guide_models.py"
TENSORFLOW_ALONE = ("tensorflow", "tensorboard", "flatbuffers", "gast", "astunparse", "libclang")


@pytest.fixture(scope="session")
def python(tmp_path_factory) -> Path:
    """The interpreter of an environment of links to what is installed here, but TensorFlow."""
    folder = tmp_path_factory.mktemp("without-tensorflow")
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True)
    python = folder / "bin" / "python"
    scheme = {"base": str(folder), "platbase": str(folder)}
    there = Path(sysconfig.get_path("purelib", vars=scheme))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.lower().startswith(TENSORFLOW_ALONE):
            (there / entry.name).symlink_to(entry)
    code = "import importlib.util as u, importlib.metadata as m; print(u.find_spec('tensorflow'))"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "None\n"
    return python


def commands(python: Path, folder: Path, script: str, *options: str):
    return subprocess.run(
        [str(python), str(ROOT / script), *options], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.backends
@pytest.mark.timeout(900)
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
class TestPyTorchAlone(BackendContract):
    """Killed, resumed, replayed, finalized, promoted, used: everything that a backend must do."""

    backend, compute = "torch", "PyTorch, float32, jit off"

    @pytest.fixture(scope="class")
    def python(self, python) -> Path:
        return python

    def test_what_is_recorded_asks_for_no_tensorflow(self, swept):
        (asked, *_) = swept.folder.glob("mlruns/**/requirements.txt")
        names = [line.partition("==")[0] for line in asked.read_text().split()]
        assert names == ["mlflow", "keras", "numpy", "torch"]

    def test_the_command_that_serves_says_the_backend(self, swept):
        done = swept.run("sweeps/promote.py", "s", "--force", "once more", "--model", "again")
        assert "\n  KERAS_BACKEND=" in done.stdout, done.stdout + done.stderr


@pytest.mark.backends
@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_a_users_space_on_jax_alone(python, tmp_path):
    done = commands(
        python, tmp_path, "sweeps/run.py", "--space", f"{MODELS}:Convolutions", "--dataset",
        "digits", "--backend", "jax", "--trials", "1", "--epochs", "1", "--name", "u",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    assert len(client.search_logged_models(ids)) == 1
    assert commands(python, tmp_path, "sweeps/doctor.py", "u").returncode == 0


@pytest.mark.backends
def test_what_is_missing_is_one_line_with_two_ways_out(python, tmp_path):
    done = commands(python, tmp_path, "sweeps/run.py", "--space", "cnn", "--dataset", "digits")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "pip install -c constraints.txt -e . in the clone." in done.stderr
    assert "Or choose what is installed: --backend " in done.stderr
    assert list(tmp_path.iterdir()) == []
