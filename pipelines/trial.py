"""One trial: build the model of a point, train it epoch by epoch, report, keep the best epoch."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.evaluation import accuracy, cross_entropy, predict
from pipelines.objectives import Objective
from pipelines.prepared import PreparedData
from pipelines.trial_files import HISTORY_FILE, MODEL_FILE, PREDICTIONS_FILE, SUMMARY_FILE
from search_spaces.hyperparameters import Params
from search_spaces.registry import get_space

if TYPE_CHECKING:
    import keras


class NonFiniteLossError(ArithmeticError):
    """The training loss became NaN or infinite."""


@dataclass(frozen=True)
class TrialTask:
    """All that a worker needs to train one trial.

    Attributes:
        params: a complete point of the space.
        num_epochs: the budget, and the span of a learning rate schedule.
        seed: of weights, dropout, augmentation and, with the epoch's number, of shuffling.
        patience: epochs without improvement of the objective after which training stops; None
            for never.
        folder: where the trial leaves its files; it exists.
    """

    number: int
    space: str
    params: Params
    data: PreparedData
    num_epochs: int
    seed: int
    objective: Objective
    folder: str
    patience: int | None = None


@dataclass(frozen=True)
class EpochReport:
    """What one epoch measured; `epoch` counts from 1.

    `metrics` holds loss and accuracy (training, averaged over the epoch), val_loss and
    val_accuracy, learning_rate (at the epoch's end), epoch_seconds, and images_per_second
    (training only).
    """

    number: int
    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended; `metrics` are those of its best epoch, whose weights are the model's."""

    number: int
    value: float
    best_epoch: int
    num_epochs: int
    metrics: dict[str, float]
    num_parameters: int
    model_bytes: int
    training_seconds: float
    device: str
    stopped_by: str
    adaptations: tuple[str, ...] = ()
    history: tuple[EpochReport, ...] = field(default=(), repr=False)


def run_trial(
    task: TrialTask, report: Callable[[EpochReport], bool], device: str = "cpu"
) -> TrialResult:
    """Trains one trial and leaves its model, curves, summary and predictions in its folder.

    Args:
        report: called after every epoch; answers whether to go on.

    Raises:
        NonFiniteLossError: The loss became NaN or infinite; nothing is kept.
    """
    started = time.perf_counter()
    space, data = get_space(task.space), task.data
    x_train, y_train = data.arrays("train")
    x_validation, y_validation = data.arrays("validation")
    batch_size = int(task.params["batch_size"])
    steps = math.ceil(len(x_train) / batch_size) * task.num_epochs
    model = space.build(task.params, data.input_shape, data.num_classes, num_steps=steps)

    history: list[EpochReport] = []
    best: EpochReport | None = None
    best_weights: list[np.ndarray] = []
    best_probabilities = np.empty(0)
    stopped_by = "epochs"
    for epoch in range(1, task.num_epochs + 1):
        metrics = train_epoch(model, x_train, y_train, batch_size, task.seed, epoch)
        probabilities = predict(model, x_validation)
        if not np.isfinite(probabilities).all():
            # Weights can overflow in an epoch's last step, when its mean loss is still finite.
            raise NonFiniteLossError(f"The model predicts NaN or infinity after epoch {epoch}.")
        metrics["val_loss"] = cross_entropy(probabilities, y_validation)
        metrics["val_accuracy"] = accuracy(probabilities, y_validation)
        current = EpochReport(task.number, epoch, metrics)
        history.append(current)
        if best is None or task.objective.better(metrics, best.metrics):
            best, best_weights, best_probabilities = current, model.get_weights(), probabilities
        go_on = report(current)
        if not go_on:
            stopped_by = "driver"
            break
        if task.patience is not None and epoch - best.epoch >= task.patience:
            stopped_by = "early stopping"
            break
    assert best is not None
    model.set_weights(best_weights)
    seconds = time.perf_counter() - started

    folder = Path(task.folder)
    model.save(folder / MODEL_FILE)
    summary: list[str] = []
    model.summary(print_fn=summary.append)
    (folder / SUMMARY_FILE).write_text("\n".join(summary) + "\n", encoding="utf-8")
    np.savez(folder / PREDICTIONS_FILE, probabilities=best_probabilities)
    _write_history(folder / HISTORY_FILE, history)
    return TrialResult(
        number=task.number,
        value=task.objective.value(best.metrics),
        best_epoch=best.epoch,
        num_epochs=len(history),
        metrics=best.metrics,
        num_parameters=model.count_params(),
        model_bytes=(folder / MODEL_FILE).stat().st_size,
        training_seconds=seconds,
        device=device,
        stopped_by=stopped_by,
        adaptations=space.adaptations(task.params, data.input_shape),
        history=tuple(history),
    )


def train_epoch(
    model: keras.Model, x: np.ndarray, y: np.ndarray, batch_size: int, seed: int, epoch: int
) -> dict[str, float]:
    """One epoch in an order that follows from the seed and the epoch's number alone.

    So a run that was interrupted between epochs can go on exactly as if it had not been.

    Raises:
        NonFiniteLossError: The loss became NaN or infinite.
    """
    import keras

    started = time.perf_counter()
    order = np.random.default_rng([seed, epoch]).permutation(len(x))
    history = model.fit(
        np.asarray(x)[order],
        y[order],
        batch_size=batch_size,
        epochs=epoch,
        initial_epoch=epoch - 1,
        shuffle=False,
        verbose=0,
        callbacks=[keras.callbacks.TerminateOnNaN()],
    ).history
    seconds = time.perf_counter() - started
    metrics = {name: float(values[-1]) for name, values in history.items()}
    if not math.isfinite(metrics["loss"]):
        raise NonFiniteLossError(f"The training loss became {metrics['loss']} in epoch {epoch}.")
    metrics["learning_rate"] = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    metrics["epoch_seconds"] = seconds
    metrics["images_per_second"] = len(x) / seconds
    return metrics


def _write_history(path: Path, history: list[EpochReport]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *history[0].metrics])
        writer.writerows([r.epoch, *r.metrics.values()] for r in history)
