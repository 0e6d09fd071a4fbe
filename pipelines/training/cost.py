"""How large a point's model is and how long its steps take, from a few steps that train nothing.

The model is built, compiled and run exactly as a trial would, on the same data and threads, and
thrown away.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipelines.data.prepared import PreparedData
from pipelines.evaluation.metrics import PREDICT_BATCH
from pipelines.models.input_scale import decided
from pipelines.runtime.process import seed_everything
from pipelines.training.device_prediction import Predictor, room_beside
from pipelines.training.epoch import Training, set_jit
from pipelines.training.feeding import part_of
from pipelines.training.loops import epoch_loop
from pipelines.training.options import DEFAULT_TRAINING, TrainingOptions
from search_spaces.hyperparameters import Params
from search_spaces.labels import labels_for
from search_spaces.registry import get_space
from search_spaces.space import Assembled
from search_spaces.user_spaces.reference import Sources

if TYPE_CHECKING:
    import keras

Train = Callable[[np.ndarray], dict[str, float]]
"""Trains on the images with these indices; returns metrics, as far as there are any."""
MEASURED_SECONDS = 3.0
MIN_STEPS, MAX_STEPS = 5, 400
PREDICTED_IMAGES = 4 * PREDICT_BATCH
MAX_BYTES = 2**28
"""Pixels of one stretch of steps by `fit`: it is read into memory."""


@dataclass(frozen=True)
class MeasureTask:
    """Points to measure, in this order; `num_epochs` is the budget that a schedule spans.

    Attributes:
        skips_failures: whether a point that cannot be trained is passed over, as in a sweep.
        sources: as of `TrialTask`; what a node needs to open the space.
    """

    space: str
    points: tuple[Params, ...]
    data: PreparedData
    num_epochs: int
    seed: int
    training: TrainingOptions = DEFAULT_TRAINING
    skips_failures: bool = False
    sources: Sources = ()


@dataclass(frozen=True)
class FailedPoint:
    """A point that could not be measured, because its model cannot be built or trained.

    Attributes:
        kind, reason: the exception's type and message.
        details: the traceback.
    """

    kind: str
    reason: str
    details: str


@dataclass(frozen=True)
class Measurement:
    """What one point costs.

    Attributes:
        start_seconds: building the model, and tracing its first training and prediction step.
        epoch_seconds: one epoch with its validation.
        memory_bytes: weights, their gradients, the optimizer's state, and the activations of a
            batch, forwards and backwards, as float32, and the pixels that stay on the device: a
            lower bound of what a trial needs beyond the libraries.
        is_finite: whether the loss was a number in every step.
    """

    params: Params
    num_parameters: int
    memory_bytes: int
    start_seconds: float
    epoch_seconds: float
    is_finite: bool = True


def measure_points(task: MeasureTask, *, resident_bytes: int | None = None) -> list[Measurement]:
    """Measures the points, one after the other.

    Args:
        resident_bytes: room for pixels on a GPU; None for what streams on cores.
    """
    found = []
    for params in task.points:
        found.append(measure_point(task, params, resident_bytes=resident_bytes))
        _forget()
    return found


def _forget() -> None:
    """Frees a model and its pixels, which refer to each other: the next ones need the room."""
    import keras

    keras.backend.clear_session()
    gc.collect()


def measure_point(
    task: MeasureTask, params: Params, *, resident_bytes: int | None = None
) -> Measurement:
    """Builds one point's model and times a few of its steps."""
    started = time.perf_counter()
    seed_everything(task.seed)
    data, num_images = task.data, task.data.num_images["train"]
    assembled = get_space(task.space).assembled(
        params, data.input_shape, data.num_classes, num_images, task.num_epochs
    )
    options = decided(task.training, assembled, data.input_shape)
    x, y = part_of(data, "train", options)
    x_validation, _ = part_of(data, "validation", options)
    model, batch_size = assembled.model, assembled.batch_size
    set_jit(model, task.training.jit)
    training = Training(x, y, task.data.num_classes, task.seed)
    loop = epoch_loop(assembled, training, resident_bytes=resident_bytes)
    room = training.stream_above if resident_bytes is None else resident_bytes
    room = room_beside(x.nbytes, room)
    if loop is None:
        train, num_pixel_bytes, most = _fit(assembled, training), 0, MAX_BYTES // x[0].nbytes
        warm = 2 * batch_size
    else:
        train = partial(loop, ends_early=False)  # A NaN loss must not shorten what is timed.
        num_pixel_bytes, most = loop.resident_bytes, len(x)
        num_pixel_bytes += x_validation.nbytes if x_validation.nbytes <= room else 0
        warm = (loop.together + 1) * batch_size  # What is compiled as one, and a single step.
    losses: list[float] = []

    def train_on(rows: np.ndarray) -> None:
        losses.append(train(rows).get("loss", 0.0))

    train_on(np.arange(min(len(x), warm)))
    num_predicted = min(len(x_validation), PREDICTED_IMAGES)
    predictor = Predictor(assembled, PREDICT_BATCH)
    pixels = predictor.pixels(x_validation[:num_predicted], room)
    predictor(pixels, np.arange(min(num_predicted, PREDICT_BATCH)))
    start_seconds = time.perf_counter() - started
    step_seconds = _step_seconds(train_on, batch_size, min(len(x), most))
    before = time.perf_counter()
    predictor(pixels)
    image_seconds = (time.perf_counter() - before) / num_predicted
    return Measurement(
        params=params,
        num_parameters=model.count_params(),
        memory_bytes=_memory_bytes(model, batch_size) + num_pixel_bytes,
        start_seconds=start_seconds,
        epoch_seconds=math.ceil(len(x) / batch_size) * step_seconds
        + len(x_validation) * image_seconds,
        is_finite=all(map(math.isfinite, losses)),
    )


