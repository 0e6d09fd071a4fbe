"""A sweep that runs is seen and steered from another process, shown in MLflow, and deleted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
CODE = "import sys; from sweeps.cli.main import main; sys.exit(main())"


def keras_sweeps(*options: str, folder: Path, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *options],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def environment() -> dict[str, str]:
    hidden = ("SWEEPS_DATA_DIR", "MLFLOW_TRACKING_URI")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "COLUMNS": "140"}


def test_a_sweep_is_steered_from_another_terminal_and_resumed(tmp_path):
    run = ["run", "--space", "mlp", "--dataset", "digits", "--epochs", "40", "--pruner", "none"]
    run += ["--trials", "2", "--timeout", "none", "--no-baselines", "--name", "steered"]
    with (tmp_path / "run.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, *run], cwd=tmp_path, env=environment(), stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while "epoch 1" not in (tmp_path / "run.txt").read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "running" in keras_sweeps("list", folder=tmp_path)
    assert "noted" in keras_sweeps("note", "steered", "first", folder=tmp_path)
    added = keras_sweeps("add", "--fix", "optimizer=sgd", folder=tmp_path)
    assert "the next point is" in added and "optimizer=sgd" in added
    assert "is running" in keras_sweeps("delete", "steered", "--yes", folder=tmp_path, status=2)
    assert "steered stops" in keras_sweeps("stop", folder=tmp_path)
    assert process.wait(60) == 130
    assert "interrupted" in keras_sweeps("list", folder=tmp_path)
    keras_sweeps("run", "--resume", "--epochs", "40", folder=tmp_path)
    shown = keras_sweeps("show", "steered", "--trial", "1", folder=tmp_path)
    assert re.search(r"drawn from +added", shown) and re.search(r"optimizer +sgd", shown)
    assert "note: first" in keras_sweeps("show", folder=tmp_path)

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments)
    assert len(runs) == 3 and [r for r in runs if r.data.tags.get("sweeps.note") == "first"]
    files = list((tmp_path / "mlruns").rglob("*.keras"))
    assert len(files) == 2
    model = next(r for r in runs if r.outputs and r.outputs.model_outputs)
    client.create_registered_model("kept")
    client.create_model_version("kept", f"runs:/{model.info.run_id}/model", model.info.run_id)
    refused = keras_sweeps("delete", "steered", "--yes", folder=tmp_path, status=2)
    assert "registered as kept" in refused
    client.delete_registered_model("kept")
    keras_sweeps("delete", "steered", "--yes", folder=tmp_path)
    assert client.search_runs(experiments) == []
    assert [path for path in (tmp_path / "mlruns").rglob("*") if path.is_file()] == []
    assert "There is no sweep" in keras_sweeps("list", folder=tmp_path)
    assert "freed" in keras_sweeps("clean", "--yes", folder=tmp_path)
    assert not any((tmp_path / ".sweeps" / "data").iterdir())


def test_ui_serves_the_store_on_loopback_and_ends_cleanly(tmp_path):
    keras_sweeps(
        "run", "--space", "mlp", "--dataset", "digits", "--trials", "1", "--epochs", "1",
        "--timeout", "none", "--no-baselines", "--name", "shown", folder=tmp_path,
    )  # fmt: skip
    with (tmp_path / "ui.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, "ui", "--no-browser", "--optuna"], cwd=tmp_path,
            env=environment(), stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        while "Ctrl-C" not in (tmp_path / "ui.txt").read_text() and time.monotonic() < deadline:
            time.sleep(0.3)
        text = (tmp_path / "ui.txt").read_text()
        address = re.search(r"MLflow at (http://127\.0\.0\.1:\d+) ", text)
        page = re.search(r"shown +(http\S+)", text)
        study = re.search(r"study +(http\S+)", text)
        assert address and page and study, text
        assert "workflowType=machine_learning" in page[1]
        assert requests.get(study[1], timeout=10).ok
        listed = keras_sweeps("list", "--tracking-uri", address[1], folder=tmp_path)
        assert "shown" in listed and "mlp on digits" in listed
        trial = keras_sweeps("show", "shown", "--tracking-uri", address[1], folder=tmp_path)
        assert "COMPLETE" in trial
        assert page[1] in keras_sweeps("open", "--address", address[1], folder=tmp_path)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert "stopped" in (tmp_path / "ui.txt").read_text()
    with pytest.raises(requests.RequestException):
        requests.get(f"{address[1]}/health", timeout=2)
