"""What a data set holds: its parts in numbers, and a figure of training samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.data.arrays import row_pieces
from pipelines.data.prepared import PARTS, Part, PreparedData

NUM_SAMPLES = 25


@dataclass(frozen=True)
class PartSummary:
    """One part of a data set, such as `train`.

    Attributes:
        shape: of one image.
        lowest, highest, mean, deviation: of all pixels; `deviation` is the standard deviation.
        class_counts: images of each class, in the order of their labels.
    """

    name: str
    num_images: int
    shape: tuple[int, ...]
    dtype: str
    lowest: int
    highest: int
    mean: float
    deviation: float
    class_counts: tuple[int, ...]


def summarize(data: PreparedData) -> list[PartSummary]:
    """Every part of a data set in numbers, training data first."""
    return [_summary_of(data, part) for part in PARTS]


def _summary_of(data: PreparedData, part: Part) -> PartSummary:
    x, y = data.arrays(part)
    pixels = _pixel_counts(x)
    values, total = np.arange(256), pixels.sum()
    mean = float((pixels * values).sum() / total)
    deviation = float(np.sqrt((pixels * (values - mean) ** 2).sum() / total))
    there = np.flatnonzero(pixels)
    counts = np.bincount(y, minlength=data.num_classes)
    return PartSummary(
        part,
        len(x),
        x.shape[1:],
        str(x.dtype),
        int(there[0]),
        int(there[-1]),
        mean,
        deviation,
        tuple(map(int, counts)),
    )


def _pixel_counts(x: np.ndarray) -> np.ndarray:
    """(256,): how many pixels have each value, read piece by piece: it may not fit in memory."""
    counts = np.zeros(256, np.int64)
    for piece in row_pieces(x):
        counts += np.bincount(piece.reshape(-1), minlength=256)
    return counts


def largest_and_smallest(class_counts: Sequence[int], num_shown: int) -> list[int]:
    """Labels in order where `num_shown` hold all, else half of the largest, half of the smallest.

    The largest class comes first then; of equals the one with the lower label.
    """
    if len(class_counts) <= num_shown:
        return list(range(len(class_counts)))
    by_size = sorted(range(len(class_counts)), key=lambda label: -class_counts[label])
    half = num_shown // 2
    return by_size[:half] + by_size[-half:]


def draw_samples(data: PreparedData, path: Path, seed: int) -> int:
    """Draws training samples into a file; returns how many."""
    from pipelines.evaluation.figures import draw_images

    x, y = data.arrays("train")
    count = min(NUM_SAMPLES, len(x))
    chosen = np.sort(np.random.default_rng(seed).choice(len(x), count, replace=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    captions = [data.class_names[label] for label in y[chosen]]
    draw_images(x[chosen], captions, f"{data.name}: {count} training samples", path)
    return count
