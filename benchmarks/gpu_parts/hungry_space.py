"""A user's space whose models take much memory from their second epoch on (`halving.py`)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import keras_tuner

EPOCHS_LOG = "epochs.log"
PIECES = 8
MOST_MEBIBYTES = 2**24


class Hungry(keras_tuner.HyperModel):
    """One dense layer, and arrays beside it; `mebibytes` is what they take together."""

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.input_shape, self.num_classes = input_shape, num_classes

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The model; its rate is the name of its trial in the log."""
        hp.Int("mebibytes", 1, MOST_MEBIBYTES)
        model = keras.Sequential([
            keras.Input(self.input_shape), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
            keras.layers.Dense(self.num_classes, activation="softmax"),
        ])  # fmt: skip
        rate = hp.Float("rate", 1e-3, 1e-2, sampling="log")
        model.compile(
            keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        return model

    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Called for each epoch; notes that it begins, and takes the memory from the second on."""
        epoch = kwargs.get("initial_epoch", 0)
        with Path(__file__).with_name(EPOCHS_LOG).open("a") as log:
            log.write(f"{hp.get('rate')!r} {epoch}\n")
        held = _taken(hp.get("mebibytes") * 2**20) if epoch else []
        found = model.fit(*args, batch_size=128, **kwargs)
        held.clear()
        return found


def _taken(num_bytes: int) -> list[Any]:
    """Arrays of so many bytes together.

    Raises:
        Exception: Whatever the backend raises when there is no room for them.
    """
    stand_in = sys.modules.get("device_stand_in")
    if stand_in is not None:  # Nobody limits the cores: made up, where the part is smaller.
        from gpu_parts.jobs import FillTask, made_up

        share = stand_in.share_bytes or num_bytes
        return [made_up(FillTask("array", share, pretends=True), num_bytes)]
    held = []
    for _ in range(PIECES):
        array = keras.ops.ones((num_bytes // PIECES // 4,), "float32")
        keras.ops.convert_to_numpy(array[:1])  # Waits until it is there.
        held.append(array)
    return held
