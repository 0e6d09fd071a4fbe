"""What every program of this folder trains; only the learning rate varies."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

LOWEST, HIGHEST = 1e-3, 1e-2
BATCH_SIZE = 128
VALIDATION_BATCH_SIZE = 256
"""As ours has it: with Keras' own 32 or 128 a comparison would flatter ours."""


def load(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images from 0 to 1 with a channel, and classes: to train on, and to validate on."""
    with np.load(path) as file:
        x, x_val = (file[n].astype("float32")[..., None] / 255.0 for n in ("x_train", "x_val"))
        return x, file["y_train"], x_val, file["y_val"]


def make_model(learning_rate: float) -> keras.Model:
    """Two convolutions, compiled."""
    model = keras.Sequential([
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(64, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def build(hp: Any) -> keras.Model:
    """The same as a function for Keras Tuner, and for keras-sweeps."""
    return make_model(hp.Float("learning_rate", LOWEST, HIGHEST, sampling="log"))
