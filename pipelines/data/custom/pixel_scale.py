"""Whether arrays of pixels are from 0 to 1 or from 0 to 255, and the bytes that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pipelines.data.array_files import ArrayFile
from pipelines.data.splits import some
from search_spaces.errors import InputError

Kind = Literal["0 to 1", "0 to 255", "0"]
"""`0` is an array of zeros, which goes with either."""
OVERSHOOT = 1e-3
"""So much above 1 or 255 is rounding: a fifth of a step of a byte."""
UNCLEAR = 2
"""A largest fraction between 1 and this is neither scale: resizing overshoots, bytes do not end
there."""


def scale_factors(
    pixels: Sequence[ArrayFile], origin: str
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """What the pixels of each array are multiplied with to be 0 to 255, and what to say of it.

    Looks at the values: fractions that end at 1, and whole numbers that do (masks), are 0 to 1.

    Raises:
        InputError: They are of neither scale, or not all of one.
    """
    kinds: dict[str, Kind] = {}
    masks = []
    for file in pixels:
        low, high = _span(file)
        kinds[file.name] = _kind(file, low, high)
        if kinds[file.name] == "0 to 1" and file.dtype.kind in "iu":
            masks.append(file.name.partition(" in ")[0])
    if {"0 to 1", "0 to 255"} <= set(kinds.values()):
        found = ", ".join(f"{name.partition(' in ')[0]} is {kind}" for name, kind in kinds.items())
        raise InputError(
            "The pixels of all parts must be of one scale, 0 to 1 or 0 to 255. Received: "
            f"{found} in {origin}. Scale them alike."
        )
    factor = 255.0 if "0 to 1" in kinds.values() else 1.0
    notes = (f"the 0 and 1 of {some(masks)} became 0 and 255",) if masks else ()
    return (factor,) * len(kinds), notes


def as_bytes(rows: np.ndarray, factor: float) -> np.ndarray:
    """Pixels as uint8."""
    if rows.dtype == np.uint8 and factor == 1:
        return rows
    return np.round(rows.astype(np.float32) * factor).astype(np.uint8)


def _span(file: ArrayFile) -> tuple[float, float]:
    """The smallest and the largest value; of bytes no more than whether there is one above 1."""
    low, high = np.inf, -np.inf
    for rows in file.rows():
        if file.dtype.kind == "f" and not np.isfinite(rows).all():
            raise InputError(
                f"Pixels must be finite. Received: NaN or infinity in {file.name}. Remove or "
                "repair those images."
            )
        low, high = min(low, float(rows.min())), max(high, float(rows.max()))
        if file.dtype == np.uint8 and high > 1:
            break
    return low, high


def _kind(file: ArrayFile, low: float, high: float) -> Kind:
    rule = "Pixels must be from 0 to 255, or from 0 to 1."
    if low < 0 or high > 255 + OVERSHOOT:
        raise InputError(f"{rule} Received: {low:g} to {high:g} in {file.name}. Rescale them.")
    if high == 0:
        return "0"
    if high <= 1 + OVERSHOOT:
        return "0 to 1"
    if file.dtype.kind == "f" and high < UNCLEAR:
        raise InputError(
            f"{rule} Received: {low:g} to {high:g} in {file.name}, which is neither. Clip them "
            "to 0 to 1, or scale them to 0 to 255."
        )
    return "0 to 255"
