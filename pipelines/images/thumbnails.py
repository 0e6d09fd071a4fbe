"""Pictures as small PNG files, for pages that hold many."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

MAX_SIDE = 96
"""Pixels; larger pictures are made smaller."""


def thumbnail(pixels: np.ndarray) -> bytes:
    """A PNG of pixels (height, width, 1 or 3 channels) uint8.

    Of other numbers of channels the first one is shown.
    """
    shown = pixels if pixels.shape[-1] == 3 else pixels[..., 0]
    image = Image.fromarray(np.ascontiguousarray(shown))
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
