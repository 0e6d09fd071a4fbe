"""One trial: build the model of a point, train it, report as it goes, keep the best epoch.

A trial can end after any report and continue in another process exactly where it was.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from pipelines.data.prepared import PreparedData
from pipelines.evaluation.latency import latency_ms, latency_or_none
from pipelines.evaluation.metrics import (
    PREDICT_BATCH,
    accuracy,
    cross_entropy,
    predict,
    validation_metrics,
)
from pipelines.evaluation.predictions import write_predictions
from pipelines.models.input_scale import decided
from pipelines.models.keras_files import load_saved_model, store_model
from pipelines.objectives import Objective
from pipelines.training.checkpoints import (
    ANSWERS_FILE,
    CHECKPOINT_FILE,
    HISTORY_FILE,
    MODEL_FILE,
    PREDICTIONS_FILE,
    SUMMARY_FILE,
    TEST_FILE,
    Checkpoint,
    assign_arrays,
    load_checkpoint,
    model_arrays,
    save_checkpoint,
)
from pipelines.training.device_prediction import DevicePixels, Predictor, room_beside
from pipelines.training.epoch import (
    NonFiniteLossError,
    Stretch,
    Training,
    set_jit,
    train_stretch,
)
from pipelines.training.feeding import (
    STREAM_ABOVE_BYTES,
    JoinedRows,
    Pixels,
    class_weight,
    evenly_spread,
    part_of,
)
from pipelines.training.loops import EpochLoop, epoch_loop
from pipelines.training.measured_weights import MeasuredWeights
from pipelines.training.objective_value import check_value, compiled_values
from pipelines.training.options import DEFAULT_TRAINING, FITTED, TrainingOptions
from pipelines.training.reports import EVERY_EPOCH, Reports, TrialReport
from search_spaces.cost import quantities_of
from search_spaces.files import UnusableFileError, read_json
from search_spaces.hyperparameters import Params
from search_spaces.registry import earlier_name, get_space
from search_spaces.user_spaces.reference import Sources, check_sources

TrainOn = Literal["train", "train+validation"]
EARLY_VALIDATION_IMAGES = 2500
"""Below a whole epoch a trial is measured on so many validation images at most, always the same:
all of MNIST's would take more than half as long as a ninth of an epoch. The standard error of an
accuracy of 0.97 on them is 0.0034, a third of what trials differ in that early (docs/log.md)."""
NOT_COMPILED = "not compiled: a layer of it does not support that"


class Decision(StrEnum):
    """The answer to a report: train on, end here for now (a checkpoint waits), or end for good.

    ENOUGH ends a trial as complete: it has reached what was asked for.
    """

    GO_ON = "go on"
    PAUSE = "pause"
    STOP = "stop"
    ENOUGH = "enough"


@dataclass(frozen=True)
class Schedule:
    """What one trial trains on, for how long, and what is measured at its end.

    Attributes:
        num_epochs: the full budget, and the span of a learning rate schedule.
        train_on: `train+validation` trains on both parts; then nothing validates.
        last_epoch: where training ends when that is before the schedule's span does.
        keep: whose weights are the model's: those of the epoch with the best objective, or of the
            last one; always of the last one where nothing validates.
        reload: whether the test split is measured with the model saved and loaded again.
        measure_test: whether the finished model is measured on the test split, once.
        reports: when it reports, and can end or wait.
    """

    num_epochs: int
    train_on: TrainOn = "train"
    last_epoch: int | None = None
    keep: Literal["best", "last"] = "best"
    reload: bool = False
    measure_test: bool = False
    reports: Reports = EVERY_EPOCH

    @property
    def validates(self) -> bool:
        """Whether there are images that do not train."""
        return self.train_on == "train"

    @property
    def keeps_last(self) -> bool:
        """Whether the last epoch's weights are the model's."""
        return self.keep == "last" or not self.validates

    @property
    def end_epoch(self) -> int:
        """The epoch after which training ends."""
        return self.num_epochs if self.last_epoch is None else self.last_epoch

    @property
    def end_step(self) -> int:
        """The step after which training ends."""
        return self.end_epoch * self.reports.per_epoch


@dataclass(frozen=True)
class TrialTask:
    """All that a worker needs to train one trial, or to continue it.

    Attributes:
        params: a complete point of the space.
        seed: of weights, dropout, augmentation and, with the epoch's number, of shuffling.
        folder: where the trial leaves its files and its checkpoint; it exists.
        reported_step: the last step that was reported in an earlier life of the trial. It is
            reported again, because its answer may have been lost; those before it are not.
        predict_batch: images per prediction step; smaller after memory ran out.
        stream_above: bytes of training pixels above which they are read from disk in every epoch.
        sources: the files of a user's space, which must not change under a sweep.
        measures: quantities (`sweeps.engines.limits`) that the first report is to have, as far as
            they are not known beforehand.
        recorded_space: what checkpoints call the space where `space` is a copy of it; empty for the
            same.
    """

    number: int
    space: str
    params: Params
    data: PreparedData
    schedule: Schedule
    seed: int
    objective: Objective
    folder: str
    training: TrainingOptions = DEFAULT_TRAINING
    reported_step: int = 0
    predict_batch: int = PREDICT_BATCH
    stream_above: int = STREAM_ABOVE_BYTES
    sources: Sources = ()
    measures: tuple[str, ...] = ()
    recorded_space: str = ""

    @property
    def identity(self) -> str:
        """What a checkpoint must belong to: everything that the trained numbers follow from."""
        schedule = self.schedule
        # Checkpoints of before the core spaces fit.
        space = self.recorded_space or earlier_name(self.space)
        parts = [space, self.params, self.data.fingerprint, schedule.num_epochs, self.seed,
                 self.objective.metric, schedule.train_on, *self.training.identity,
                 *schedule.reports.identity]  # fmt: skip
        return json.dumps(parts, sort_keys=True)


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended, or stands where it was paused.

    `metrics` are those of its best epoch, whose weights are the model's; `value` is NaN where
    nothing validated. Epochs are whole numbers, but for a trial that ended within its first one.
    `stopped_by` is `epochs`, `early stopping` or the driver's Decision. `test_metrics` holds
    test_accuracy and test_loss where the test split was read. `not_stored` says why a complete
    trial left no model. `pixels` is what a user's model was given, `raw` or `unit`. `latency_ms` is
    of one image, for complete trials whose model can be timed.
    """

    number: int
    value: float
    best_epoch: float
    num_epochs: float
    metrics: dict[str, float]
    num_parameters: int
    model_bytes: int
    training_seconds: float
    device: str
    stopped_by: str
    adaptations: tuple[str, ...] = ()
    test_metrics: dict[str, float] = field(default_factory=dict)
    not_stored: str = ""
    pixels: str = ""
    latency_ms: float | None = None


