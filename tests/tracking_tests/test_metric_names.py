"""What metrics are called in MLflow: sections for new sweeps, plain names for earlier ones."""

from __future__ import annotations

import pytest

from tracking.metric_names import MetricNames

GROUPED = MetricNames(True, "val_accuracy")
REPORT = {
    "epoch": 2.0, "loss": 0.1, "val_accuracy": 0.9, "learning_rate": 1e-3, "epoch_seconds": 2.0,
    "images_per_second": 9.0, "compile_seconds": 1.0, "latency_ms": 3.0, "system/gpu_x": 5.0,
    "my/metric": 1.0, "best_f1": 2.0, "epoch/loss": 3.0, "sweep/x": 4.0, "winner_x": 5.0,
}  # fmt: skip
END = {
    "best_val_accuracy": 0.9, "best_val_loss": 0.3, "best_loss": 0.1, "best_epoch": 2.0,
    "num_epochs": 3.0, "num_parameters": 10.0, "model_bytes": 40.0, "training_seconds": 7.0,
    "test_accuracy": 0.8, "test_loss": 0.5, "accuracy": 0.7, "loss": 0.2,
}  # fmt: skip


def test_each_metric_has_a_section_and_the_objective_is_the_only_best_value():
    assert GROUPED.report(REPORT, 2) == {
        "epoch/loss": 0.1, "epoch/val_accuracy": 0.9, "epoch/learning_rate": 1e-3,
        "training/epoch_seconds": 2.0, "training/images_per_second": 9.0,
        "training/compile_seconds": 1.0, "model/latency_ms": 3.0, "system/gpu_x": 5.0,
        "epoch/my/metric": 1.0, "epoch/best_f1": 2.0, "epoch/epoch/loss": 3.0,
        "epoch/sweep/x": 4.0, "epoch/winner_x": 5.0,
    }  # fmt: skip
    found = GROUPED.end(END)
    assert found == {
        "best/val_accuracy": 0.9, "training/best_epoch": 2.0, "training/epochs": 3.0,
        "model/parameters": 10.0, "model/bytes": 40.0, "training/seconds": 7.0,
        "test/accuracy": 0.8, "test/loss": 0.5,
    }  # fmt: skip
    assert min([*found, *GROUPED.report(REPORT, 2)]) == "best/val_accuracy"  # As MLflow sorts.
    of_sweep = {"num_complete": 3.0, "winner_test_accuracy_mean": 0.9, "system/gpu_0_x": 1.0}
    assert list(GROUPED.end(of_sweep)) == [
        "sweep/num_complete", "winner/test_accuracy_mean", "system/gpu_0_x",
    ]  # fmt: skip


def test_the_number_of_epochs_is_a_metric_only_where_the_step_does_not_say_it():
    assert GROUPED.report({"epoch": 0.25}, 1) == {"epoch/epoch": 0.25}
    assert GROUPED.report({"epoch": 1.0}, 4) == {"epoch/epoch": 1.0}
    assert GROUPED.report({"epoch": 4.0}, 4) == {}


def test_plain_names_come_back():
    report = {name: value for name, value in REPORT.items() if name != "epoch"}
    assert GROUPED.plain(GROUPED.report(report, 2)) == report
    kept = {k: END[k] for k in END if k not in ("best_val_loss", "best_loss", "accuracy", "loss")}
    assert GROUPED.plain(GROUPED.end(kept)) == kept
    ends = {"winner_val_accuracy_mean": 0.5, "num_pruned": 1.0, "published_test_loss": 2.0}
    assert GROUPED.plain(GROUPED.end(ends)) == ends


def test_an_earlier_sweep_keeps_its_plain_names_whatever_they_look_like():
    names = MetricNames.of({"sweeps.kind": "trial"})
    assert names == MetricNames.of(names.tags) == MetricNames()
    assert names.report(REPORT, 2) == names.plain(REPORT) == REPORT
    assert names.end(END) == END
    assert MetricNames.of(GROUPED.tags) == GROUPED


@pytest.mark.parametrize("name", ["n" * 250, "n" * 244, "a%b", "../up"])
def test_what_mlflow_refuses_is_renamed_behind_its_section(name):
    assert GROUPED.of_report(name).startswith("epoch/")
    assert len(GROUPED.of_report(name)) <= 250
    assert (GROUPED.of_report(name) == f"epoch/{name}") is (name == "n" * 244)
