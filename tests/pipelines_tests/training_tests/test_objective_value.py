"""Objectives of the user's own: what `fit` returns, and the metrics that a model is compiled with."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import user_objectives

from pipelines.models.user_model_check import look_at_space
from pipelines.objectives import get_objective
from pipelines.training.epoch import NonFiniteLossError
from pipelines.training.objective_value import MissingObjectiveError
from pipelines.training.reports import Reports
from pipelines.training.trial import Decision, Schedule, TrialTask, run_trial
from search_spaces.user_spaces.fit_values import returned_values
from search_spaces.user_spaces.reference import find_reference
from search_spaces.user_spaces.source import TunerSource

FILE = user_objectives.__file__
SHAPE = (8, 8, 1)


def trained(data, folder, name, objective, schedule=None):
    reports = []

    def go_on(report):
        reports.append(report.metrics)
        return Decision.GO_ON

    task = TrialTask(
        0, find_reference(f"{FILE}:{name}").text, {"units": 8}, data, schedule or Schedule(3), 5,
        get_objective(objective), str(folder),
    )  # fmt: skip
    return run_trial(task, go_on), reports


def test_a_number_that_fit_returns_is_minimised(tiny_data, tmp_path):
    result, reports = trained(tiny_data, tmp_path, "Number", "default_objective")
    assert [metrics["default_objective"] for metrics in reports] == [1, 0, 1]
    assert (result.value, result.best_epoch) == (0, 2)
    assert 0 < result.metrics["val_accuracy"] <= 1, "recorded as ever"


@pytest.mark.parametrize(
    ("name", "best"), [("val_error:min", min), ("val_error:max", max), ("thrift:max", max)]
)
def test_a_value_of_a_dict_has_the_direction_that_was_asked_for(tiny_data, tmp_path, name, best):
    result, reports = trained(tiny_data, tmp_path, "Dictionary", name)
    metric = name.partition(":")[0]
    assert result.value == best(metrics[metric] for metrics in reports)
    for metrics in reports:
        assert np.isclose(metrics["val_error"], 1 - metrics["val_accuracy"], atol=1e-6)


@pytest.mark.parametrize("reports", [Reports(), Reports(4, (2,))])
def test_a_compiled_metric_is_measured_on_the_validation_images(tiny_data, tmp_path, reports):
    schedule = Schedule(2, reports=reports)
    result, found = trained(tiny_data, tmp_path, "top_two", "val_top_two:max", schedule)
    labels = tiny_data.arrays("validation")[1]
    with np.load(tmp_path / "predictions.npz") as file:
        best_two = np.argsort(file["probabilities"], axis=1)[:, -2:]
    assert np.isclose(result.value, (best_two == labels[:, None]).any(axis=1).mean())
    assert all(metrics["val_top_two"] >= metrics["val_accuracy"] for metrics in found)
    assert len(found) == (2 if reports == Reports() else 3)


def test_an_epoch_without_the_objective_fails_and_says_so(tiny_data, tmp_path):
    with pytest.raises(MissingObjectiveError, match="Epoch 1 gave no 'val_f1'.* Return it from"):
        trained(tiny_data, tmp_path, "Nothing", "val_f1:max")
    with pytest.raises(NonFiniteLossError, match="'default_objective' became nan after epoch 1"):
        trained(tiny_data, tmp_path, "NotFinite", "default_objective")


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("top_two", {"loss", "accuracy", "top_two", "val_loss", "val_accuracy", "val_top_two"}),
        ("Number", {"default_objective", "loss", "accuracy", "val_loss", "val_accuracy"}),
        ("Nothing", {"loss", "accuracy", "val_loss", "val_accuracy"}),
    ],
)
def test_what_a_space_measures_is_known_before_the_sweep(name, there):
    source = TunerSource(find_reference(f"{FILE}:{name}"), SHAPE, 3)
    assert look_at_space(source) == ()
    assert set(source.own_metrics) == there


def test_what_a_fit_may_return():
    history = keras.callbacks.History()
    history.history = {"loss": [3.0, 2.0], "note": ["text"], "empty": []}
    assert returned_values(history) == {"loss": 2.0}
    assert returned_values({"a": np.float32(0.5), 3: 1}) == {"a": 0.5, "3": 1.0}
    assert returned_values(np.float64(2)) == {"default_objective": 2.0}
    for nothing in (None, "text", object(), np.zeros(3)):
        assert returned_values(nothing) == {}
