"""One trial, with real Keras: reports, best epoch, repeatability, failures, files, pictures."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from changed_tasks import changed

from pipelines.evaluation.figures import render_trial
from pipelines.evaluation.metrics import (
    accuracy,
    confident_mistakes,
    confusion_matrix,
    cross_entropy,
    macro_auc,
    predict,
    top_accuracy,
    validation_metrics,
)
from pipelines.objectives import OBJECTIVES, check_objective, get_objective
from pipelines.training.checkpoints import CHECKPOINT_FILE, FIGURE_FILES, MODEL_FILE
from pipelines.training.epoch import NonFiniteLossError
from pipelines.training.reports import EVERY_EPOCH, Reports
from pipelines.training.trial import NOT_COMPILED, Decision, Schedule, TrialTask, run_trial
from search_spaces import cnn_blocks, mlp_layers
from search_spaces.errors import InputError


@pytest.fixture
def task(tiny_data, tmp_path) -> TrialTask:
    params = mlp_layers.SPACE.complete(
        {"num_layers": 1, "units_0": 64, "batch_size": 32, "dropout_0": 0.2}
    )
    folder = tmp_path / "trial"
    folder.mkdir()
    return TrialTask(
        0, "mlp_layers", params, tiny_data, Schedule(3), 11, OBJECTIVES["val_accuracy"], str(folder)
    )


def run(task: TrialTask, answer=lambda report: Decision.GO_ON):
    keras.utils.set_random_seed(task.seed)
    (Path(task.folder) / CHECKPOINT_FILE).unlink(missing_ok=True)
    reports = []

    def report(message):
        reports.append(message)
        return answer(message)

    return run_trial(task, report), reports


def test_every_epoch_is_reported_with_all_metrics(task):
    result, reports = run(task)
    assert [r.step for r in reports] == [1, 2, 3]
    for report in reports:
        assert set(report.metrics) == {
            "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "val_macro_f1",
            "val_balanced_accuracy", "val_auc", "learning_rate", "epoch_seconds",
            "images_per_second", *(["compile_seconds"] if report.step == 1 else []),
        }  # fmt: skip
    assert 0 < reports[0].metrics["compile_seconds"] < reports[0].metrics["epoch_seconds"]
    assert result.num_epochs == 3 and result.stopped_by == "epochs"
    best = max(reports, key=lambda r: r.metrics["val_accuracy"])
    assert (result.value, result.best_epoch) == (best.metrics["val_accuracy"], best.step)


def test_only_the_first_report_has_the_time_of_a_prediction_and_only_where_it_is_asked_for(task):
    _, plain = run(task)
    timed = replace(task, measures=("latency_ms", "parameters"), folder=task.folder + "-timed")
    Path(timed.folder).mkdir()
    _, reports = run(timed)
    assert [("latency_ms" in r.metrics) for r in reports] == [True, False, False]
    assert 0 < reports[0].metrics["latency_ms"] < 1000
    assert "parameters" not in reports[0].metrics, "our spaces know them beforehand"
    times = ("epoch_seconds", "images_per_second", "compile_seconds", "latency_ms")
    assert [{k: v for k, v in r.metrics.items() if k not in times} for r in reports] == [
        {k: v for k, v in r.metrics.items() if k not in times} for r in plain
    ], "measuring changes nothing"


def test_the_saved_model_is_that_of_the_best_epoch_and_takes_raw_pixels(task):
    result, _ = run(changed(task, num_epochs=5))
    model = keras.models.load_model(Path(task.folder) / MODEL_FILE, safe_mode=True)
    x, y = task.data.arrays("validation")
    probabilities = predict(model, x)
    assert accuracy(probabilities, y) == pytest.approx(result.value)
    assert cross_entropy(probabilities, y) == pytest.approx(result.metrics["val_loss"], rel=1e-5)
    keras_loss = keras.losses.sparse_categorical_crossentropy(y, probabilities)
    assert cross_entropy(probabilities, y) == pytest.approx(float(np.mean(keras_loss)), rel=1e-4)


def test_two_runs_with_one_seed_are_identical_and_another_seed_differs(task):
    def losses(seed):
        _, reports = run(replace(task, seed=seed))
        return [(r.metrics["loss"], r.metrics["val_loss"]) for r in reports]

    assert losses(5) == losses(5)
    assert losses(5) != losses(6)


def test_the_driver_can_end_a_trial(task):
    result, reports = run(task, lambda r: Decision.GO_ON if r.step < 2 else Decision.STOP)
    assert len(reports) == 2 and result.stopped_by == "stop"


def test_patience_ends_a_trial_that_does_not_improve(task):
    params = mlp_layers.SPACE.complete(
        {
            "num_layers": 1,
            "units_0": 64,
            "optimizer": "sgd",
            "sgd_learning_rate": 0.001,
            "sgd_momentum": 0.0,
            "batch_size": 512,
        }  # fmt: skip
    )
    flat = changed(task, params=params, num_epochs=30, early_stopping=2)
    result, reports = run(flat)
    assert result.stopped_by == "early stopping"
    assert len(reports) == result.best_epoch + 2 < 30


def test_a_loss_that_is_not_finite_fails_the_trial(task, monkeypatch):
    params = mlp_layers.SPACE.complete(
        {"optimizer": "sgd", "sgd_learning_rate": 0.3, "sgd_momentum": 0.95, "num_layers": 4}
    )
    original = mlp_layers.SPACE.build

    def exploding(*args, **kwargs):
        model = original(*args, **kwargs)
        model.optimizer.learning_rate = 1e30
        return model

    from search_spaces import registry

    monkeypatch.setitem(registry.SPACES, "mlp_layers", replace(mlp_layers.SPACE, build=exploding))
    with pytest.raises(NonFiniteLossError, match="became (nan|inf)"):
        run(replace(task, params=params))


def test_weights_that_overflow_in_the_last_step_fail_the_trial(task, monkeypatch):
    monkeypatch.setattr(
        "pipelines.training.device_prediction.predict_on_device",
        lambda forward, pixels, batch, rows: np.full((24, 3), np.nan),
    )
    with pytest.raises(NonFiniteLossError, match="predicts NaN or infinity after epoch 1"):
        run(task)


@pytest.mark.parametrize("reports", [EVERY_EPOCH, Reports(3, (1,))])
def test_pictures_and_tables_of_a_trial_are_drawn(task, reports):
    run(replace(task, schedule=Schedule(3, reports=reports)))
    render_trial(task.folder, task.data)
    folder = Path(task.folder)
    assert all((folder / name).stat().st_size > 0 for name in FIGURE_FILES)
    for name in FIGURE_FILES:
        if name.endswith(".png"):
            assert (folder / name).read_bytes().startswith(b"\x89PNG")
    with (folder / "confusion_validation.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["left", "middle", "right"]
    assert sum(int(cell) for row in rows[1:] for cell in row) == 24


def test_augmented_and_scheduled_points_train(task):
    params = cnn_blocks.SPACE.complete(
        {
            "augmentation": True,
            "augmentation_zoom": 0.1,
            "schedule": "cosine",
            "warmup_share": 0.2,
            "num_blocks": 2,
            "batch_norm_0": True,
            "pooling_0": "average",
            "head": "average",
        }  # fmt: skip
    )
    result, reports = run(changed(task, space="cnn_blocks", params=params, num_epochs=2))
    assert result.num_epochs == 2
    assert reports[1].metrics["learning_rate"] == pytest.approx(0.0, abs=1e-9)


def test_confusion_and_mistakes():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.99, 0.01]], np.float32)
    labels = np.array([0, 1, 1, 1])
    np.testing.assert_array_equal(confusion_matrix(probabilities, labels, 2), [[1, 0], [2, 1]])
    np.testing.assert_array_equal(confident_mistakes(probabilities, labels, 5), [3, 2])
    np.testing.assert_array_equal(confident_mistakes(probabilities, labels, 1), [3])
    assert accuracy(probabilities, labels) == 0.5


def test_each_objective_knows_its_direction():
    high, low = get_objective("val_accuracy"), get_objective("val_loss")
    assert high.better({"val_accuracy": 0.9}, {"val_accuracy": 0.8})
    assert not high.better({"val_accuracy": 0.9}, {"val_accuracy": 0.9})
    assert low.better({"val_loss": 0.1}, {"val_loss": 0.2})
    with pytest.raises(InputError, match="Did you mean 'val_accuracy'"):
        get_objective("val_acuracy")


def test_the_means_over_classes_are_those_of_scikit_learn():
    from sklearn import metrics as sk

    generator = np.random.default_rng(0)
    for num_classes in (2, 3, 7):
        labels = generator.integers(0, num_classes, 200)
        # Rounded, so that there are ties.
        scores = np.round(generator.random((200, num_classes)) + np.eye(num_classes)[labels], 1)
        probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float64)
        predicted = probabilities.argmax(axis=1)
        found = validation_metrics(probabilities, labels)
        assert found["val_macro_f1"] == pytest.approx(
            sk.f1_score(labels, predicted, average="macro"), abs=1e-12
        )
        assert found["val_balanced_accuracy"] == pytest.approx(
            sk.balanced_accuracy_score(labels, predicted), abs=1e-12
        )
        areas = [sk.roc_auc_score(labels == k, probabilities[:, k]) for k in range(num_classes)]
        assert found["val_auc"] == pytest.approx(np.mean(areas), abs=1e-12)
        assert ("val_top5_accuracy" in found) == (num_classes > 5)
    distinct = probabilities + generator.random(probabilities.shape) * 1e-6
    assert top_accuracy(distinct, labels, 5) == sk.top_k_accuracy_score(labels, distinct, k=5)


def test_outputs_that_tell_no_class_from_another_are_no_top_five():
    labels = np.array([0, 3, 7])
    saturated = np.eye(10, dtype=np.float32)[[0, 0, 0]]
    assert top_accuracy(saturated, labels, 5) == pytest.approx(1 / 3), "only the first is told"
    assert top_accuracy(np.full((3, 10), 0.1), labels, 5) == 0
    tied = np.array([[0.3, 0.2, 0.2, 0.2, 0.1, 0, 0]])
    assert [top_accuracy(tied, np.array([k]), 5) for k in range(7)] == [1, 1, 1, 1, 1, 0, 0]
    assert [top_accuracy(tied, np.array([k]), 3) for k in range(5)] == [1, 0, 0, 0, 0]


def test_a_class_that_validation_lacks_does_not_spoil_the_means():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    found = validation_metrics(probabilities, np.array([0, 1, 1]))
    assert found["val_balanced_accuracy"] == 0.75
    assert found["val_macro_f1"] == pytest.approx(2 / 3)
    assert found["val_auc"] == 1.0
    assert np.isnan(macro_auc(probabilities, np.array([1, 1, 1])))


def test_the_objectives_are_what_an_epoch_reports():
    probabilities = np.full((12, 6), 1 / 6)
    assert set(validation_metrics(probabilities, np.arange(12) % 6)) == set(OBJECTIVES)
    check_objective("val_top5_accuracy", 6, "x")
    with pytest.raises(InputError, match="at least 6 classes. Received: x with 5"):
        check_objective("val_top5_accuracy", 5, "x")


@pytest.mark.parametrize("zoom", [0.0, 0.1])
def test_a_model_that_cannot_be_compiled_says_so(task, zoom):
    """Keras trains it without, and warns; a record of `jit on` alone would not be true."""
    params = cnn_blocks.SPACE.complete(
        {"num_blocks": 1, "filters_0": 8, "augmentation": zoom > 0,
         **({"augmentation_zoom": zoom} if zoom else {})}
    )  # fmt: skip
    asked = changed(task, space="cnn_blocks", params=params, num_epochs=1, jit="on")
    result, _ = run(asked)
    assert (NOT_COMPILED in result.adaptations) == (zoom > 0)
    without, _ = run(changed(asked, jit="off"))
    assert NOT_COMPILED not in without.adaptations
