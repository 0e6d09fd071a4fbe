"""Sweeps where TensorFlow is not installed: an environment with all else that this one has."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from backend_contract import BackendContract
from mlflow import MlflowClient
from PIL import Image

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
    for name in ("mlflow", "uvicorn"):  # Commands that serve.
        script = python.with_name(name)
        script.write_text(f'#!/bin/sh\nexec {python} -m {name} "$@"\n')
        script.chmod(0o755)
    return python


@contextlib.contextmanager
def served(line: str, python: Path, folder: Path) -> Iterator[str]:
    """Runs a command that serves, as it was printed, until the block ends; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    with (folder / "served.log").open("wb") as log:
        process = subprocess.Popen(
            f"{line} --port {port}", shell=True, cwd=folder, env=environment, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{url}/ping", timeout=5).ok:
                    break
            said = (folder / "served.log").read_text(errors="replace")[-3000:]
            assert process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.2)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):  # It has ended by itself.
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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

    def test_the_command_that_is_printed_serves_the_champion(self, swept, python):
        done = swept.run("sweeps/promote.py", "s", "--force", "once more", "--model", "again")
        (line,) = re.findall(r"^  (KERAS_BACKEND=torch .* models serve .*)$", done.stdout, re.M)
        with served(line, python, swept.folder) as url:
            pixels = {"inputs": [[[[0]] * 28] * 28]}
            answer = requests.post(f"{url}/invocations", json=pixels, timeout=60)
        assert answer.ok, answer.text
        assert len(answer.json()["predictions"][0]) == 10


@pytest.mark.backends
@pytest.mark.timeout(1200)
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
class TestJaxAlone(BackendContract):
    """The same on JAX."""

    backend, compute = "jax", "JAX, float32, jit on"

    @pytest.fixture(scope="class")
    def python(self, python) -> Path:
        return python


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
    done = commands(python, tmp_path, "sweeps/promote.py", "u", "--model", "u")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n  KERAS_BACKEND=jax " in done.stdout
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    done = commands(
        python, tmp_path, "pipelines/predict.py", "black.png", "--model", "u@champion", "--json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(json.loads(done.stdout)["predictions"][0]["probabilities"]) == 10


@pytest.mark.backends
def test_what_is_missing_is_one_line_with_two_ways_out(python, tmp_path):
    done = commands(python, tmp_path, "sweeps/run.py", "--space", "cnn", "--dataset", "digits")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "pip install -c constraints.txt tensorflow in the clone." in done.stderr
    assert "Or choose what is installed: --backend " in done.stderr
    assert list(tmp_path.iterdir()) == []
