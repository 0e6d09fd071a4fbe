"""What was predicted, as one JSON document or as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.images.reading import Picture
from search_spaces.errors import escaped
from sweeps.prediction.model_loading import ChosenModel
from sweeps.reporting.console import table_console


def document(
    chosen: ChosenModel,
    pictures: Sequence[Picture],
    probabilities: np.ndarray,
    drawing: Path | None,
) -> dict[str, object]:
    """All that was found out, as one document; `probabilities` is (images, classes)."""
    names = chosen.class_names
    return {
        "model": {
            "label": chosen.label,
            "name": chosen.name,
            "version": chosen.version,
            "run": chosen.run_id,
            "file": chosen.file,
            "data": chosen.data,
            "background": chosen.background,
            "input_shape": chosen.shapes.input_shape,
            "classes": names,
        },
        "picture": str(drawing) if drawing else None,
        "predictions": [
            {
                "file": str(picture.path),
                "class": names[row.argmax()],
                "probability": float(row.max()),
                "probabilities": dict(zip(names, map(float, row), strict=True)),
                "inverted": picture.inverted,
                "steps": picture.steps,
                "size": picture.size,
            }
            for picture, row in zip(pictures, probabilities, strict=True)
        ],
    }


def print_table(
    chosen: ChosenModel,
    pictures: Sequence[Picture],
    probabilities: np.ndarray,
    num_shown: int,
    drawing: Path | None,
    *,
    warn_background: bool,
) -> None:
    """The model, what was done with each image, and its most probable classes.

    Args:
        probabilities: (images, classes).
        num_shown: classes of each image.
        drawing: the file of the figure; None where none was drawn.
        warn_background: whether to say that no image was inverted, because the background of the
            model's data is not known.
    """
    from rich import box
    from rich.table import Table

    console = table_console(emoji=False, highlight=False)
    console.print(_headline(chosen), style="bold")
    if warn_background:
        console.print(
            "The background of the model's training data is not known, so no image is inverted. "
            "--polarity invert does so."
        )
    for picture in pictures:
        done = ", ".join(picture.steps) or "taken as it is"
        console.print(f"{escaped(str(picture.path))}: {done}", soft_wrap=True)
    names = chosen.class_names
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("file", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    if num_shown > 1:
        table.add_column("next")
    for picture, row in zip(pictures, probabilities, strict=True):
        best, *others = np.argsort(-row, kind="stable")[:num_shown]
        cells = [escaped(str(picture.path)), names[best], f"{row[best]:.1%}"]
        if num_shown > 1:
            cells.append(", ".join(f"{names[i]} {row[i]:.1%}" for i in others))
        table.add_row(*cells)
    console.print(table)
    if drawing is not None:
        console.print(f"figure of what the model saw: {drawing}", soft_wrap=True)


def _headline(chosen: ChosenModel) -> str:
    height, width, channels = chosen.shapes.input_shape
    parts = [chosen.label]
    if chosen.version is not None and chosen.run_id:
        parts.append(f"run {chosen.run_id[:8]}")
    if chosen.data is not None:
        parts.append(f"trained on {chosen.data}")
    if chosen.background in ("dark", "light"):
        parts.append(f"{chosen.background} background")
    return f"{', '.join(parts)}: {width}x{height}x{channels}, {len(chosen.class_names)} classes"