def run_trial(
    task: TrialTask,
    report: Callable[[TrialReport], Decision],
    device: str = "cpu",
    *,
    resident_bytes: int | None = None,
) -> TrialResult:
    """Trains one trial, from its checkpoint where there is one, and leaves its files.

    A checkpoint is written after every step with a report, before it is reported: what was reported
    is never lost, and what was not is reported when the trial continues.

    Args:
        report: called after every epoch and `early` step; returns how to go on.
        device: what it is called.
        resident_bytes: room for pixels on it; None for `task.stream_above`.

    Raises:
        NonFiniteLossError: The loss became NaN or infinite; nothing is kept.
        SourceChangedError: The space's files are not what they were.
    """
    training, patience = _Training(task, resident_bytes), task.training.early_stopping
    per_epoch = task.schedule.reports.per_epoch
    stopped_by = "epochs"
    while True:
        step = training.step
        if step and step >= task.reported_step:
            asked = time.perf_counter()
            decision = report(training.history[-1])
            training.waited_seconds += time.perf_counter() - asked
            if decision is not Decision.GO_ON:
                stopped_by = decision.value
                break
        if step >= task.schedule.end_step:
            break
        if patience is not None and step - training.best_step >= patience * per_epoch:
            stopped_by = "early stopping"
            break
        training.train_to_next_report()
    return training.finish(stopped_by, device)


