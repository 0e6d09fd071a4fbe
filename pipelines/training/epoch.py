"""One epoch of training, or a part: by a loop on the device, by `fit`, or by a HyperModel's own.

A HyperModel's own `fit` is watched: it must train the one epoch that it was called for.
"""

from __future__ import annotations

import contextlib
import math
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.arrays import PixelRows
from pipelines.objectives import OBJECTIVES
from pipelines.runtime.compute import AUTO
from pipelines.runtime.process import seed_everything
from pipelines.training.augmentation import AugmentedRows
from pipelines.training.feeding import STREAM_ABOVE_BYTES, Pixels, epoch_input
from pipelines.training.loops import FIRST_CALL, EpochLoop
from pipelines.training.measured_weights import averaging
from pipelines.training.reports import Reports
from search_spaces.labels import labels_for
from search_spaces.recorded_metrics import recorded_metric
from search_spaces.space import Assembled
from search_spaces.user_spaces.fit_values import returned_values

if TYPE_CHECKING:
    import keras

Arrays = tuple[PixelRows, np.ndarray]
ACCURACIES = ("acc", "sparse_categorical_accuracy", "categorical_accuracy", "binary_accuracy")
"""What the share of correct predictions may be called beside `accuracy`."""
WAY_OUT = (
    "It is called once per epoch: pass its `epochs` and `initial_epoch` on to model.fit, or "
    "neither, or train one epoch in a loop of your own."
)


class NonFiniteLossError(ArithmeticError):
    """The training loss became NaN or infinite."""


@dataclass(frozen=True)
class Training:
    """What a model is trained on: pixels, class numbers, and what decides the order.

    Attributes:
        validation: what a HyperModel's own `fit` may look at; None where all images train.
        class_weight: weight of each class in the loss; None for the same.
        stream_above: as in `pipelines.training.feeding.epoch_input`; a HyperModel's own `fit` gets
            arrays.
        averages_apart: whether averages that the optimizer keeps never replace the weights.
    """

    x: Pixels
    y: np.ndarray
    num_classes: int
    seed: int
    validation: Arrays | None = None
    class_weight: dict[int, float] | None = None
    stream_above: int = STREAM_ABOVE_BYTES
    averages_apart: bool = True


@dataclass(frozen=True)
class Stretch:
    """The part of an epoch between two reports.

    Attributes:
        epoch: counts from 1.
        first, last: where it begins and ends, in steps after the epoch's start.
        per_epoch: steps of an epoch (`Reports`).
    """

    epoch: int
    first: int
    last: int
    per_epoch: int

    @classmethod
    def after(cls, step: int, reports: Reports) -> Stretch:
        """What is trained between the report at `step` and the next one."""
        done, first = divmod(step, reports.per_epoch)
        last = reports.next_step(step) - done * reports.per_epoch
        return cls(done + 1, first, last, reports.per_epoch)

    @property
    def is_whole(self) -> bool:
        """Whether it is an epoch."""
        return self.first == 0 and self.last == self.per_epoch

    def rows(self, order: np.ndarray, batch_size: int) -> np.ndarray:
        """Its part of an epoch's order: whole batches, so that an epoch in parts has the same."""
        num_batches = math.ceil(len(order) / batch_size)
        ends = [math.ceil(num_batches * end / self.per_epoch) for end in (self.first, self.last)]
        return order[ends[0] * batch_size : ends[1] * batch_size]


def train_stretch(
    assembled: Assembled,
    loop: EpochLoop | None,
    training: Training,
    stretch: Stretch,
    *,
    is_first: bool = False,
) -> dict[str, float]:
    """Trains a part of an epoch, whose order follows from the seed and the epoch's number alone.

    So a run that was interrupted between reports can go on exactly as if it had not been.

    Args:
        loop: what `epoch_loop` returned for the same model and training; None for `fit`.
        is_first: whether this process trains the model for the first time: then `compile_seconds`
            says how much longer the first step took than the others, on average.

    Raises:
        NonFiniteLossError: The loss became NaN or infinite.
        EpochError: A HyperModel's own `fit` did not train one epoch.
    """
    import keras

    started, model, epoch = time.perf_counter(), assembled.model, stretch.epoch
    order = np.random.default_rng([training.seed, epoch]).permutation(len(training.x))
    rows = order if stretch.is_whole else stretch.rows(order, assembled.batch_size)
    if keras.config.backend() == "torch":
        _seed_torch(training.seed, epoch, stretch.first)
    before = training_fingerprint(model) if assembled.custom_fit is not None else None
    history: Any = None
    first_seconds = 0.0
    with _averages_kept_apart(model) if training.averages_apart else contextlib.nullcontext():
        if not len(rows):
            metrics = {}  # Batches are larger than the stretch.
        elif loop is not None:
            metrics = loop(rows, epoch=epoch)
            first_seconds = metrics.pop(FIRST_CALL)
        else:
            clock = _first_batch_clock()
            history = _fitted(assembled, training, rows, epoch, clock)
            metrics, first_seconds = (
                _last_values(history, validates=training.validation is not None),
                clock.seconds,
            )
    seconds = time.perf_counter() - started
    if not math.isfinite(metrics.get("loss", 0.0)):
        raise NonFiniteLossError(f"The training loss became {metrics['loss']} in epoch {epoch}.")
    if before is not None:
        check_one_epoch(before, training_fingerprint(model), history, epoch)
    optimizer = getattr(model, "optimizer", None)  # A HyperModel's own `fit` may make one.
    if optimizer is not None:
        metrics["learning_rate"] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    metrics["epoch_seconds"] = seconds * stretch.per_epoch / (stretch.last - stretch.first)
    metrics["images_per_second"] = len(rows) / seconds
    others = math.ceil(len(rows) / assembled.batch_size) - 1
    if is_first and first_seconds and others > 0:
        of_one = (seconds - first_seconds) / others
        metrics["compile_seconds"] = max(0.0, first_seconds - of_one)
    return metrics


