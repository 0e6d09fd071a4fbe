"""Whole epochs on the device: pixels that stay there, and many steps for one call from Python.

`model.fit` hands every batch over by itself: for a small model most of the time goes there. Here
the training pixels are put onto the device once, an epoch's order is one array of numbers, and the
backend picks its batches. The steps are Keras' own `train_step`, in the order and with the batches
of `fit`, and the trained weights are those of `fit`, bit for bit (the tests hold them together).

JAX on CPUs is the exception that is not used: a scan of steps is compiled differently from one
step, and was several times slower there, so it runs step by step and only on a GPU in a scan.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.training.augmentation import AugmentedRows
from pipelines.training.device_arrays import on_device, tensorflow_rows
from pipelines.training.measured_weights import averaging
from search_spaces.augmentation import Augmentation
from search_spaces.labels import labels_for
from search_spaces.space import Assembled

if TYPE_CHECKING:
    import keras

    from pipelines.training.epoch import Training

STEPS_PER_CALL = 200
"""A non-finite loss ends the epoch between two calls; more steps per call would save nothing."""
FIRST_CALL = "first_call_seconds"
"""What a loop returns beside its metrics: how long its first step, or first scan of them, took."""
SCANNED_STEPS = 50
"""Steps of one scan on a GPU: the last ones of an epoch, up to as many, run one by one."""

Changed = np.ndarray | AugmentedRows
Train = Callable[[np.ndarray, bool, Changed | None], dict[str, float]]
"""Of the numbers of images, whether a non-finite loss ends the epoch early, and the pixels of this
epoch where they are not those of every epoch."""


@dataclass(frozen=True)
class EpochLoop:
    """Trains a model for an epoch.

    Attributes:
        together: steps that are compiled as one, besides single ones.
        resident_bytes: training pixels that it keeps on the device.
        pixels_of: the pixels of an epoch, where every epoch changes them; None for always the same.
    """

    train: Train
    together: int
    resident_bytes: int
    pixels_of: Callable[[int], Changed] | None = None

    def __call__(
        self, order: np.ndarray, *, epoch: int = 1, ends_early: bool = True
    ) -> dict[str, float]:
        """Trains on the images of these numbers, in this order; returns the mean metrics.

        Args:
            epoch: the epoch that they are a part of.
            ends_early: whether a non-finite loss ends it before its last step.
        """
        pixels = None if self.pixels_of is None else self.pixels_of(epoch)
        return self.train(order, ends_early, pixels)


def epoch_loop(
    assembled: Assembled,
    training: Training,
    *,
    resident_bytes: int | None = None,
    scanned_steps: int | None = None,
) -> EpochLoop | None:
    """The loop for a model of ours; None where `fit` trains it.

    That is where a HyperModel brings a `fit` or a model of its own, and where the pixels are more
    than there is room for: PyTorch takes those batch by batch from the disk, because its `fit`
    would draw from the very generator that dropout draws from.

    Args:
        resident_bytes: room for pixels on the device; None for `training.stream_above`.
        scanned_steps: steps of one scan of JAX; None for what fits the device.
    """
    import keras

    if assembled.custom_fit is not None or not assembled.is_ours:
        return None
    backend, num_bytes = keras.config.backend(), training.x.nbytes
    room = training.stream_above if resident_bytes is None else resident_bytes
    fits = num_bytes <= room
    if not fits and backend != "torch":
        return None
    pixels_of = None
    if assembled.augmentation is not None:
        pixels_of = _EpochPixels(training, assembled.augmentation, whole=fits)
    arrays = _arrays(training, one_hot=assembled.one_hot)
    model, size = assembled.model, assembled.batch_size
    # What `fit` does first: losses and metrics make their variables.
    model._symbolic_build(data_batch=_rows(arrays, np.arange(min(size, len(training.x)))))
    if backend == "tensorflow":
        return EpochLoop(_tensorflow_loop(model, arrays, size), 1, num_bytes, pixels_of)
    if backend == "torch":
        loop = _torch_loop(model, arrays, size, resident=fits)
        return EpochLoop(loop, 1, num_bytes if fits else 0, pixels_of)
    together = _scanned_steps() if scanned_steps is None else scanned_steps
    return EpochLoop(_jax_loop(model, arrays, size, together), together, num_bytes, pixels_of)


class _EpochPixels:
    """The changed pixels of an epoch, kept while it is trained in parts.

    Args:
        whole: whether they are changed all at once, or as they are read.
    """

    def __init__(self, training: Training, augmentation: Augmentation, *, whole: bool) -> None:
        self._training, self._augmentation, self._whole = training, augmentation, whole
        self._epoch = 0
        self._pixels: Changed | None = None

    def __call__(self, epoch: int) -> Changed:
        if self._pixels is None or epoch != self._epoch:
            x, seed = self._training.x, self._training.seed
            rows = AugmentedRows(x, self._augmentation, seed, epoch)
            self._pixels = rows[np.arange(len(rows))] if self._whole else rows
            self._epoch = epoch
        return self._pixels


def _arrays(training: Training, *, one_hot: bool) -> tuple[Any, ...]:
    """Pixels and labels, and the weight of each image where classes have weights."""
    labels = labels_for(training.y, training.num_classes, one_hot=one_hot)
    if training.class_weight is None:
        return training.x, labels
    by_class = np.ones(training.num_classes, np.float32)
    for number, weight in training.class_weight.items():
        by_class[number] = weight
    return training.x, labels, by_class[training.y]


def _rows(arrays: tuple[Any, ...], rows: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(array[rows]) for array in arrays)


def _run(model: keras.Model, steps: Callable[[], Any], ends_early: bool) -> dict[str, float]:
    """Trains from fresh metrics to the end, or to a non-finite loss; returns the metrics."""
    model.reset_metrics()
    started, first_seconds = time.perf_counter(), 0.0
    for _ in steps():
        if ends_early and not np.isfinite(_measured(model)["loss"]):
            break
        first_seconds = first_seconds or time.perf_counter() - started
    return {**_measured(model), FIRST_CALL: first_seconds}


def _calls(num_steps: int) -> Iterator[tuple[int, int]]:
    """Where each call from Python begins and ends; the first one, which compiles, is one step."""
    yield 0, min(1, num_steps)
    for first in range(1, num_steps, STEPS_PER_CALL):
        yield first, min(num_steps, first + STEPS_PER_CALL)


def _measured(model: keras.Model) -> dict[str, float]:
    import keras

    found = model.get_metrics_result()
    return {name: float(keras.ops.convert_to_numpy(value)) for name, value in found.items()}


def _tensorflow_loop(model: keras.Model, arrays: tuple[Any, ...], size: int) -> Train:
    import tensorflow as tf

    held_tensors, takes = zip(*map(tensorflow_rows, arrays), strict=True)
    # As in `fit`, whose batches have a known size only where all have it. With a known size the
    # mean of batch normalisation is computed by another operation, and rounds differently.
    known = size if len(arrays[0]) % size == 0 else None
    results = model.get_metrics_result()

    def one(batch: Any) -> Any:
        with _rate_computed_once(model):
            return model.train_step(batch)

    step = tf.function(one, jit_compile=model.jit_compile, reduce_retracing=True, autograph=False)
    # Numbers of 32 bits stay with the host, which the loop is steered by; of 64 bits they would be
    # on a GPU, and every step would wait for them.
    number = tf.TensorSpec([], tf.int32)

    data = list(held_tensors)
    held_pixels: list[Changed | None] = [None]
    held = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in held_tensors]

    # Written as TensorFlow's own loop: to convert one of Python takes a tenth of a second, and
    # leaves a file in the temporary folder.
    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.int64), number, number, held], autograph=False
    )  # type: ignore[untyped-decorator]
    def many(order: Any, first: Any, end: Any, tensors: Any) -> Any:
        def body(index: Any, logs: Any) -> Any:
            del logs
            rows = tf.ensure_shape(order[index * size : (index + 1) * size], [known])
            batch = tuple(take(tensor, rows) for take, tensor in zip(takes, tensors, strict=True))
            return index + 1, step(batch)

        # The metrics of each step are handed on, as in `fit`: without them TensorFlow prunes the
        # step's graph differently, and a cosine schedule came out one bit apart.
        logs = {name: tf.zeros((), value.dtype) for name, value in results.items()}
        return tf.while_loop(lambda index, _: index < end, body, (first, logs))[1]

    def loop(order: np.ndarray, ends_early: bool, pixels: Changed | None) -> dict[str, float]:
        numbers = tf.constant(order, tf.int64)
        num_steps = math.ceil(len(order) / size)
        if pixels is not None and pixels is not held_pixels[0]:
            # In place of those before: an epoch's stay for its parts, and no second copy does.
            data[0], held_pixels[0] = tensorflow_rows(pixels)[0], pixels

        def steps() -> Any:
            for first, end in _calls(num_steps):
                yield many(numbers, first, end, data)

        return _run(model, steps, ends_early)

    return loop


@contextlib.contextmanager
def _rate_computed_once(model: keras.Model) -> Iterator[None]:
    """Has all weights of a step take one learning rate, where its schedule begins with a warm-up.

    Keras computes it anew for each weight that decays. Such a schedule is a choice between two
    functions in the graph, and with one for each weight tracing takes half as long again. Without a
    warm-up there is nothing to save, and TensorFlow would reorder the products with another
    rounding; XLA may do so with any.
    """
    inner = averaging(model.optimizer)
    if model.jit_compile or not getattr(inner._learning_rate, "warmup_steps", 0):
        yield
        return
    rate = inner.learning_rate
    inner._get_current_learning_rate = lambda: rate
    try:
        yield
    finally:
        del inner._get_current_learning_rate


def _scanned_steps() -> int:
    """Steps of a scan of JAX on this device."""
    import jax

    return 1 if jax.default_backend() == "cpu" else SCANNED_STEPS


def _jax_loop(model: keras.Model, arrays: tuple[Any, ...], size: int, scanned_steps: int) -> Train:
    import jax

    whole = on_device(arrays)

    def one(state: Any, rows: Any, data: Any) -> Any:
        return model.train_step(state, tuple(array[rows] for array in data))[1]

    def many(state: Any, rows: Any, data: Any) -> Any:
        return jax.lax.scan(lambda s, r: (one(s, r, data), None), state, rows)[0]

    compiled = model.jit_compile
    # The state is given away, so that the new one takes its memory; Keras does so, too.
    step = jax.jit(one, donate_argnums=0) if compiled else one
    scan = jax.jit(many, donate_argnums=0)
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )

    def taken() -> Any:
        return tuple([variable.value for variable in group] for group in groups)

    def put_back(state: Any) -> None:
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)

    def loop(order: np.ndarray, ends_early: bool, pixels: Changed | None) -> dict[str, float]:
        batches = _batches(order, size, scanned_steps if compiled else 1)
        data = whole if pixels is None else (*on_device((pixels,)), *whole[1:])

        def steps() -> Any:
            # The variables are filled when somebody looks at them, not after every step.
            for first, end in _calls(len(batches)):
                state = taken()
                for rows in batches[first:end]:
                    state = scan(state, rows, data) if rows.ndim > 1 else step(state, rows, data)
                put_back(state)
                yield

        return _run(model, steps, ends_early)

    return loop


def _batches(order: np.ndarray, size: int, together: int) -> list[np.ndarray]:
    """Numbers (together, size) of so many batches at once, then those of single ones (size,)."""
    num_groups = len(order) // (size * together) if together > 1 else 0
    end = num_groups * size * together
    groups = list(order[:end].reshape(num_groups, together, size)) if num_groups else []
    return groups + [order[first : first + size] for first in range(end, len(order), size)]


def _torch_loop(model: keras.Model, arrays: tuple[Any, ...], size: int, *, resident: bool) -> Train:
    import keras
    import torch

    whole = on_device(arrays) if resident else arrays
    step = torch.compile(model.train_step) if model.jit_compile else model.train_step

    def batch(data: tuple[Any, ...], rows: np.ndarray) -> tuple[Any, ...]:
        if resident:
            numbers = keras.ops.convert_to_tensor(rows, dtype="int64")
            return tuple(array[numbers] for array in data)
        by_place = np.argsort(rows)  # Read in the file's order, which disks like.
        back = np.argsort(by_place)
        read = _rows(data, rows[by_place])
        return tuple(keras.ops.convert_to_tensor(a[back], dtype=str(a.dtype)) for a in read)

    def loop(order: np.ndarray, ends_early: bool, pixels: Changed | None) -> dict[str, float]:
        data = whole
        if pixels is not None:
            data = (*(on_device((pixels,)) if resident else (pixels,)), *whole[1:])

        def steps() -> Any:
            model.train()  # As `fit`: a layer made of PyTorch's own parts may ask for it.
            for count, rows in enumerate(_batches(order, size, 1)):
                step(batch(data, rows))
                if count % STEPS_PER_CALL == 0:
                    yield
            model.eval()

        try:
            return _run(model, steps, ends_early)
        finally:
            model.eval()

    return loop
