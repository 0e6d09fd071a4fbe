"""Training images in the order of an epoch: from memory where they fit, else from the disk.

Both give the same batches, so a trial's numbers do not depend on how much memory there is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipelines.data.arrays import PixelRows
from pipelines.data.prepared import Part, PreparedData
from search_spaces.pixels import UNIT, scaled

if TYPE_CHECKING:
    from pipelines.training.options import TrainingOptions

STREAM_ABOVE_BYTES = 2**30
"""Training pixels up to this size are copied into a trial's memory in every epoch, in its order;
more are read from the mapped file batch by batch. Each of several trials has a copy of its own."""


def part_of(
    data: PreparedData, part: Part, options: TrainingOptions
) -> tuple[PixelRows, np.ndarray]:
    """Pixels (n, height, width, channels) of a part as the model gets them, and labels (n,).

    Args:
        options: as decided for the model (`pipelines.models.input_scale.decided`).
    """
    x, y = data.arrays(part)
    return UnitPixels(x) if options.pixels == UNIT else x, y


class UnitPixels:
    """Pixels from 0 to 255 as float32 from 0 to 1; what is read is divided when it is read."""

    def __init__(self, raw: np.ndarray) -> None:
        self._raw = raw
        self.shape, self.dtype = raw.shape, np.dtype(np.float32)
        self.nbytes = raw.size * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """The rows of these numbers, of a slice, or one row."""
        return scaled(np.asarray(self._raw[rows]), UNIT)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows."""
        return np.asarray(self[:], dtype)


class JoinedRows:
    """Mapped arrays of one row shape as if they were one; rows are read when they are asked for."""

    def __init__(self, parts: Sequence[PixelRows]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def nbytes(self) -> int:
        """Size of all rows."""
        return sum(part.nbytes for part in self._parts)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The rows of these numbers, in that order."""
        found = np.empty((len(rows), *self._parts[0].shape[1:]), self._parts[0].dtype)
        first = 0
        for part, end in zip(self._parts, self._ends, strict=True):
            here = (rows >= first) & (rows < end)
            found[here] = part[rows[here] - first]
            first = end
        return found


class Pixels(Protocol):
    """Images (height, width, channels) that are read by their numbers."""

    @property
    def nbytes(self) -> int:
        """Size of all of them."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Those of these numbers (n,), in that order: (n, height, width, channels)."""


def epoch_input(
    x: Pixels,
    y: np.ndarray,
    order: np.ndarray,
    batch_size: int,
    stream_above: int = STREAM_ABOVE_BYTES,
) -> dict[str, Any]:
    """The arguments of Keras' `fit` that give the images in this order.

    Args:
        x: (n, height, width, channels) uint8, mapped from disk.
        y: (n,) int64.
        order: a permutation of range(n).
        stream_above: bytes of `x` above which it is not copied into memory.
    """
    if x.nbytes <= stream_above:
        return {"x": np.asarray(x[order]), "y": y[order], "batch_size": batch_size}
    import keras

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        """Reads a batch when it is wanted; TensorFlow asks for some in advance."""

        def __len__(self) -> int:
            return math.ceil(len(order) / batch_size)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            rows = order[index * batch_size : (index + 1) * batch_size]
            # Read in the file's order, which disks like, and put into that of the epoch.
            by_place = np.argsort(rows)
            read = x[rows[by_place]]
            pixels = np.empty_like(read)
            pixels[by_place] = read
            return pixels, y[rows]

    return {"x": Batches()}


def evenly_spread(labels: np.ndarray, count: int) -> np.ndarray:
    """The numbers (at most about `count`) of images with the classes' shares as they are, rising.

    Of each class every so manieth image; always the same ones, so what is measured on them can be
    compared. Every class that there is has at least one.
    """
    if len(labels) <= count:
        return np.arange(len(labels))
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        num = max(1, round(count * len(members) / len(labels)))
        chosen.append(members[np.linspace(0, len(members) - 1, num).round().astype(int)])
    return np.sort(np.concatenate(chosen))


def class_weight(y: np.ndarray, how: str) -> dict[int, float] | None:
    """The weight of each class in the loss: None, or n / (classes x images of the class).

    The balanced heuristic of King and Zeng 2001, "Logistic Regression in Rare Events Data".
    """
    if how == "none":
        return None
    counts = np.bincount(y)
    present = np.flatnonzero(counts)
    return {int(k): len(y) / (len(present) * int(counts[k])) for k in present}
