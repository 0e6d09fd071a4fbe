"""The small model for keras-sweeps, with a count of the epochs that it trains."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from small_cnn import build


class Counted(keras_tuner.HyperModel):
    """The model; each epoch that comes to its end is a line of `EPOCHS_FILE`.

    For a comparison of what kills cost: a peer prints its epochs, ours keeps them for itself.
    """

    def build(self, hp: Any) -> keras.Model:
        """As Keras Tuner calls it."""
        return build(hp)

    def fit(self, hp: Any, model: keras.Model, *args: Any, callbacks: Any, **options: Any) -> Any:
        """As Keras Tuner calls it; here once for each epoch."""
        counted = keras.callbacks.LambdaCallback(on_epoch_end=_count)
        return model.fit(*args, callbacks=[*callbacks, counted], **options)


def _count(epoch: int, logs: Any) -> None:
    with Path(os.environ["EPOCHS_FILE"]).open("a", encoding="utf-8") as file:
        file.write(f"{epoch}\n")
