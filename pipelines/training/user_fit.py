"""Whether a HyperModel's own `fit` trained the one epoch that it was called for."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

WAY_OUT = (
    "It is called once per epoch: pass its `epochs` and `initial_epoch` on to model.fit, or "
    "neither, or train one epoch in a loop of your own."
)


class EpochError(RuntimeError):
    """A `fit` trained nothing, or more than the epoch that it was called for."""


def standing(model: keras.Model) -> tuple[int, ...]:
    """What one training step changes: the optimizer's count of steps, or else weights."""
    import keras

    optimizer = getattr(model, "optimizer", None)
    steps = int(keras.ops.convert_to_numpy(optimizer.iterations)) if optimizer is not None else 0
    digest = 0
    for variable in model.trainable_variables:
        value = np.asarray(keras.ops.convert_to_numpy(variable))
        digest = zlib.crc32(value.tobytes(), digest)
    return steps, digest


def check_one_epoch(
    before: tuple[int, ...], after: tuple[int, ...], history: Any, epoch: int
) -> None:
    """Raises EpochError unless a `fit` trained, and told of no more than one epoch.

    Args:
        before, after: the model's `standing`.
        history: whatever `fit` returned.
    """
    if before == after:
        raise EpochError(f"The HyperModel's own fit trained nothing in epoch {epoch}. {WAY_OUT}")
    told = getattr(history, "history", history)
    lists = [v for v in told.values() if isinstance(v, list)] if isinstance(told, Mapping) else []
    most = max(map(len, lists), default=1)
    if most > 1:
        raise EpochError(
            f"The HyperModel's own fit trained {most} epochs where epoch {epoch} was wanted. "
            f"{WAY_OUT}"
        )
