"""Sweeps over published styles: logits, pixels and metric names as far as MLflow and `replay`."""

from __future__ import annotations

import re

import mlflow
import numpy as np
import pytest
import user_styles
from driven_commands import drive
from mlflow import MlflowClient

from pipelines.data.prepared import open_prepared

FILE = user_styles.__file__
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    folder = tmp_path_factory.mktemp("styles")
    run = ["run", "--dataset", "digits", "--timeout", "none", "--pruner", "none", "--trials", "1",
           "--epochs", "2", "--space"]  # fmt: skip
    found = drive(folder, {
        "names": [*run, f"{FILE}:own_metrics", "--name", "names"],
        "replay": ["replay", "run:trial 0 (default)"],
        "doctor": ["doctor", "names"],
        "logits": [*run, f"{FILE}:tutorial_logits", "--name", "logits"],
        "dry": [*run, f"{FILE}:transfer", "--dry-run"],
        "weights": [*run, f"{FILE}:own_step", "--class-weights", "balanced"],
        "named": [*run, f"{FILE}:tutorial_logits", "--name", "raw", "--pixels", "raw"],
        "resume": ["run", "--resume", "--name", "raw", "--trials", "2", "--pixels", "auto"],
    })  # fmt: skip
    found["uri"] = f"sqlite:///{folder / 'mlflow.db'}"
    found["folder"] = folder
    return found


def runs_of(life, sweep):
    client = MlflowClient(life["uri"])
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`sweeps.kind` = 'trial'")
    return [run for run in runs if run.data.tags["sweeps.sweep"] == sweep]


def test_every_metric_of_every_epoch_is_in_mlflow_under_a_name_that_it_takes(life):
    assert life["names"]["status"] == 0, life["names"]["err"]
    (run,) = runs_of(life, "names")
    client = MlflowClient(life["uri"])
    tops = [name for name in run.data.metrics if re.fullmatch(r"epoch/top_2-[0-9a-f]{8}", name)]
    assert len(tops) == 2
    for name in ("epoch/val_accuracy", "epoch/accuracy", *tops):
        assert [m.step for m in client.get_metric_history(run.info.run_id, name)] == [1, 2]
    assert life["doctor"]["status"] == 0, life["doctor"]


def test_what_the_pixels_are_is_said_recorded_and_replayed(life):
    assert "pixels    0 to 1; models that are kept take them from 0 to 255" in life["names"]["out"]
    assert "(the default model does not rescale them itself; --pixels" in life["names"]["out"]
    assert life["names"]["err"] == ""
    (run,) = runs_of(life, "names")
    assert run.data.tags["sweeps.pixels"] == "unit"
    assert life["replay"]["status"] == 0, life["replay"]
    assert "bit for bit" in life["replay"]["out"]
    assert "pixels    0 to 255, as they are (the default model rescales them" in life["dry"]["out"]


def test_a_sweep_that_began_with_raw_pixels_keeps_them(life):
    assert "(--pixels raw)" in life["named"]["out"]
    assert "does not seem to rescale" in life["named"]["err"]
    assert life["resume"]["status"] == 0, life["resume"]["err"]
    found = runs_of(life, "raw")
    assert [run.data.tags["sweeps.pixels"] for run in found] == ["raw", "raw"]


def test_a_kept_model_of_logits_gives_the_probabilities_that_were_measured(life):
    (run,) = runs_of(life, "logits")
    mlflow.set_tracking_uri(life["uri"])
    try:
        (output,) = MlflowClient(life["uri"]).get_run(run.info.run_id).outputs.model_outputs
        model = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    finally:
        mlflow.set_tracking_uri(None)
    tags = run.data.tags
    fingerprint = tags["sweeps.data_fingerprint"]
    data = open_prepared(life["folder"] / ".sweeps" / "data", tags["sweeps.data"], fingerprint)
    pixels, labels = data.arrays("validation")
    found = model.predict(np.asarray(pixels))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    accuracy = (found.argmax(axis=1) == labels).mean()
    assert accuracy == pytest.approx(run.data.metrics["best/val_accuracy"]) and accuracy > 0.2


def test_weights_of_classes_that_a_step_cannot_take_are_refused(life):
    assert life["weights"]["status"] == 2
    assert "its train_step does not take the weights of images" in life["weights"]["err"]
