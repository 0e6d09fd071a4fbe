"""Folders of small pictures for tests: the class is the colour, or the side that is bright."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}
SUFFIXES = ("png", "jpg", "bmp", "gif", "webp", "tiff")


def picture(name: str, seed: int, size: tuple[int, int] = (12, 12)) -> Image.Image:
    """A noisy picture (width, height) of a class's colour."""
    noise = np.random.default_rng([seed, *name.encode()]).normal(0, 25, (size[1], size[0], 3))
    return Image.fromarray(np.clip(COLOURS[name] + noise, 0, 255).astype(np.uint8))


def make_folder(
    root: Path,
    count: int = 10,
    *,
    names: Sequence[str] = tuple(COLOURS),
    size: tuple[int, int] = (12, 12),
    suffixes: Sequence[str] = ("png",),
    mode: str = "RGB",
    first: int = 0,
) -> Path:
    """`root/CLASS/0.png` and so on."""
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(first, first + count):
            suffix = suffixes[k % len(suffixes)]
            picture(name, k, size).convert(mode).save(root / name / f"{k}.{suffix}")
    return root
