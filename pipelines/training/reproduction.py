"""Trains a published model exactly as published and reads the test split, as its authors did."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.data.prepared import PreparedData
from pipelines.evaluation.metrics import PREDICT_BATCH, predict, validation_metrics
from pipelines.runtime.compute import DEFAULT_COMPUTE, Compute
from pipelines.training.checkpoints import MODEL_FILE, EpochReport
from pipelines.training.epoch import Training, set_jit, train_epoch
from pipelines.training.feeding import JoinedRows
from pipelines.training.loops import epoch_loop
from search_spaces.registry import get_space
from search_spaces.space import Baseline


@dataclass(frozen=True)
class ReproductionTask:
    """One published model to train; `num_epochs` is the published number unless overridden."""

    number: int
    baseline: Baseline
    data: PreparedData
    seed: int
    folder: str
    num_epochs: int
    compute: Compute = DEFAULT_COMPUTE


@dataclass(frozen=True)
class ReproductionResult:
    """What the model reached on the test split after its last epoch, as published."""

    number: int
    test_accuracy: float
    test_loss: float
    num_parameters: int
    training_seconds: float
    device: str


def reproduce(
    task: ReproductionTask,
    report: Callable[[EpochReport], bool],
    device: str,
    *,
    resident_bytes: int | None = None,
) -> ReproductionResult:
    """Trains on what the publication trained on, saves and loads again where it did, evaluates."""
    import keras

    started = time.perf_counter()
    baseline, data = task.baseline, task.data
    x: np.ndarray | JoinedRows
    x, y = data.arrays("train")
    x_validation, y_validation = data.arrays("validation")
    if baseline.train_on == "train+validation":
        x, y = JoinedRows([x, x_validation]), np.concatenate([y, y_validation])
    assembled = get_space(baseline.space).assembled(
        baseline.params, data.input_shape, data.num_classes, len(x), task.num_epochs
    )
    model, training = assembled.model, Training(x, y, data.num_classes, task.seed)
    set_jit(model, task.compute.jit)
    loop = epoch_loop(assembled, training, resident_bytes=resident_bytes)
    for epoch in range(1, task.num_epochs + 1):
        metrics = train_epoch(assembled, loop, training, epoch)
        if baseline.train_on == "train":
            probabilities = predict(model, x_validation)
            metrics |= validation_metrics(probabilities, y_validation)
        report(EpochReport(task.number, epoch, metrics))
    if baseline.reload:
        path = Path(task.folder) / MODEL_FILE
        model.save(path)
        model = keras.models.load_model(path)
        path.unlink()
    test = model.evaluate(
        *data.arrays("test"), batch_size=PREDICT_BATCH, verbose=0, return_dict=True
    )
    return ReproductionResult(
        number=task.number,
        test_accuracy=float(test["accuracy"]),
        test_loss=float(test["loss"]),
        num_parameters=model.count_params(),
        training_seconds=time.perf_counter() - started,
        device=device,
    )
