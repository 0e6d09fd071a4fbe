"""Shifted and mirrored training images, by slices of whole groups of images.

Keras' layers move each image by an interpolation inside the model: that lowers the throughput of a
small model to about half, and puts layers into the model that only training needs. Shifts by whole
pixels need no interpolation: all images with one shift are one slice (docs/log.md has figures).
"""

from __future__ import annotations

import numpy as np

from pipelines.training.feeding import Pixels
from search_spaces.augmentation import Augmentation

_PURPOSE = 2
"""Tells these draws from those of an epoch's order, which follow from seed and epoch, too."""


class AugmentedRows:
    """The images of one epoch, changed as the draws for that epoch say; changed when they are read.

    What happens to an image follows from the seed, the epoch and the image's number alone, so
    images that are read batch by batch are those that would have been changed all at once.

    Args:
        pixels: (n, height, width, channels), as they are stored.
        seed: of the trial.
        epoch: counts from 1.
    """

    def __init__(self, pixels: Pixels, augmentation: Augmentation, seed: int, epoch: int) -> None:
        self._pixels, self._shift = pixels, augmentation.shift_pixels
        self.nbytes = pixels.nbytes
        rng, num = np.random.default_rng([seed, epoch, _PURPOSE]), len(pixels)
        side = 2 * self._shift + 1
        down, right = rng.integers(0, side, (2, num))
        mirrored = rng.integers(0, 2, num) if augmentation.flip else 0
        self._kinds = (down * side + right) * 2 + mirrored

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The changed images of these numbers, in that order."""
        pixels = np.asarray(self._pixels[rows])
        shift, (height, width) = self._shift, pixels.shape[1:3]
        margin = ((0, 0), (shift, shift), (shift, shift), (0, 0))
        padded = np.pad(pixels, margin) if shift else pixels
        changed, kinds = np.empty_like(pixels), self._kinds[rows]
        for kind in np.unique(kinds):
            place, mirrored = divmod(int(kind), 2)
            top, left = divmod(place, 2 * shift + 1)
            chosen = np.flatnonzero(kinds == kind)
            part = padded[chosen, top : top + height, left : left + width]
            changed[chosen] = part[:, :, ::-1] if mirrored else part
        return changed
