"""What a point costs, known before it trains."""

from __future__ import annotations

from dataclasses import dataclass


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
