"""What a point costs, known before it trains."""

from __future__ import annotations

from dataclasses import dataclass

BYTES_PER_PARAMETER, BYTES_OF_LAYERS = 4, 40_000
"""Of a stored model: float32 weights, and what describes its layers."""


@dataclass(frozen=True)
class Cost:
    """The size of a point's model.

    Attributes:
        num_parameters: as Keras' `count_params()`, moving statistics included.
        multiply_adds: of the convolutions and dense layers, for one image, forward. Other layers
            multiply next to nothing, and a training step takes about three times as many.
    """

    num_parameters: int
    multiply_adds: int


def quantities_of(cost: Cost | None) -> dict[str, float]:
    """What follows from the size of a model, by the names of limits; empty where it is unknown."""
    if cost is None:
        return {}
    return {
        "parameters": cost.num_parameters,
        "multiply_adds": cost.multiply_adds,
        "model_bytes": cost.num_parameters * BYTES_PER_PARAMETER + BYTES_OF_LAYERS,
    }
