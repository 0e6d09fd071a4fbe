"""What labels a model is trained with: class numbers, or one-hot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def takes_one_hot(model: keras.Model, num_classes: int) -> bool:
    """Whether a model's loss compares with one-hot labels: all but `sparse` ones do.

    One that does not tell by its name is tried with both. A model that is not compiled, and one
    with a single output for two classes, takes class numbers.
    """
    loss = only_loss(model)
    if loss is None or num_outputs(model) == 1:
        return False
    name = loss if isinstance(loss, str) else getattr(loss, "name", None)
    name = name or getattr(loss, "__name__", type(loss).__name__)
    if "sparse" in str(name).lower():
        return False
    if isinstance(loss, str) or not callable(loss):
        return True
    numbers = np.arange(2) % num_classes
    one_hot = labels_for(numbers, num_classes, one_hot=True)
    # A function of somebody's own around a sparse loss.
    return _accepts(loss, one_hot, num_classes) or not _accepts(loss, numbers, num_classes)


def only_loss(model: keras.Model) -> Any:
    """What a model was compiled with as its one loss; None where it was not."""
    loss = getattr(model, "loss", None)
    while isinstance(loss, list | tuple | dict) and loss:
        loss = next(iter(loss.values())) if isinstance(loss, dict) else loss[0]
    return loss


def num_outputs(model: keras.Model) -> int | None:
    """Width of a model's one output; None where it has several or does not tell."""
    try:
        shape = model.output_shape
    except (AttributeError, ValueError):
        return None
    return shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None


def labels_for(labels: np.ndarray, num_classes: int, *, one_hot: bool) -> np.ndarray:
    """Class numbers (n,) as they are, or one-hot (n, classes) float32."""
    return np.eye(num_classes, dtype=np.float32)[labels] if one_hot else labels


def take_class_numbers(model: keras.Model) -> None:
    """Compiles a model with a loss for one-hot labels anew, so that it takes class numbers.

    The loss itself stays; the metrics become the accuracy.
    """
    import keras

    loss: Callable[..., Any] = model.loss

    def of_class_numbers(numbers: Any, probabilities: Any) -> Any:
        flat = keras.ops.reshape(numbers, (-1,))
        return loss(keras.ops.one_hot(flat, probabilities.shape[-1]), probabilities)

    of_class_numbers.__name__ = getattr(loss, "name", "loss")
    metric = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    model.compile(optimizer=model.optimizer, loss=of_class_numbers, metrics=[metric])


def _accepts(loss: Callable[..., Any], labels: np.ndarray, num_classes: int) -> bool:
    import keras

    even = np.full((len(labels), num_classes), 1 / num_classes, np.float32)
    try:
        loss(keras.ops.convert_to_tensor(labels), keras.ops.convert_to_tensor(even))
    except Exception:  # Whatever a loss makes of labels that it does not take.
        return False
    return True
