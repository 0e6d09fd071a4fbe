"""What pixels a model is given: as they are stored, or from 0 to 1."""

from __future__ import annotations

import numpy as np

RAW, UNIT, AUTO = "raw", "unit", "auto"
"""From 0 to 255; from 0 to 1; what the model itself shows that it expects."""
PIXELS = (AUTO, RAW, UNIT)
UNIT_SCALE = np.float32(1 / 255)
"""As `keras.layers.Rescaling(1 / 255)` multiplies, so that a stored model gives the same."""


def scaled(raw: np.ndarray, pixels: str) -> np.ndarray:
    """Pixels from 0 to 255 as they are, or as float32 from 0 to 1 where `pixels` is UNIT."""
    return raw.astype(np.float32) * UNIT_SCALE if pixels == UNIT else raw