class _Training:
    """A model in training with all that a checkpoint holds; starts where the last one ended."""

    def __init__(self, task: TrialTask, resident_bytes: int | None) -> None:
        self._started = time.perf_counter()
        self._resident_bytes = resident_bytes
        self._space = get_space(task.space)
        check_sources(task.sources)
        self._validates = task.schedule.validates
        num_images = task.data.num_images
        num_trained = num_images["train"] + (0 if self._validates else num_images["validation"])
        self._assembled = self._space.assembled(
            task.params, task.data.input_shape, task.data.num_classes,
            num_trained, task.schedule.num_epochs,
        )  # fmt: skip
        self._model = self._assembled.model
        # From here on as decided for this model: a checkpoint belongs to what it was trained with.
        training = decided(task.training, self._assembled, task.data.input_shape)
        self._task = task = replace(task, training=training)
        x, y = part_of(task.data, "train", task.training)
        self._validation = more_x, more_y = part_of(task.data, "validation", task.training)
        self._train: tuple[Pixels, np.ndarray] = x, y
        if not self._validates:
            self._train = JoinedRows([x, more_x]), np.concatenate([y, more_y])
        self._optimizer = getattr(self._model, "optimizer", None)
        set_jit(self._model, task.training.jit)
        self._training = Training(
            self._train[0],
            self._train[1],
            task.data.num_classes,
            task.seed,
            validation=self._validation if self._validates else None,
            class_weight=class_weight(self._train[1], task.training.class_weights),
            stream_above=task.stream_above,
            averages_apart=task.training.measured_weights == FITTED,
        )
        self._measured = (
            MeasuredWeights(self._model, self._train[0], self._optimizer, task.predict_batch)
            if task.training.measured_weights == FITTED
            else None
        )
        self._reports = task.schedule.reports
        if self._assembled.custom_fit is not None:  # It knows whole epochs only.
            self._reports = Reports(self._reports.per_epoch)
        self.history: list[TrialReport] = []
        self.best_step = 0
        self._best_weights: list[np.ndarray] = []
        self._best_probabilities = np.empty(0)
        self._earlier_seconds, self.waited_seconds = 0.0, 0.0
        self._is_compiled_here = False
        self._path = Path(task.folder) / CHECKPOINT_FILE
        found = load_checkpoint(self._path, task.identity)
        if found is not None:
            assign_arrays(self._model, found.model, found.optimizer)
            self.history = list(found.history)
            self.best_step = found.best_step
            self._best_weights = list(found.best_weights)
            self._best_probabilities = found.best_probabilities
            self._earlier_seconds = found.seconds

    @cached_property
    def _loop(self) -> EpochLoop | None:
        # Made when an epoch is to be trained: a trial may have had its last one.
        return epoch_loop(self._assembled, self._training, resident_bytes=self._resident_bytes)

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self._assembled, self._task.predict_batch)

    @cached_property
    def _validation_pixels(self) -> DevicePixels:
        given = self._resident_bytes
        room = self._task.stream_above if given is None else given
        return self._predictor.pixels(self._validation[0], room_beside(self._train[0].nbytes, room))

    @property
    def step(self) -> int:
        """What has been trained and measured so far."""
        return self.history[-1].step if self.history else 0

    def train_to_next_report(self) -> None:
        """Trains and measures up to the next step with a report, and writes the checkpoint."""
        task, stretch = self._task, Stretch.after(self.step, self._reports)
        step = self._reports.next_step(self.step)
        trained = train_stretch(
            self._assembled, self._loop, self._training, stretch,
            is_first=not self._is_compiled_here,
        )  # fmt: skip
        self._is_compiled_here = True
        metrics = {"epoch": float(self._reports.epochs(step)), **trained}
        if not self.history:
            metrics |= self._costs()
        with self._measured.in_place() if self._measured else contextlib.nullcontext():
            probabilities = self._validate(step, metrics)
            better = self._is_best(metrics)
            self.history.append(TrialReport(task.number, step, metrics))
            if better:
                self.best_step = step
                self._best_weights = [np.array(weight) for weight in self._model.get_weights()]
                self._best_probabilities = probabilities
        model, optimizer = model_arrays(self._model, self._optimizer)
        save_checkpoint(
            self._path,
            Checkpoint(
                task.identity,
                tuple(self.history),
                self.best_step,
                self._seconds(),
                model,
                optimizer,
                self._best_weights,
                self._best_probabilities,
            ),
        )

    def _costs(self) -> dict[str, float]:
        """What is asked for and nobody knew before the model was built."""
        asked, found = self._task.measures, {}
        if self._space.reference:
            from search_spaces.user_spaces.model_cost import cost_of_model

            cost = cost_of_model(self._model)
            found = {q: float(value) for q, value in quantities_of(cost).items() if q in asked}
        if "latency_ms" in asked:
            found["latency_ms"] = latency_ms(self._model, self._train[0][np.arange(1)])
        return found

    def _is_best(self, metrics: dict[str, float]) -> bool:
        """Whether the weights after this step are the model's so far.

        Steps within the first epoch are measured on fewer images: they stand for the trial only
        until an epoch is whole.
        """
        if self._task.schedule.keeps_last or self._reports.is_early(self.best_step):
            return True
        return self._task.objective.better(metrics, self._best_report.metrics)

    @property
    def _best_report(self) -> TrialReport:
        return next(report for report in self.history if report.step == self.best_step)

    def _validate(self, step: int, metrics: dict[str, float]) -> np.ndarray:
        """Adds the validation metrics; returns the class probabilities, empty without a split."""
        if not self._validates:
            return np.empty(0)
        (_, y), rows = self._validation, None
        if self._reports.is_early(step):
            rows = evenly_spread(y, EARLY_VALIDATION_IMAGES)
            y = y[rows]
        probabilities = self._predictor(self._validation_pixels, rows)
        if not np.isfinite(probabilities).all():
            # Weights can overflow in the last gradient step, when the mean loss is still finite.
            epochs = self._reports.text(step)
            raise NonFiniteLossError(f"The model predicts NaN or infinity after epoch {epochs}.")
        metrics |= validation_metrics(probabilities, y)
        self._check_objective(step, metrics, y, rows)
        return probabilities

    def _check_objective(
        self, step: int, metrics: dict[str, float], y: np.ndarray, rows: np.ndarray | None
    ) -> None:
        """Adds what the compiled metrics measure, where the objective may be among that."""
        task, objective = self._task, self._task.objective
        if objective.metric not in metrics and objective.metric.startswith("val_"):
            x = self._validation[0]
            metrics |= compiled_values(
                self._assembled, x if rows is None else x[rows], y, task.data.num_classes,
                task.predict_batch, task.stream_above,
            )  # fmt: skip
        check_value(objective, metrics, self._reports.text(step))

    def finish(self, stopped_by: str, device: str) -> TrialResult:
        """Leaves curves, summary and predictions, and the model where the trial is complete."""
        task, folder, best = self._task, Path(self._task.folder), self._best_report
        self._model.set_weights(self._best_weights)
        seconds, model_bytes, not_stored = self._seconds(), 0, ""
        is_complete = stopped_by not in (Decision.PAUSE, Decision.STOP)
        if is_complete:
            model_bytes, not_stored = store_model(
                self._assembled, folder / MODEL_FILE, task.training
            )
        summary: list[str] = []
        self._model.summary(print_fn=summary.append)
        (folder / SUMMARY_FILE).write_text("\n".join(summary) + "\n", encoding="utf-8")
        if self._validates and not self._reports.is_early(self.best_step):
            np.savez(folder / PREDICTIONS_FILE, probabilities=self._best_probabilities)
            write_predictions(folder / ANSWERS_FILE, self._best_probabilities)
        _write_history(folder / HISTORY_FILE, self.history, self._reports)
        first = self._train[0][np.arange(1)]
        return TrialResult(
            number=task.number,
            value=task.objective.value(best.metrics) if self._validates else math.nan,
            best_epoch=self._reports.epochs(best.step),
            num_epochs=self._reports.epochs(self.step),
            metrics=best.metrics,
            num_parameters=self._model.count_params(),
            model_bytes=model_bytes,
            training_seconds=seconds,
            device=device,
            stopped_by=stopped_by,
            adaptations=(
                *self._space.adaptations(task.params, task.data.input_shape),
                *([NOT_COMPILED] if task.training.jit == "on" and not self._is_compiled() else []),
            ),
            test_metrics=self._test_metrics() if task.schedule.measure_test and is_complete else {},
            not_stored=not_stored,
            pixels="" if self._assembled.is_ours else task.training.pixels,
            latency_ms=latency_or_none(self._model, first) if is_complete else None,
        )

    def _test_metrics(self) -> dict[str, float]:
        """Measured once: after a kill the first measurement is found again."""
        path = Path(self._task.folder) / TEST_FILE
        with contextlib.suppress(FileNotFoundError, UnusableFileError):
            found = read_json(path)
            if isinstance(found, dict) and found.pop("identity", None) == self._task.identity:
                return found
        if self._task.schedule.reload:  # What is stored takes pixels as they are.
            model = load_saved_model(Path(self._task.folder) / MODEL_FILE)
            raw, y = self._task.data.arrays("test")
            probabilities = predict(model, raw, self._task.predict_batch)
        else:
            x, y = part_of(self._task.data, "test", self._task.training)
            probabilities = self._predictor(self._predictor.pixels(x, room=0))
        metrics = {
            "test_accuracy": accuracy(probabilities, y),
            "test_loss": cross_entropy(probabilities, y),
        }
        body = json.dumps({"identity": self._task.identity, **metrics})
        path.write_text(body, encoding="utf-8")
        return metrics

    def _is_compiled(self) -> bool:
        """Keras trains without compilation, and warns, where a layer does not support it."""
        return bool(getattr(self._model, "jit_compile", True))

    def _seconds(self) -> float:
        here = time.perf_counter() - self._started - self.waited_seconds
        return self._earlier_seconds + here


def _write_history(path: Path, history: list[TrialReport], reports: Reports) -> None:
    with path.open("w", newline="") as file:
        # A trial that an earlier version began has fewer metrics in its first epochs.
        names = list(dict.fromkeys(name for r in history for name in r.metrics if name != "epoch"))
        writer = csv.writer(file)
        writer.writerow(["epoch", *names])
        writer.writerows(
            [reports.epochs(r.step), *(r.metrics.get(name, "") for name in names)] for r in history
        )
