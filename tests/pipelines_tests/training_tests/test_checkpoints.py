"""A continued trial equals an uninterrupted one, and a checkpoint survives what can happen to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from changed_tasks import changed

from pipelines.objectives import OBJECTIVES
from pipelines.runtime.process import set_precision
from pipelines.training.checkpoints import (
    CHECKPOINT_FILE,
    MODEL_FILE,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from pipelines.training.reports import TrialReport
from pipelines.training.trial import Decision, Schedule, TrialResult, TrialTask, run_trial
from search_spaces.registry import get_space

# Everything that has a state: momentum, batch normalisation, dropout, augmentation, schedules.
POINTS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "augmentation": True, "augmentation_zoom": 0.1,
             "schedule": "cosine", "batch_norm_0": True},
    "rmsprop": {"optimizer": "rmsprop", "rmsprop_momentum": 0.9, "batch_norm_0": True},
    "sgd": {"optimizer": "sgd", "sgd_momentum": 0.9, "schedule": "cosine", "warmup_share": 0.2},
    "nadam": {"optimizer": "nadam", "augmentation": True},
    "adamw": {"optimizer": "adamw", "adamw_weight_decay": 0.001},
}  # fmt: skip


def make_task(tiny_data: Any, folder: Path, point: dict[str, Any]) -> TrialTask:
    folder.mkdir()
    space = get_space("cnn_blocks")
    params = space.complete({"num_blocks": 1, "batch_size": 32, "dropout_0": 0.2, **point})
    return TrialTask(
        3, "cnn_blocks", params, tiny_data, Schedule(4), 11, OBJECTIVES["val_accuracy"], str(folder)
    )


class Driver:
    """Decides on reports, and stops at an epoch in the way it is told."""

    def __init__(self, until: int = 99, answer: Decision = Decision.PAUSE, *, dies: bool = False):
        self.reports: list[TrialReport] = []
        self._until, self._answer, self._dies = until, answer, dies

    def __call__(self, report: TrialReport) -> Decision:
        self.reports.append(report)
        if report.step < self._until:
            return Decision.GO_ON
        if self._dies:
            raise KeyboardInterrupt
        return self._answer

    def numbers(self) -> list[tuple[int, float, float]]:
        return [(r.step, r.metrics["loss"], r.metrics["val_loss"]) for r in self.reports]


def run(task: TrialTask, driver: Driver) -> TrialResult:
    keras.utils.set_random_seed(task.seed)
    return run_trial(task, driver)


@pytest.mark.parametrize("name", POINTS)
def test_a_continued_trial_equals_an_uninterrupted_one(tiny_data, tmp_path, name):
    whole, parts = Driver(), Driver(2)
    reference = run(make_task(tiny_data, tmp_path / "whole", POINTS[name]), whole)
    task = make_task(tiny_data, tmp_path / "parts", POINTS[name])
    paused = run(task, parts)
    assert paused.stopped_by == "pause" and paused.num_epochs == 2
    assert not (tmp_path / "parts" / MODEL_FILE).exists()
    # The global random state of another process, in another place.
    keras.utils.set_random_seed(999)
    np.random.default_rng().random()
    rest = Driver()
    result = run_trial(replace(task, reported_step=2), rest)
    assert rest.numbers()[0] == parts.numbers()[-1], "the last report is said again"
    assert parts.numbers() + rest.numbers()[1:] == whole.numbers()
    assert (result.value, result.best_epoch) == (reference.value, reference.best_epoch)
    one, other = (
        keras.models.load_model(tmp_path / part / MODEL_FILE) for part in ("whole", "parts")
    )
    for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_trial_of_mixed_precision_continues_as_well(tiny_data, tmp_path, precision):
    """With float16 the optimizer holds the scale of the loss, too."""
    whole, parts, rest = Driver(), Driver(2), Driver()
    try:
        set_precision(precision)
        task = changed(
            make_task(tiny_data, tmp_path / "whole", POINTS["adam"]), precision=precision, jit="off"
        )
        run(task, whole)
        task = changed(
            make_task(tiny_data, tmp_path / "parts", POINTS["adam"]), precision=precision, jit="off"
        )
        run(task, parts)
        run_trial(replace(task, reported_step=2), rest)
    finally:
        set_precision("float32")
    assert parts.numbers() + rest.numbers()[1:] == whole.numbers()
    model = keras.models.load_model(tmp_path / "whole" / MODEL_FILE)
    policies = {layer.dtype_policy.name for layer in model.layers}
    assert policies == {precision, "float32"} and model.layers[-1].compute_dtype == "float32"


def test_an_epoch_that_was_trained_but_not_recorded_is_reported_and_not_trained_again(
    tiny_data, tmp_path, monkeypatch
):
    task = make_task(tiny_data, tmp_path / "trial", POINTS["adam"])
    first = Driver(3, dies=True)
    with pytest.raises(KeyboardInterrupt):
        run(task, first)
    # The driver died with the third report: it knows of two epochs, the checkpoint of three.
    import pipelines.training.trial as trial

    trained = []
    original = trial.train_stretch

    def counting(*args: Any, **options: Any) -> dict[str, float]:
        trained.append(args[-1])
        return original(*args, **options)

    monkeypatch.setattr(trial, "train_stretch", counting)
    again = Driver()
    run(replace(task, reported_step=2), again)
    assert [stretch.epoch for stretch in trained] == [4]
    assert [r.step for r in again.reports] == [3, 4]
    assert again.reports[0] == first.reports[-1]


def test_without_its_checkpoint_a_trial_starts_over_and_repeats_no_report(tiny_data, tmp_path):
    task = make_task(tiny_data, tmp_path / "trial", POINTS["adam"])
    first = Driver(2)
    run(task, first)
    path = tmp_path / "trial" / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:-200])
    again = Driver()
    run(replace(task, reported_step=2), again)
    assert [r.step for r in again.reports] == [2, 3, 4]
    assert again.numbers()[0] == first.numbers()[-1]


@pytest.mark.parametrize("decision", [Decision.STOP, Decision.ENOUGH])
def test_the_driver_ends_a_trial_for_good_or_as_complete(tiny_data, tmp_path, decision):
    task = make_task(tiny_data, tmp_path / "trial", POINTS["adam"])
    result = run(task, Driver(1, decision))
    assert result.stopped_by == decision.value and result.num_epochs == 1
    assert (tmp_path / "trial" / MODEL_FILE).exists() == (decision is Decision.ENOUGH)


def checkpoint(identity: str = "a") -> Checkpoint:
    report = TrialReport(0, 1, {"loss": 0.5, "val_loss": float("nan")})
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64)]
    return Checkpoint(identity, (report,), 1, 2.5, arrays, arrays[:1], arrays, np.eye(2))


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    save_checkpoint(tmp_path / "c.npz", checkpoint())
    found = load_checkpoint(tmp_path / "c.npz", "a")
    assert found is not None
    assert (found.best_step, found.seconds, found.history[0].step) == (1, 2.5, 1)
    for mine, theirs in zip(checkpoint().model, found.model, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    assert list(tmp_path.iterdir()) == [tmp_path / "c.npz"]


def test_checkpoints_that_cannot_be_used_are_not(tmp_path):
    path = tmp_path / "c.npz"
    assert load_checkpoint(path, "a") is None
    save_checkpoint(path, checkpoint())
    assert load_checkpoint(path, "another trial") is None
    content = path.read_bytes()
    for damage in (b"", content[:50], content[: len(content) // 2], b"x" * 500):
        path.write_bytes(damage)
        assert load_checkpoint(path, "a") is None
    flipped = bytearray(content)
    flipped[len(content) // 3] ^= 255
    path.write_bytes(bytes(flipped))
    assert load_checkpoint(path, "a") is None


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.npz"
    save_checkpoint(path, checkpoint())
    before = path.read_bytes()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipelines.runtime.filesystem.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, checkpoint())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
