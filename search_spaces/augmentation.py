"""How training images are varied, where a space says so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Augmentation:
    """Random changes of every training image in every epoch.

    Attributes:
        shift_pixels: largest shift in each direction, in whole pixels; what enters is black.
        flip: whether every other image is mirrored, left to right.
    """

    shift_pixels: int = 0
    flip: bool = False

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self.shift_pixels > 0 or self.flip
