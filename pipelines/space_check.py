"""Whether the model of a user's space can be trained on a data set, said before a sweep begins."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.saved_models import SUM_TOLERANCE
from pipelines.storing import store_model
from search_spaces.errors import InputError
from search_spaces.space import Assembled, Shape
from search_spaces.tuner_loading import failure_text

if TYPE_CHECKING:
    import keras

SCALING = ("Rescaling", "Normalization", "Lambda", "BatchNormalization")


def check_model(model: Any, input_shape: Shape, num_classes: int, label: str) -> tuple[str, ...]:
    """What is to be known of the models of a space, a sentence each.

    Args:
        model: what the space built from its defaults.
        label: how messages call the space.

    Raises:
        InputError: It is no compiled model that makes class probabilities of raw pixels.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise InputError(
            "A space must build a keras.Model. Received: "
            f"'{label}', which builds a {type(model).__name__}."
        )
    if not getattr(model, "compiled", False):
        raise InputError(
            f"A space must compile its model. Received: '{label}', which does not. End it with "
            "model.compile(optimizer=..., loss='sparse_categorical_crossentropy', "
            "metrics=['accuracy'])."
        )
    _check_probabilities(_output(model, input_shape, label), num_classes, label)
    notes = []
    if not any(type(layer).__name__ in SCALING for layer in _first_layers(model)):
        notes.append(
            f"'{label}' gets pixels from 0 to 255 and does not seem to rescale them: "
            "keras.layers.Rescaling(1/255) as its first layer does"
        )
    with tempfile.TemporaryDirectory(prefix="keras-sweeps-") as folder:
        assembled = Assembled(model, 1, is_ours=False)
        _, why = store_model(assembled, Path(folder) / "model.keras")
    if why:
        notes.append(
            f"models of '{label}' are trained and recorded, but cannot be kept without code of "
            f"their own: {why}"
        )
    return tuple(notes)


def _output(model: keras.Model, input_shape: Shape, label: str) -> np.ndarray:
    import keras

    pixels = np.random.default_rng(0).integers(0, 256, (2, *input_shape), np.uint8)
    try:
        found = model(pixels, training=False)
        return np.asarray(keras.ops.convert_to_numpy(found), np.float32)
    except Exception as error:  # Whatever the layers make of pixels.
        height, width, channels = input_shape
        raise InputError(
            f"A space's model must take the data's pictures, {height}x{width}x{channels}, as raw "
            f"pixels (uint8, 0 to 255). Received: '{label}', whose model fails on them: "
            f"{failure_text(error)}. Begin it with keras.Input({input_shape}) and "
            "keras.layers.Rescaling(1/255); a class or function that takes input_shape is given it."
        ) from error


def _check_probabilities(found: np.ndarray, num_classes: int, label: str) -> None:
    if found.shape != (2, num_classes):
        raise InputError(
            f"A space's model must give one probability for each of the data's {num_classes} "
            f"classes. Received: '{label}', whose model gives {tuple(found.shape[1:])} for a "
            "picture. A class or function that takes num_classes (or classes) is given it."
        )
    sums = found.sum(axis=1)
    if not (np.isfinite(found).all() and found.min() >= 0
            and np.abs(sums - 1).max() <= SUM_TOLERANCE):  # fmt: skip
        raise InputError(
            "A space's model must give class probabilities, which are at least 0 and sum to 1. "
            f"Received: '{label}', whose output ranges from {found.min():.3g} to "
            f"{found.max():.3g}. End it with activation='softmax'."
        )


def _first_layers(model: keras.Model) -> list[Any]:
    """The first few layers, those of nested models too."""
    found: list[Any] = []
    for layer in model.layers[:4]:
        found.append(layer)
        found += list(getattr(layer, "layers", []))[:4]
    return found
