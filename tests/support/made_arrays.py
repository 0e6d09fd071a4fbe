"""Small learnable pictures."""

from __future__ import annotations

import numpy as np

from pipelines.data.arrays import ImageArrays


def make_arrays(num_train: int = 120, side: int = 8, num_classes: int = 3) -> ImageArrays:
    """Pictures whose class is the third of the picture that is bright: learnable in an epoch."""
    generator = np.random.default_rng(0)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % num_classes
        pixels = generator.integers(0, 60, (count, side, side, 1))
        for image, label in zip(pixels, labels, strict=True):
            width = side // num_classes
            image[:, label * width : (label + 1) * width] += 150
        return pixels.astype(np.uint8), labels.astype(np.int64)

    return ImageArrays(*part(num_train), *part(30))