def _step_seconds(train: Callable[[np.ndarray], None], batch_size: int, num_images: int) -> float:
    """Seconds per training step, from the longest of some stretches of steps.

    They grow until `MEASURED_SECONDS` are spent: what a call itself costs is spread over the steps
    of a whole epoch, so the short ones would make every step look too dear.

    Args:
        train: trains on the images of these numbers.
        num_images: how many there are to train on.
    """
    available = max(1, num_images // batch_size)
    steps, total_seconds = min(MIN_STEPS, available), 0.0
    while True:
        before = time.perf_counter()
        train(np.arange(min(num_images, steps * batch_size)))
        seconds = time.perf_counter() - before
        total_seconds += seconds
        if total_seconds >= MEASURED_SECONDS or steps == min(available, MAX_STEPS):
            return seconds / steps
        steps = min(available, MAX_STEPS, 4 * steps)


def _fit(assembled: Assembled, training: Training) -> Train:
    """Trains by `fit`, as a trial does where there is no loop for its model."""
    labels = labels_for(training.y, training.num_classes, one_hot=assembled.one_hot)

    def train(rows: np.ndarray) -> dict[str, float]:
        x, y = np.asarray(training.x[rows]), labels[rows]
        if assembled.custom_fit is None:
            history = assembled.model.fit(
                x, y, batch_size=assembled.batch_size, epochs=1, shuffle=False, verbose=0
            ).history
            return {name: float(values[-1]) for name, values in history.items()}
        few = (x[:1], y[:1])
        assembled.custom_fit(
            x, y, epochs=1, initial_epoch=0, verbose=0, callbacks=[], validation_data=few
        )
        return {}

    return train


def _memory_bytes(model: keras.Model, batch_size: int) -> int:
    weights = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    optimizer = getattr(model, "optimizer", None)  # A HyperModel's own `fit` may make one.
    state = sum(math.prod(v.shape) for v in optimizer.variables) if optimizer is not None else 0
    activations = 0
    for layer in model.layers:
        try:
            outputs = layer.output if isinstance(layer.output, list) else [layer.output]
            activations += sum(math.prod(size or 1 for size in o.shape[1:]) for o in outputs)
        except (AttributeError, ValueError):  # A layer of a model that is no graph.
            continue
    return int(4 * (2 * weights + state + 2 * activations * batch_size))
