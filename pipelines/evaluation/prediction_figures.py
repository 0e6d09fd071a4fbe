"""A picture of pictures: each as the model saw it, beside the probabilities of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.evaluation.captions import plain_text
from pipelines.images.reading import Picture
from pipelines.runtime.filesystem import check_writable
from search_spaces.errors import InputError

MAX_DRAWN = 50
"""Rows of one drawing; more would not be looked at."""
MAX_BARS = 12
NAME_CHARACTERS = 40


def new_picture(given: str, option: str = "--picture") -> Path:
    """The file that an option names for a drawing.

    Raises:
        InputError: It is there already, is no .png, or its folder is missing or not writable.
    """
    path = Path(given)
    if path.exists():
        raise InputError(f"{option} must name a new file. Received: {path}, which exists.")
    if path.suffix.lower() != ".png":
        raise InputError(f"{option} must end in .png. Received: {path}.")
    if not path.parent.is_dir():
        raise InputError(f"{option} must be in an existing folder. Received: {path}.")
    check_writable(path.parent, option)
    return path


def draw_predictions(
    pictures: Sequence[Picture],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """One row per picture: its pixels, and a bar per class, or per most probable class of many.

    Args:
        probabilities: (pictures, classes).
    """
    from matplotlib.figure import Figure

    bars = min(MAX_BARS, len(class_names))
    height = max(1.9, 0.19 * bars + 0.7)
    figure = Figure(figsize=(7.2, height * len(pictures) + 0.5), layout="constrained")
    figure.suptitle(plain_text(title), fontsize=11)
    grid = figure.subplots(len(pictures), 2, squeeze=False, width_ratios=(1, 2.2))
    for (left, right), picture, row in zip(grid, pictures, probabilities, strict=True):
        pixels = picture.pixels
        image = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        left.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        left.axis("off")
        left.set_title(plain_text(_short(picture.path.name)), fontsize=9)
        best = np.argsort(-row, kind="stable")[:bars]
        shown = np.sort(best)  # In the order of the classes, so that rows can be compared.
        colours = ["tab:orange" if i == best[0] else "tab:blue" for i in shown]
        right.barh(range(bars), row[shown], color=colours)
        right.set_yticks(range(bars), [plain_text(class_names[i]) for i in shown], fontsize=8)
        right.invert_yaxis()
        right.set_xlim(0, 1)
        right.tick_params(axis="x", labelsize=8)
        name = plain_text(class_names[best[0]])
        right.set_title(f"{name}: {row[best[0]]:.1%}", fontsize=9)
    figure.savefig(path, dpi=100)


def _short(name: str) -> str:
    half = NAME_CHARACTERS // 2
    return name if len(name) <= NAME_CHARACTERS else f"{name[: half - 1]}…{name[-half:]}"
