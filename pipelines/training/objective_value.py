"""The value of an objective that is not measured from a model's predictions.

It is what a HyperModel's own `fit` returned, or a metric that the model was compiled with, measured
on the validation images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from pipelines.objectives import OBJECTIVES, Objective
from pipelines.training.epoch import NonFiniteLossError
from pipelines.training.feeding import STREAM_ABOVE_BYTES, Pixels, epoch_input
from search_spaces.labels import labels_for
from search_spaces.space import Assembled


class MissingObjectiveError(LookupError):
    """An epoch did not give the value that is to be optimised."""


def compiled_values(
    assembled: Assembled,
    x: Pixels,
    y: np.ndarray,
    num_classes: int,
    batch_size: int,
    stream_above: int = STREAM_ABOVE_BYTES,
) -> dict[str, float]:
    """What the metrics that a model was compiled with say of images, `val_` before their names.

    Those that are measured from predictions are left out; empty for a model that is not compiled.

    Args:
        x: (n, height, width, channels) uint8.
        y: (n,) class numbers.
    """
    model = assembled.model
    if not getattr(model, "compiled", False):
        return {}
    labels = labels_for(y, num_classes, one_hot=assembled.one_hot)
    given = epoch_input(x, labels, np.arange(len(y)), batch_size, stream_above)
    found = model.evaluate(**given, verbose=0, return_dict=True)
    named = {f"val_{name}": float(value) for name, value in found.items()}
    return {name: value for name, value in named.items() if name not in OBJECTIVES}


def check_value(objective: Objective, metrics: Mapping[str, float], epochs: str) -> None:
    """Checks that an epoch gave a value of the objective.

    Args:
        epochs: how many were trained, for people.

    Raises:
        MissingObjectiveError: There is none.
        NonFiniteLossError: It is NaN or infinite.
    """
    value = metrics.get(objective.metric)
    if value is None:
        raise MissingObjectiveError(
            f"Epoch {epochs} gave no '{objective.metric}', which is the objective. Return it from "
            "fit under that name, compile the model with such a metric, or choose another "
            "--objective."
        )
    if not math.isfinite(value):
        raise NonFiniteLossError(
            f"The objective '{objective.metric}' became {value} after epoch {epochs}."
        )
