"""How long a model takes to predict one image."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras
    import numpy as np

WARM_UP_CALLS, TIMED_CALLS = 5, 30


def latency_ms(model: keras.Model, image: np.ndarray) -> float:
    """The median time of a prediction of one image, in milliseconds.

    By a function of its own, compiled for a batch of one: the model's own would be compiled again
    for another size of batches, and could round differently from then on.

    Args:
        image: raw pixels (1, height, width, channels).
    """
    compiled, model.predict_function = model.predict_function, None
    try:
        for _ in range(WARM_UP_CALLS):
            model.predict_on_batch(image)
        return 1000 * statistics.median(_seconds(model, image) for _ in range(TIMED_CALLS))
    finally:
        model.predict_function = compiled


def _seconds(model: keras.Model, image: np.ndarray) -> float:
    before = time.perf_counter()
    model.predict_on_batch(image)
    return time.perf_counter() - before


def latency_or_none(model: keras.Model, image: np.ndarray) -> float | None:
    """The same; None for a model that cannot predict one image alone."""
    try:
        return latency_ms(model, image)
    except Exception:  # A model of a user's own: its training must not be lost for a figure.
        return None
