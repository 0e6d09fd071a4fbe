"""`--pixels unit`: what a user's model gets in training, and that what is stored takes raw pixels."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import user_models
from changed_tasks import changed

from pipelines.evaluation.metrics import predict
from pipelines.models.keras_files import load_saved_model
from pipelines.objectives import OBJECTIVES
from pipelines.training.checkpoints import (
    CHECKPOINT_FILE,
    MODEL_FILE,
    PREDICTIONS_FILE,
    load_checkpoint,
)
from pipelines.training.feeding import JoinedRows, UnitPixels
from pipelines.training.options import TrainingOptions, from_stored
from pipelines.training.trial import Decision, Schedule, TrialTask, run_trial
from search_spaces.user_spaces.reference import find_reference
from sweeps.cli.main import main
from sweeps.state.recorded_options import recorded_options
from tracking.tags import Tag

SPACE = find_reference(f"{user_models.__file__}:raw").text


@pytest.fixture
def task(tiny_data, tmp_path) -> TrialTask:
    options = TrainingOptions(pixels="unit")
    return TrialTask(
        0, SPACE, {"unused": 1}, tiny_data, Schedule(2, measure_test=True), 11,
        OBJECTIVES["val_accuracy"], str(tmp_path), options,
    )  # fmt: skip


def run(task: TrialTask, name: str, **changes):
    folder = Path(task.folder) / name
    folder.mkdir()
    keras.utils.set_random_seed(task.seed)
    reports = []

    def on_report(report):
        reports.append({k: v for k, v in report.metrics.items() if "second" not in k})
        return Decision.GO_ON

    return run_trial(changed(task, folder=str(folder), **changes), on_report), reports, folder


def test_the_stored_model_takes_raw_pixels_and_gives_what_training_measured(task, tiny_data):
    result, _, folder = run(task, "unit")
    model = load_saved_model(folder / MODEL_FILE)
    pixels, _ = tiny_data.arrays("validation")
    assert pixels.max() > 100
    measured = np.load(folder / PREDICTIONS_FILE)["probabilities"]
    np.testing.assert_allclose(predict(model, pixels), measured, rtol=1e-5, atol=1e-6)
    test_pixels, test_labels = tiny_data.arrays("test")
    found = (predict(model, test_pixels).argmax(1) == test_labels).mean()
    assert result.test_metrics["test_accuracy"] == pytest.approx(found)


def test_models_get_pixels_from_0_to_1(task, tiny_data):
    x = UnitPixels(tiny_data.arrays("train")[0])
    raw = tiny_data.arrays("train")[0]
    np.testing.assert_allclose(np.asarray(x), raw / 255, rtol=1e-6)
    assert x[:5].dtype == np.float32 and x[0].shape == raw[0].shape and len(x) == len(raw)
    assert x.nbytes == 4 * raw.nbytes
    joined = JoinedRows([x, x])
    np.testing.assert_array_equal(joined[np.array([0, len(x)])], np.asarray(x[[0, 0]]))


def test_it_is_another_training_and_no_checkpoint_of_the_other_is_taken(task):
    _, unit, _ = run(task, "unit")
    _, raw, _ = run(task, "raw", pixels="raw")
    assert unit != raw
    assert task.identity != changed(task, pixels="raw").identity
    assert "pixels" not in changed(task, pixels="raw").identity, "earlier trials go on"


@pytest.mark.parametrize("options", [{"train_on": "train+validation"}, {}], ids=["all", "train"])
def test_reading_from_disk_gives_the_same_numbers(task, options):
    _, memory, _ = run(task, "memory", **options)
    _, disk, _ = run(task, "disk", stream_above=0, **options)
    assert memory == disk


def test_what_was_recorded_before_stays_raw_and_a_run_says_what_it_had():
    assert from_stored({}).pixels == "raw" and TrainingOptions().pixels == "auto"
    assert recorded_options({}, {}).pixels == "raw"
    assert recorded_options({Tag.PIXELS: "unit"}, {"pixels": "auto"}).pixels == "unit"
    assert recorded_options({}, {"pixels": "auto"}).pixels == "auto", "a trial that died early"


def test_auto_trains_as_what_it_decides_and_so_is_its_checkpoint(task):
    result, automatic, folder = run(task, "auto", pixels="auto")
    _, unit, _ = run(task, "unit")
    assert result.pixels == "unit" and automatic == unit
    path, identity = folder / CHECKPOINT_FILE, changed(task, pixels="unit").identity
    assert load_checkpoint(path, identity) is not None
    assert load_checkpoint(path, changed(task, pixels="raw").identity) is None


@pytest.mark.parametrize("space", ["cnn", "mlp"])
def test_models_that_rescale_themselves_refuse_it(space, capsys):
    assert main(["run", "--space", space, "--dataset", "digits", "--pixels", "unit"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--space {space}, whose models rescale pixels themselves" in line
    assert not Path(".sweeps").exists()