def _first_batch_clock() -> Any:
    """A callback whose `seconds` are those until the first batch ends; 0 where none is told."""
    import keras

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        seconds, started = 0.0, time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seconds = self.seconds or time.perf_counter() - self.started

    return Clock()


@contextlib.contextmanager
def _averages_kept_apart(model: keras.Model) -> Iterator[None]:
    """Has `fit` leave the weights as they were trained where the optimizer keeps averages of them.

    At its end `fit` puts the averages in their place. It is called once per epoch here, so training
    would go on from the averages after every epoch; `MeasuredWeights` measures them all the same.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not averaging(optimizer).use_ema:
        yield
        return
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        del optimizer.finalize_variable_values


def set_jit(model: Any, jit: str) -> None:
    """Has a model's steps compiled, or not; `auto` leaves what its space or Keras decided."""
    if jit != AUTO:
        model.jit_compile = jit == "on"


def _seed_torch(seed: int, epoch: int, first: int) -> None:
    """PyTorch's one generator, which dropout draws from: no checkpoint holds where it was."""
    import torch

    parts = [seed, epoch, 1, first] if first else [seed, epoch, 1]
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))


def _fitted(
    assembled: Assembled, training: Training, order: np.ndarray, epoch: int, clock: Any
) -> Any:
    """Calls `fit` for one epoch; returns what it returned."""
    import keras

    labels = labels_for(training.y, training.num_classes, one_hot=assembled.one_hot)
    common: dict[str, Any] = {
        "epochs": epoch, "initial_epoch": epoch - 1, "verbose": 0,
        "callbacks": [keras.callbacks.TerminateOnNaN(), clock],
    }  # fmt: skip
    if training.class_weight is not None:
        common["class_weight"] = training.class_weight
    if assembled.custom_fit is not None:
        return _custom_fit(assembled, training, order, labels[order], common, epoch)
    x: Pixels = training.x
    if assembled.augmentation is not None:
        x = AugmentedRows(x, assembled.augmentation, training.seed, epoch)
    given = epoch_input(x, labels, order, assembled.batch_size, training.stream_above)
    return assembled.model.fit(**given, shuffle=False, **common)


def _custom_fit(
    assembled: Assembled,
    training: Training,
    order: np.ndarray,
    labels: np.ndarray,
    common: dict[str, Any],
    epoch: int,
) -> Any:
    """Calls a HyperModel's `fit` as Keras Tuner does, for one epoch."""
    # It may shuffle, or draw lots: whatever it draws follows from seed and epoch, too.
    drawn = np.random.SeedSequence([training.seed, epoch]).generate_state(1)[0]
    seed_everything(int(drawn))
    # A `fit` may require validation data; where everything trains, it is a part of that.
    first = np.arange(1)
    x, y = training.validation or (training.x[first], training.y[first])
    own = labels_for(y, training.num_classes, one_hot=assembled.one_hot)
    assert assembled.custom_fit is not None
    return assembled.custom_fit(
        np.asarray(training.x[order]), labels, validation_data=(np.asarray(x), own), **common
    )


def _last_values(history: Any, *, validates: bool) -> dict[str, float]:
    """The metrics of whatever a `fit` returned, without those of validation that are measured here.

    Where nothing validates, whatever it says of validation means nothing.
    """
    metrics = {
        recorded_metric(name): value
        for name, value in returned_values(history).items()
        if name not in OBJECTIVES and (validates or not name.startswith("val_"))
    }
    for name in ACCURACIES:
        if name in metrics and "accuracy" not in metrics:
            metrics["accuracy"] = metrics[name]
    return metrics


class EpochError(RuntimeError):
    """A `fit` trained nothing, or more than the epoch that it was called for."""


def training_fingerprint(model: keras.Model) -> tuple[int, ...]:
    """What one training step changes: the optimizer's count of steps, or else weights."""
    import keras

    optimizer = getattr(model, "optimizer", None)
    steps = int(keras.ops.convert_to_numpy(optimizer.iterations)) if optimizer is not None else 0
    digest = 0
    for variable in model.trainable_variables:
        value = np.asarray(keras.ops.convert_to_numpy(variable))
        digest = zlib.crc32(value.tobytes(), digest)
    return steps, digest


def check_one_epoch(
    before: tuple[int, ...], after: tuple[int, ...], history: Any, epoch: int
) -> None:
    """Raises EpochError unless a `fit` trained, and told of no more than one epoch.

    Args:
        before, after: the model's `training_fingerprint`.
        history: whatever `fit` returned.
    """
    if before == after:
        raise EpochError(f"The HyperModel's own fit trained nothing in epoch {epoch}. {WAY_OUT}")
    values = getattr(history, "history", history)
    lists = (
        [v for v in values.values() if isinstance(v, list)] if isinstance(values, Mapping) else []
    )
    most = max(map(len, lists), default=1)
    if most > 1:
        raise EpochError(
            f"The HyperModel's own fit trained {most} epochs although only epoch {epoch} was due. "
            f"{WAY_OUT}"
        )
