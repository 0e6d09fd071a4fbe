"""What a model's output means: class probabilities, or logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.labels import labels_for, num_outputs, only_loss

if TYPE_CHECKING:
    import keras

    from search_spaces.space import Shape

SUM_TOLERANCE = 0.01
"""How far the sum of class probabilities may be from 1; half precision is that rough."""
NUM_PROBED = 16


def gives_logits(hypermodel: Any, model: keras.Model, shape: Shape, num_classes: int) -> bool:
    """Whether the probabilities are still to be made of a model's output.

    A HyperModel's attribute `from_logits` decides it. Else the output must be no probabilities, and
    the loss must take logits; of a model that is not compiled nobody knows the loss.

    Args:
        model: built; it is called on a few images where its loss leaves it open.
    """
    told = getattr(hypermodel, "from_logits", None)
    if isinstance(told, bool):
        return told
    loss = only_loss(model)
    if loss is not None and not _takes_logits(loss, num_classes):
        return False
    return not _gives_probabilities(model, shape)


def class_probabilities(output: np.ndarray, *, logits: bool) -> np.ndarray:
    """Class probabilities (n, classes) float32 of a model's output, (n, classes) or (n, 1).

    A single output is that of the second of two classes.
    """
    found = np.asarray(output, np.float32)
    is_single = found.shape[1:] == (1,)
    if logits and is_single:
        found = np.exp(-np.logaddexp(np.float32(0), -found))
    elif logits:
        found = np.exp(found - found.max(axis=-1, keepdims=True))
        found = found / found.sum(axis=-1, keepdims=True)
    return np.concatenate([1 - found, found], axis=1) if is_single else found


def are_probabilities(found: np.ndarray) -> bool:
    """Whether rows (n, classes) are finite, at least 0, and sum to 1."""
    sums = found.sum(axis=1)
    return bool(
        np.isfinite(found).all() and found.min() >= 0 and np.abs(sums - 1).max() <= SUM_TOLERANCE
    )


def _takes_logits(loss: Any, num_classes: int) -> bool:
    """Whether a loss says `from_logits=True`; one that does not tell is tried.

    Adding one number to all logits of an image changes nothing, as no probabilities allow.
    """
    if isinstance(loss, str):
        return False
    try:
        told = loss.get_config().get("from_logits")
    except Exception:  # A function, or a loss whose arguments cannot be told.
        told = None
    if isinstance(told, bool):
        return told
    numbers = np.arange(2) % num_classes
    for one_hot in (False, True):
        labels = labels_for(numbers, num_classes, one_hot=one_hot)
        plain, moved = (_value(loss, labels, num_classes, by) for by in (0.0, 2.0))
        if plain is not None and moved is not None:
            return bool(np.allclose(plain, moved, rtol=1e-4, atol=1e-5))
    return False


def _value(
    loss: Callable[..., Any], labels: np.ndarray, num_classes: int, moved: float
) -> np.ndarray | None:
    """The loss of scores that are wrong for the labels; None where it does not take them."""
    import keras

    scores = np.linspace(0.1, 0.9, 2 * num_classes, dtype=np.float32).reshape(2, -1) + moved
    to_tensor = keras.ops.convert_to_tensor
    try:
        return np.asarray(keras.ops.convert_to_numpy(loss(to_tensor(labels), to_tensor(scores))))
    except Exception:  # Whatever a loss makes of labels that it does not take.
        return None


def _gives_probabilities(model: keras.Model, shape: Shape) -> bool:
    """Whether what it gives of noise could be probabilities; also where it gives something else."""
    import keras

    is_single = num_outputs(model) == 1
    if is_single and _last_activation(model) is keras.activations.linear:
        return False  # A few of its values may lie between 0 and 1 all the same.
    noise = np.random.default_rng(0).random((NUM_PROBED, *shape), np.float32)
    try:
        output = model(noise, training=False)
        found = np.asarray(keras.ops.convert_to_numpy(output), np.float32)
    except Exception:  # Several outputs, or whatever the layers make of images.
        return True
    if found.ndim != 2:
        return True
    if found.shape[1] == 1:
        return bool(found.min() >= 0 and found.max() <= 1)
    return are_probabilities(found)


def _last_activation(model: keras.Model) -> Any:
    layer: Any = model
    while getattr(layer, "layers", None):
        layer = layer.layers[-1]
    return getattr(layer, "activation", None)
