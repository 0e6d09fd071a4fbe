"""`predict`: the classes of picture files, and how sure a model is of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.evaluation.figures import MAX_DRAWN, draw_predictions
from pipelines.images.reading import POLARITIES, Picture, check_pictures, read_picture
from pipelines.runtime.filesystem import new_picture
from search_spaces.errors import InputError
from sweeps.cli.exit_codes import DONE
from sweeps.cli.option_types import positive_int
from sweeps.prediction.model_loading import (
    ChosenModel,
    add_model_options,
    check_model_options,
    chosen_model,
)

DESCRIPTION = "Tell the class of picture files, of any common kind and size, with a kept model."
EXAMPLES = """
examples:
  {prog} three.png --model cnn-mnist@champion
  {prog} *.jpg --model cnn-mnist/2 --json
  {prog} three.png seven.png --run 66918656c3584c2dbc20986129e33596 --picture seen.png
  {prog} pet.jpg --file m.keras --class-names cat,dog --polarity as-is
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `predict`."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="picture files")
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document, no table")
    parser.add_argument(
        "--top",
        type=positive_int,
        default=3,
        metavar="N",
        help="classes shown of each picture (default: %(default)s)",
    )
    parser.add_argument(
        "--polarity",
        choices=POLARITIES,
        default="auto",
        metavar="HOW",
        help="auto inverts a picture whose border is light where the model's data have a dark "
        "background, or the other way round, and never for models of your own data, which were "
        "trained on pictures as they are; as-is; invert (default: %(default)s)",
    )
    parser.add_argument(
        "--picture",
        metavar="FILE",
        help="draw each picture as the model saw it, with its probabilities; must be new",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    paths = [Path(name) for name in arguments.images]
    drawing = _check(arguments, paths)
    chosen = chosen_model(arguments)
    pictures = [
        read_picture(
            path, chosen.shapes.input_shape, chosen.background, arguments.polarity, chosen.resize
        )
        for path in paths
    ]
    probabilities = chosen.predict(np.stack([picture.pixels for picture in pictures]))
    if not np.isfinite(probabilities).all():
        raise InputError(
            f"A model must give probabilities for every picture. Received: {chosen.label}, which "
            "gives NaN for some. Choose another model."
        )
    if drawing is not None:
        title = f"as seen by {chosen.label}"
        draw_predictions(pictures, probabilities, chosen.class_names, title, drawing)
    if arguments.json:
        print(json.dumps(_document(chosen, pictures, probabilities, drawing), indent=1))
    else:
        _print(chosen, pictures, probabilities, arguments, drawing)
    return DONE


def _check(arguments: argparse.Namespace, paths: Sequence[Path]) -> Path | None:
    """Everything that can be wrong with the input; returns where a drawing goes."""
    if not paths:
        raise InputError(
            "At least one picture must be named. Received: none. Try predict three.png --model "
            "NAME@champion."
        )
    check_model_options(arguments)
    drawing = None
    if arguments.picture is not None:
        drawing = new_picture(arguments.picture)
        if len(paths) > MAX_DRAWN:
            raise InputError(
                f"--picture draws at most {MAX_DRAWN} pictures. Received: {len(paths)}. Leave it "
                "out, or name fewer."
            )
    check_pictures(paths)
    return drawing


def _document(
    chosen: ChosenModel,
    pictures: Sequence[Picture],
    probabilities: np.ndarray,
    drawing: Path | None,
) -> dict[str, object]:
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


def _print(
    chosen: ChosenModel,
    pictures: Sequence[Picture],
    probabilities: np.ndarray,
    arguments: argparse.Namespace,
    drawing: Path | None,
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(
        width=None if Console().is_terminal else 120, markup=False, emoji=False, highlight=False
    )
    console.print(_headline(chosen), style="bold")
    if chosen.background is None and arguments.polarity == "auto":
        console.print(
            "What surrounds the objects of its data is not known: no picture is inverted. "
            "--polarity invert does so."
        )
    for picture in pictures:
        done = ", ".join(picture.steps) or "taken as it is"
        console.print(f"{_printable(picture.path)}: {done}", soft_wrap=True)
    names = chosen.class_names
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("file", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    if arguments.top > 1:
        table.add_column("next")
    for picture, row in zip(pictures, probabilities, strict=True):
        best, *others = np.argsort(-row, kind="stable")[: arguments.top]
        cells = [_printable(picture.path), names[best], f"{row[best]:.1%}"]
        if arguments.top > 1:
            cells.append(", ".join(f"{names[i]} {row[i]:.1%}" for i in others))
        table.add_row(*cells)
    console.print(table)
    if drawing is not None:
        console.print(f"picture of what the model saw: {drawing}", soft_wrap=True)


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


def _printable(path: Path) -> str:
    """The path without control characters and bytes that are no text."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))
