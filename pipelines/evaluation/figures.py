"""Pictures of data, training and mistakes. No pyplot: figures are objects, nothing is global."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipelines.data.prepared import PreparedData
from pipelines.evaluation.captions import plain_text
from pipelines.evaluation.metrics import confident_mistakes, confusion_matrix
from pipelines.training.trial_files import (
    CONFUSION_PICTURE,
    CONFUSION_TABLE,
    CURVES_PICTURE,
    HISTORY_FILE,
    MISTAKES_PICTURE,
    PREDICTIONS_FILE,
)

NUM_MISTAKES = 16
MAX_CELLS_WITH_TEXT = 20


def render_trial(folder: str, data: PreparedData) -> None:
    """Draws a finished trial's curves, confusion matrix and mistakes from its own files.

    Curves alone, where nothing validated. The predictions are the caller's to remove, once the
    pictures are where they belong.
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


def draw_images(pixels: np.ndarray, captions: list[str], title: str, path: Path) -> None:
    """A grid of pictures (n, height, width, channels) with a caption each."""
    columns = max(1, int(np.ceil(np.sqrt(len(pixels)))))
    rows = max(1, -(-len(pixels) // columns))
    figure = Figure(figsize=(1.6 * columns + 0.4, 1.95 * rows + 0.6), layout="constrained")
    figure.suptitle(plain_text(title))
    for k, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if k < len(pixels):
            image = pixels[k]
            axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray")
            axes.set_title(plain_text(captions[k]), fontsize=8)
    figure.savefig(path, dpi=100)


def _draw_curves(history: Path, path: Path) -> None:
    with history.open() as file:
        rows = list(csv.DictReader(file))
    epochs = [int(row["epoch"]) for row in rows]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for name, label in ((metric, "training"), (f"val_{metric}", "validation")):
            if name not in rows[0]:
                continue  # A HyperModel's own loop need not tell its loss.
            told = [(e, float(row[name])) for e, row in zip(epochs, rows, strict=True) if row[name]]
            axes.plot(*zip(*told, strict=True), marker="o", label=label)
        axes.set_xlabel("epoch")
        axes.set_title(metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=100)


def _draw_confusion(matrix: np.ndarray, class_names: tuple[str, ...], path: Path) -> None:
    size = len(class_names)
    side = min(14.0, 2.5 + 0.45 * size)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the label's images")
    axes.set(xlabel="predicted", ylabel="label", title="Confusion on validation")
    if size <= MAX_CELLS_WITH_TEXT:
        names = [plain_text(name) for name in class_names]
        axes.set_xticks(range(size), names, rotation=45 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(size), names)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(
                    column, row, str(count), ha="center", va="center", color=color, fontsize=8
                )
    figure.savefig(path, dpi=100)
