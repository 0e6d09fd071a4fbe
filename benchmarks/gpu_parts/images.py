"""What all parts train on: MNIST where this machine has it, made images elsewhere; no download."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pipelines.data.builtin import keras_cache, load
from sweeps.setup.data import SILENT, prepare_data

MNIST, DIGITS = "mnist", "digits"
MADE = "made images of MNIST's shape (no mnist.npz in SWEEPS_DATA_DIR or Keras' cache)"
NUM_TRAIN, NUM_TEST, SIDE = 60_000, 10_000, 28


def prepare_images(folder: Path, root: Path, *, stand_in: bool) -> tuple[str, str]:
    """Prepares the images under `root`, once for all parts.

    Args:
        folder: for a file of images, where one is made.

    Returns:
        What `--dataset` takes, and what it is, for people.
    """
    dataset, words = _found(folder, stand_in=stand_in)
    prepare_data(dataset, root, progress=SILENT)
    return dataset, words


def _found(folder: Path, *, stand_in: bool) -> tuple[str, str]:
    if stand_in:
        # As a file: the set of that name is read by scikit-learn, seconds in every process.
        arrays = load(DIGITS)[0]
        parts = {name: getattr(arrays, name) for name in ("x_train", "y_train", "x_test", "y_test")}
        np.savez(folder / f"{DIGITS}.npz", **parts)
        return str(folder / f"{DIGITS}.npz"), "scikit-learn's digits"
    own = os.environ.get("SWEEPS_DATA_DIR")
    if any((Path(place) / "mnist.npz").is_file() for place in (own, keras_cache()) if place):
        return MNIST, "MNIST"
    np.savez(folder / "made.npz", **made_images())  # type: ignore[arg-type]
    return str(folder / "made.npz"), MADE


def made_images() -> dict[str, np.ndarray]:
    """Images of noise around ten patterns, with MNIST's shapes; a model can learn them."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 128, (10, SIDE, SIDE), np.uint8)
    arrays: dict[str, np.ndarray] = {}
    for part, num in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        labels = random.integers(0, len(patterns), num)
        noise = random.integers(0, 128, (num, SIDE, SIDE), np.uint8)
        arrays |= {f"x_{part}": patterns[labels] + noise, f"y_{part}": labels}
    return arrays
