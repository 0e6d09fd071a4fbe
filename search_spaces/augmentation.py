"""How training images are changed at random: what a point asks of whoever feeds its model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Augmentation:
    """Random changes of each training image; none of them is a layer of the model.

    Keras' layers for it cost up to half of the throughput, and the model that is kept needs none.

    Attributes:
        shift_pixels: an image is moved by up to so many pixels, up or down and left or right;
            what comes in at the border is 0.
        flip: whether one half of the images, chosen at random, is mirrored left to right.
    """

    shift_pixels: int = 0
    flip: bool = False

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self.shift_pixels > 0 or self.flip
