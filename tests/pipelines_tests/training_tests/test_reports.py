"""When a trial reports, what is trained between, and that parts of epochs are exact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.objectives import OBJECTIVES
from pipelines.training.checkpoints import CHECKPOINT_FILE, PREDICTIONS_FILE
from pipelines.training.epoch import Stretch
from pipelines.training.feeding import evenly_spread
from pipelines.training.reports import EVERY_EPOCH, Reports
from pipelines.training.trial import Decision, Schedule, TrialTask, run_trial
from search_spaces.registry import get_space

NINTHS = Reports(9, (1, 3))


def test_a_trial_reports_within_its_first_epoch_and_then_after_each():
    steps, step = [], 0
    while step < 27:
        step = NINTHS.next_step(step)
        steps.append(step)
    assert steps == [1, 3, 9, 18, 27]
    assert [NINTHS.text(step) for step in steps] == ["0.11", "0.33", "1", "2", "3"]
    assert [NINTHS.is_early(step) for step in steps] == [True, True, False, False, False]
    assert [EVERY_EPOCH.next_step(step) for step in range(3)] == [1, 2, 3]


def test_only_what_was_measured_on_the_same_images_is_compared():
    curve = {1: 0.99, 3: 0.98, 9: 0.5, 18: 0.7, 27: 0.6}
    assert NINTHS.comparable(curve, 3) == [0.98]
    assert NINTHS.comparable(curve, 18) == [0.5, 0.7]
    assert EVERY_EPOCH.comparable({1: 0.1, 2: 0.2, 3: 0.3}, 2) == [0.1, 0.2]


@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 3))
def test_the_parts_of_an_epoch_are_the_epoch_in_whole_batches(num_images, batch_size, halvings):
    per_epoch = 3**halvings
    reports = Reports(per_epoch, tuple(3**k for k in range(halvings)))
    order, found, step = np.arange(num_images), [], 0
    while step < per_epoch:
        stretch = Stretch.after(step, reports)
        rows = stretch.rows(order, batch_size)
        step = reports.next_step(step)
        assert stretch.epoch == 1
        found += list(rows)
        assert len(found) % batch_size == 0 or len(found) == num_images
    assert found == list(order)
    assert Stretch.after(per_epoch, reports).is_whole
    assert Stretch.after(per_epoch, reports).epoch == 2


def test_early_validation_keeps_the_shares_of_the_classes_and_is_always_the_same():
    labels = np.repeat([0, 1, 2, 3], [600, 300, 99, 1])
    rows = evenly_spread(labels, 100)
    np.testing.assert_array_equal(np.bincount(labels[rows]), [60, 30, 10, 1])
    np.testing.assert_array_equal(rows, evenly_spread(labels, 100))
    np.testing.assert_array_equal(evenly_spread(labels, 1000), np.arange(1000))


def make_task(data, folder: Path, reports: Reports) -> TrialTask:
    folder.mkdir(exist_ok=True)
    params = get_space("cnn_blocks").complete(
        {"num_blocks": 1, "batch_size": 32, "dropout_0": 0.2, "batch_norm_0": True,
         "optimizer": "adam"}
    )  # fmt: skip
    schedule = Schedule(3, reports=reports)
    objective = OBJECTIVES["val_accuracy"]
    return TrialTask(3, "cnn_blocks", params, data, schedule, 11, objective, str(folder))


def run(task: TrialTask, until: int = 99) -> tuple:
    keras.utils.set_random_seed(task.seed)
    reports = []

    def report(message):
        reports.append(message)
        return Decision.PAUSE if message.step >= until else Decision.GO_ON

    return run_trial(task, report), reports


TIMES = ("epoch_seconds", "images_per_second", "compile_seconds")


def numbers(reports) -> list[tuple]:
    return [
        (r.step, {name: value for name, value in r.metrics.items() if name not in TIMES})
        for r in reports
    ]


THIRDS = Reports(3, (1,))


def test_weights_are_those_of_training_without_early_reports(tiny_data, tmp_path):
    _, parts = run(make_task(tiny_data, tmp_path / "parts", THIRDS))
    _, whole = run(make_task(tiny_data, tmp_path / "whole", EVERY_EPOCH))
    assert [r.step for r in parts] == [1, 3, 6, 9]
    assert [r.metrics["epoch"] for r in parts] == [pytest.approx(1 / 3), 1, 2, 3]
    for part, epoch in zip(parts[1:], whole, strict=True):
        measured = [
            {n: v for n, v in r.metrics.items() if n.startswith("val_")} for r in (part, epoch)
        ]
        assert measured[0] == measured[1]
    # After the first epoch the training metrics are of the same images, too.
    assert numbers(parts[2:])[0][1] == numbers(whole[1:])[0][1]


@pytest.mark.parametrize("until", [1, 3, 6])
def test_a_trial_that_pauses_at_any_report_goes_on_as_if_it_had_not(tiny_data, tmp_path, until):
    whole, reference = run(make_task(tiny_data, tmp_path / "whole", THIRDS))
    task = make_task(tiny_data, tmp_path / "parts", THIRDS)
    paused, first = run(task, until)
    assert paused.stopped_by == "pause"
    assert paused.num_epochs == pytest.approx(until / 3)
    again, rest = run(replace(task, reported_step=until))
    assert numbers(rest[:1]) == numbers(first[-1:]), "the last report is repeated"
    assert numbers([*first, *rest[1:]]) == numbers(reference)
    assert (again.value, again.best_epoch) == (whole.value, whole.best_epoch)


def test_what_was_measured_within_the_first_epoch_is_not_the_best_once_an_epoch_is_whole(
    tiny_data, tmp_path
):
    task = make_task(tiny_data, tmp_path / "trial", THIRDS)
    paused, _ = run(task, 1)
    assert paused.best_epoch == pytest.approx(1 / 3)
    assert not (tmp_path / "trial" / PREDICTIONS_FILE).exists(), "they are of fewer images"
    result, _ = run(replace(task, reported_step=1))
    assert result.best_epoch in (1, 2, 3)
    rows = (tmp_path / "trial" / "curves.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in rows] == ["epoch", "0.3333333333333333", "1", "2", "3"]


def test_a_checkpoint_of_other_reports_is_not_used(tiny_data, tmp_path):
    task = make_task(tiny_data, tmp_path / "trial", THIRDS)
    run(task, 1)
    other = replace(task, schedule=replace(task.schedule, reports=EVERY_EPOCH))
    assert (tmp_path / "trial" / CHECKPOINT_FILE).exists()
    assert task.identity != other.identity
    _, reports = run(other)
    assert [r.step for r in reports] == [1, 2, 3]
