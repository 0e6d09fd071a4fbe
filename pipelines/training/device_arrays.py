"""Arrays on the device of Keras' backend, and rows of them taken there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np


def whole_array(array: Any) -> np.ndarray:
    """All rows of something that is read by row numbers; a mapped file is not copied for that."""
    if isinstance(array, np.ndarray):
        return np.asarray(array)
    return np.asarray(array[np.arange(len(array))])


def on_device(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arrays as tensors of the backend."""
    import keras

    whole = map(whole_array, arrays)
    return tuple(keras.ops.convert_to_tensor(array, dtype=_type_of(array)) for array in whole)


def _type_of(array: np.ndarray) -> str:
    """The type that an array has on the device; JAX has whole numbers of 32 bits."""
    import keras

    is_long = array.dtype == np.int64 and keras.config.backend() == "jax"
    return "int32" if is_long else str(array.dtype)


def tensorflow_rows(array: Any) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Puts an array onto the device; returns it, and what takes rows of it there.

    TensorFlow's `gather` has kernels for GPUs, but not for whole numbers of 8 or 16 bits: such
    pixels would be gathered on the cores and carried over in every step. So they are kept as words
    of 64 bits, and the rows that were taken are looked at as what they are, which copies nothing.
    """
    import tensorflow as tf

    whole = whole_array(array)
    if whole.dtype.kind not in "iu" or whole.dtype.itemsize >= 4:
        return tf.constant(whole), tf.gather
    shape, dtype = whole.shape[1:], whole.dtype
    values = whole.reshape(len(whole), -1)
    missing = -values.shape[1] % (8 // dtype.itemsize)
    if missing:
        values = np.pad(values, ((0, 0), (0, missing)))

    def take(words: Any, rows: Any) -> Any:
        found = tf.bitcast(tf.gather(words, rows), dtype)
        found = tf.reshape(found, (-1, values.shape[1]))
        return tf.reshape(found[:, : math.prod(shape)] if missing else found, (-1, *shape))

    return tf.constant(values.view(np.int64)), take
