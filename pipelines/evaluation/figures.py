"""Figures of data, training, mistakes and predictions.

No pyplot: figures are objects, nothing is global. Matplotlib is imported where something is drawn,
because commands read this module's names before they know whether they draw.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.data.prepared import PreparedData
from pipelines.evaluation.figure_style import in_own_style
from pipelines.evaluation.metrics import confident_mistakes, confusion_matrix
from pipelines.training.checkpoints import (
    CONFUSION_PICTURE,
    CONFUSION_TABLE,
    CURVES_PICTURE,
    HISTORY_FILE,
    MISTAKES_PICTURE,
    PREDICTIONS_FILE,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.images.reading import Picture

NUM_MISTAKES = 16
MAX_CELLS_WITH_TEXT = 20
MAX_DRAWN = 50
"""Rows of one drawing of predictions; more would not be looked at."""
MAX_BARS = 12
NAME_CHARACTERS = 40


@in_own_style
def render_trial(folder: str, data: PreparedData) -> None:
    """Draws a finished trial's curves, confusion matrix and mistakes from its own files.

    Curves alone, where nothing validated. The predictions are the caller's to remove, once the
    images are where they belong.
    """
    path = Path(folder)
    _draw_curves(path / HISTORY_FILE, path / CURVES_PICTURE)
    if not (path / PREDICTIONS_FILE).exists():
        return
    probabilities = np.load(path / PREDICTIONS_FILE, allow_pickle=False)["probabilities"]
    pixels, labels = data.arrays("validation")
    matrix = confusion_matrix(probabilities, labels, data.num_classes)
    _draw_confusion(matrix, data.class_names, path / CONFUSION_PICTURE)
    with (path / CONFUSION_TABLE).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([data.class_names, *matrix.tolist()])
    worst = confident_mistakes(probabilities, labels, NUM_MISTAKES)
    captions = [
        f"{data.class_names[labels[i]]} taken for {data.class_names[probabilities[i].argmax()]}\n"
        f"({probabilities[i].max():.1%} sure)"
        for i in worst
    ]
    title = "Most confident mistakes on validation" if len(worst) else "No mistake on validation"
    draw_images(pixels[worst], captions, title, path / MISTAKES_PICTURE)


@in_own_style
def draw_images(pixels: np.ndarray, captions: list[str], title: str, path: Path) -> None:
    """A grid of images (n, height, width, channels) with a caption each."""
    columns = max(1, int(np.ceil(np.sqrt(len(pixels)))))
    rows = max(1, -(-len(pixels) // columns))
    figure = _figure(1.6 * columns + 0.4, 1.95 * rows + 0.6)
    figure.suptitle(_plain_text(title))
    for k, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if k < len(pixels):
            image = pixels[k]
            axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray")
            axes.set_title(_plain_text(captions[k]), fontsize=8)
    figure.savefig(path, dpi=100)


@in_own_style
def draw_predictions(
    pictures: Sequence[Picture],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """One row per image: its pixels as the model saw them, and a bar per class.

    Of many classes only the most probable ones have a bar.

    Args:
        probabilities: (images, classes).
    """
    bars = min(MAX_BARS, len(class_names))
    height = max(1.9, 0.19 * bars + 0.7)
    figure = _figure(7.2, height * len(pictures) + 0.5)
    figure.suptitle(_plain_text(title), fontsize=11)
    grid = figure.subplots(len(pictures), 2, squeeze=False, width_ratios=(1, 2.2))
    for (left, right), picture, row in zip(grid, pictures, probabilities, strict=True):
        pixels = picture.pixels
        image = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        left.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        left.axis("off")
        left.set_title(_plain_text(_short(picture.path.name)), fontsize=9)
        best = np.argsort(-row, kind="stable")[:bars]
        shown = np.sort(best)  # In the order of the classes, so that rows can be compared.
        colours = ["tab:orange" if i == best[0] else "tab:blue" for i in shown]
        right.barh(range(bars), row[shown], color=colours)
        right.set_yticks(range(bars), [_plain_text(class_names[i]) for i in shown], fontsize=8)
        right.invert_yaxis()
        right.set_xlim(0, 1)
        right.tick_params(axis="x", labelsize=8)
        name = _plain_text(class_names[best[0]])
        right.set_title(f"{name}: {row[best[0]]:.1%}", fontsize=9)
    figure.savefig(path, dpi=100)


def _figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_curves(history: Path, path: Path) -> None:
    from matplotlib.ticker import MaxNLocator

    with history.open() as file:
        rows = list(csv.DictReader(file))
    epochs = [float(row["epoch"]) for row in rows]
    figure = _figure(9, 3.6)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for name, label in ((metric, "training"), (f"val_{metric}", "validation")):
            if name not in rows[0]:
                continue  # A HyperModel's own loop need not tell its loss.
            reported = [
                (e, float(row[name])) for e, row in zip(epochs, rows, strict=True) if row[name]
            ]
            axes.plot(*zip(*reported, strict=True), marker="o", label=label)
        axes.set_xlabel("epoch")
        axes.set_title(metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=100)


def _draw_confusion(matrix: np.ndarray, class_names: tuple[str, ...], path: Path) -> None:
    size = len(class_names)
    side = min(14.0, 2.5 + 0.45 * size)
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the label's images")
    axes.set(xlabel="predicted", ylabel="label", title="Confusion on validation")
    if size <= MAX_CELLS_WITH_TEXT:
        names = [_plain_text(name) for name in class_names]
        axes.set_xticks(range(size), names, rotation=45 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(size), names)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(
                    column, row, str(count), ha="center", va="center", color=color, fontsize=8
                )
    figure.savefig(path, dpi=100)


def _short(name: str) -> str:
    half = NAME_CHARACTERS // 2
    return name if len(name) <= NAME_CHARACTERS else f"{name[: half - 1]}…{name[-half:]}"


def _plain_text(text: str) -> str:
    """Matplotlib reads formulas between dollars, and no font has what cannot be printed."""
    plain = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    return plain.replace("$", r"\$")
