"""Fixtures: small data, folders of their own, no network, no leftovers of the user's machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from made_arrays import make_arrays

from pipelines.data.builtin import Dataset
from pipelines.data.prepared import PreparedData, store

DATA_DIR = (
    str(Path(os.environ["SWEEPS_DATA_DIR"]).resolve()) if "SWEEPS_DATA_DIR" in os.environ else ""
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every test in a folder of its own, without the environment that steers a sweep."""
    for name in (
        "SWEEPS_DATA_DIR",
        "MLFLOW_TRACKING_URI",
        "MLFLOW_EXPERIMENT_NAME",
        "SWEEPS_STORAGE",
        "CUDA_VISIBLE_DEVICES",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_HOME", f"{tmp_path}-keras-home")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """96 training, 24 validation and 30 test pictures of 8x8 pixels in three classes."""
    dataset = Dataset("tiny", ("left", "middle", "right"), None)
    return store(tmp_path_factory.mktemp("data"), dataset, make_arrays(), "0" * 64, "made")


@pytest.fixture(scope="session")
def mnist_dir() -> str:
    """The folder of the full MNIST, where the machine that runs the tests has it."""
    if not DATA_DIR or not (Path(DATA_DIR) / "mnist.npz").is_file():
        pytest.skip("set SWEEPS_DATA_DIR to a folder that holds mnist.npz")
    return DATA_DIR
