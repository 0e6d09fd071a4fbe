"""Images of the small sweeps: parts that are given, so that every side trains on the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PARTS = ("train", "val", "test")


def in_parts(x: np.ndarray, y: np.ndarray, sizes: Sequence[int]) -> dict[str, np.ndarray]:
    """The first images to train on, the next to validate on, the next to test, by array name.

    Args:
        x: images, (N, height, width) of pixels from 0 to 255.
        y: classes, (N,).
        sizes: of the parts; where there are fewer images, all parts are smaller alike.
    """
    share = min(1.0, len(x) / sum(sizes))
    arrays: dict[str, np.ndarray] = {}
    begin = 0
    for part, size in zip(PARTS, sizes, strict=True):
        end = begin + int(size * share)
        arrays[f"x_{part}"], arrays[f"y_{part}"] = x[begin:end], y[begin:end]
        begin = end
    return arrays
