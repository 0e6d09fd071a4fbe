"""`predict`: the classes of image files, and how sure a model is of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.evaluation.figures import MAX_DRAWN, draw_predictions
from pipelines.images.reading import POLARITIES, check_pictures, read_picture
from pipelines.runtime.filesystem import new_picture
from search_spaces.errors import InputError
from sweeps.cli.exit_codes import DONE
from sweeps.cli.shared_options import argument_type
from sweeps.option_values import path, positive_int
from sweeps.prediction.model_loading import ModelChoice, check_choice, load_chosen
from sweeps.prediction.output import document, print_table

DESCRIPTION = "Classify image files of any common format and size with a stored model."
EXAMPLES = """
examples:
  {prog} three.png --model cnn-mnist@champion
  {prog} *.jpg --model cnn-mnist/2 --json
  {prog} three.png seven.png --run 66918656c3584c2dbc20986129e33596 --picture seen.png
  {prog} pet.jpg --file m.keras --class-names cat,dog --polarity as-is
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `predict`."""
    parser.add_argument(
        "images", type=argument_type(path), nargs="*", metavar="IMAGE", help="image files"
    )
    _add_model_options(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of a table"
    )
    parser.add_argument(
        "--top",
        type=argument_type(positive_int),
        default=3,
        metavar="N",
        help="number of classes shown per image (default: %(default)s)",
    )
    parser.add_argument(
        "--polarity",
        choices=POLARITIES,
        default="auto",
        metavar="HOW",
        help="auto inverts an image with a light border if the model's data have a dark "
        "background, or the other way round (never for models of your own data, which were "
        "trained on images as they are); as-is never does; invert always does (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--picture",
        type=argument_type(path),
        metavar="FILE",
        help="file for a figure of the images as the model saw them, with probabilities; must be "
        "new",
    )


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that name a model; exactly one of the first three has to be given."""
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="a registered model: NAME (its champion), NAME@alias or NAME/3",
    )
    parser.add_argument("--run", metavar="ID", help="the model that an MLflow run kept")
    parser.add_argument("--file", type=argument_type(path), metavar="FILE", help="a .keras file")
    parser.add_argument(
        "--class-names",
        metavar="A,B,...",
        help="names of the classes of --file, in order (default: their numbers)",
    )
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="where --model and --run are looked for (default: MLFLOW_TRACKING_URI, else "
        "mlflow.db here)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    paths = [Path(name) for name in arguments.images]
    drawing = _check(arguments, paths)
    chosen = load_chosen(_model_choice(arguments))
    pictures = [
        read_picture(
            image, chosen.shapes.input_shape, chosen.background, arguments.polarity, chosen.resize
        )
        for image in paths
    ]
    probabilities = chosen.predict(np.stack([picture.pixels for picture in pictures]))
    if not np.isfinite(probabilities).all():
        raise InputError(
            f"A model must give probabilities for every image. Received: {chosen.label}, which "
            "gives NaN for some. Choose another model."
        )
    if drawing is not None:
        title = f"as seen by {chosen.label}"
        draw_predictions(pictures, probabilities, chosen.class_names, title, drawing)
    if arguments.json:
        print(json.dumps(document(chosen, pictures, probabilities, drawing), indent=1))
    else:
        unsure = chosen.background is None and arguments.polarity == "auto"
        print_table(chosen, pictures, probabilities, arguments.top, drawing, warn_background=unsure)
    return DONE


def _model_choice(arguments: argparse.Namespace) -> ModelChoice:
    """The model that a parsed command line names."""
    return ModelChoice(
        arguments.model,
        arguments.run,
        arguments.file,
        arguments.class_names,
        arguments.tracking_uri,
    )


def _check(arguments: argparse.Namespace, paths: Sequence[Path]) -> Path | None:
    """Everything that can be wrong with the input; returns where a drawing goes."""
    if not paths:
        raise InputError(
            "At least one image must be named. Received: none. Try predict three.png --model "
            "NAME@champion."
        )
    check_choice(_model_choice(arguments))
    drawing = None
    if arguments.picture is not None:
        drawing = new_picture(arguments.picture)
        if len(paths) > MAX_DRAWN:
            raise InputError(
                f"--picture draws at most {MAX_DRAWN} images. Received: {len(paths)}. Leave it "
                "out, or name fewer."
            )
    check_pictures(paths)
    return drawing
