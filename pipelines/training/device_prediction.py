"""Class probabilities of a model in training; computed on the device for models of ours.

`model.predict` carries every batch to the device and waits for its answer. Here the pixels that are
measured again and again stay on the device, all batches are given to it one after the other, and
their probabilities are fetched at the end. They are those of `predict`, bit for bit (a test).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.arrays import PixelRows
from pipelines.evaluation.metrics import array_alone, predict
from pipelines.training.device_arrays import on_device, tensorflow_rows

if TYPE_CHECKING:
    import keras

    from search_spaces.space import Assembled


class DeviceForward:
    """What `predict` computes for a batch that is on the device, compiled once for every use.

    With TensorFlow, `predict` makes a pipeline of its input in every call, and traces the model for
    whole batches and once more for a smaller last one: more than half of the time for 2,500 small
    images (docs/log.md). Here it is traced once, for batches of any size.

    Attributes:
        takes_one_size: whether every other size would be compiled anew on a GPU, for as long as
            many batches take; a smaller last batch is filled up then. Cores compile it, as
            `predict` does: what a sweep recorded there is to be the same in its replay.
    """

    def __init__(self, model: keras.Model) -> None:
        import keras

        backend = keras.config.backend()
        makers = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
        self._run, self.takes_one_size = makers[backend](model)

    def __call__(self, images: Any) -> Any:
        """Probabilities (n, classes) on the device, of images (n, height, width, channels)."""
        return self._run(images)


Made = tuple[Callable[[Any], Any], bool]


def _tensorflow(model: keras.Model) -> Made:
    import tensorflow as tf

    (pixels,) = model.inputs
    batch = tf.TensorSpec((None, *pixels.shape[1:]), pixels.dtype)
    run = tf.function(
        lambda images: model(images, training=False),
        input_signature=[batch], autograph=False, jit_compile=model.jit_compile or None,
    )  # fmt: skip
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    return run, bool(model.jit_compile) and on_gpu


def _jax(model: keras.Model) -> Made:
    import jax

    def one(trained: Any, others: Any, images: Any) -> Any:
        return model.stateless_call(trained, others, images, training=False)[0]

    compiled = jax.jit(one) if model.jit_compile else one
    groups = (model.trainable_variables, model.non_trainable_variables)

    def run(images: Any) -> Any:
        trained, others = ([variable.value for variable in group] for group in groups)
        return compiled(trained, others, images)

    return run, bool(model.jit_compile) and jax.default_backend() != "cpu"


def _torch(model: keras.Model) -> Made:
    import torch

    def run(images: Any) -> Any:
        model.eval()
        with torch.no_grad():
            return model(images, training=False)

    return run, False


class DevicePixels:
    """Pixels that are taken by their numbers, as tensors.

    Attributes:
        x: (n, height, width, channels), as they are on the disk.

    Args:
        room: bytes of the device that they may take; where they are more, batches are carried over.
    """

    def __init__(self, x: PixelRows, room: int) -> None:
        self.x = x
        self._take: Callable[[np.ndarray], Any] | None = None
        if x.nbytes <= room:
            self._take = _taker(x)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: np.ndarray) -> Any:
        """Those of these numbers (n,), on the device."""
        if self._take is not None:
            return self._take(rows)
        return on_device((np.asarray(self.x[rows]),))[0]


def room_beside(num_trained_bytes: int, room: int) -> int:
    """Bytes of the device that are left beside the pixels that train; those may not be there."""
    return room - num_trained_bytes if num_trained_bytes <= room else room


def _taker(x: PixelRows) -> Callable[[np.ndarray], Any]:
    import keras

    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        words, take = tensorflow_rows(x)
        # In one function: by themselves the parts of it would be a call each.
        taken = tf.function(take, autograph=False, reduce_retracing=True)
        return lambda rows: taken(words, tf.constant(rows, tf.int64))
    (whole,) = on_device((x,))
    if backend == "jax":
        return lambda rows: whole[rows]
    return lambda rows: whole[keras.ops.convert_to_tensor(rows, dtype="int64")]


class Predictor:
    """Predicts with one model: on the device where it is ours, by Keras' `predict` else.

    Args:
        batch_size: images of one step.
    """

    def __init__(self, assembled: Assembled, batch_size: int) -> None:
        self._model, self._batch_size = assembled.model, batch_size
        self._logits = assembled.logits
        self._forward = DeviceForward(assembled.model) if assembled.is_ours else None

    def pixels(self, x: PixelRows, room: int) -> DevicePixels:
        """Pixels to predict from again and again.

        Args:
            room: bytes of the device that they may take.
        """
        return DevicePixels(x, room if self._forward is not None else 0)

    def __call__(self, pixels: DevicePixels, rows: np.ndarray | None = None) -> np.ndarray:
        """Class probabilities (n, classes) float32.

        Args:
            rows: numbers of the images (n,); None for all of them.
        """
        if self._forward is not None:
            return predict_on_device(self._forward, pixels, self._batch_size, rows)
        x = pixels.x if rows is None else pixels.x[rows]
        return predict(self._model, x, self._batch_size, logits=self._logits)


def predict_on_device(
    forward: DeviceForward, pixels: DevicePixels, batch_size: int, rows: np.ndarray | None = None
) -> np.ndarray:
    """Class probabilities (n, classes) float32 of images.

    Args:
        rows: their numbers (n,); None for all of them.
    """
    import keras

    numbers = np.arange(len(pixels)) if rows is None else rows
    found = []
    with array_alone():
        for first in range(0, len(numbers), batch_size):
            part = numbers[first : first + batch_size]
            missing = batch_size - len(part) if forward.takes_one_size else 0
            found.append(forward(pixels[np.pad(part, (0, missing), mode="edge")]))
    arrays = [np.asarray(keras.ops.convert_to_numpy(part), np.float32) for part in found]
    return np.concatenate(arrays)[: len(numbers)]
