"""A kept model for programs: found by its name, verified, loaded, and asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.images.reading import Polarity
from search_spaces.errors import InputError
from search_spaces.space import Shape
from sweeps.options import named_as_in_python
from sweeps.prediction.model_loading import ChosenModel, ModelChoice, check_choice, load_chosen
from sweeps.reporting.console import warnings_shown


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes:
        label: how people call it.
        name, version: of the registered model; None for others.
        run_id: the MLflow run that kept it; None for a file.
        input_shape: height, width and channels of its images.
        class_names: in the order of the probabilities.
    """

    label: str
    name: str | None
    version: int | None
    run_id: str | None
    input_shape: Shape
    class_names: tuple[str, ...]
    _chosen: ChosenModel

    def predict(self, images: object, *, polarity: Polarity = "auto") -> np.ndarray:
        """Class probabilities (n, classes) float32.

        Args:
            images: raw pixels from 0 to 255, (n, height, width, channels), or without the last axis
                for one channel; or paths of image files of any size.
            polarity: whether files are inverted: `auto`, `as-is` or `invert`, as in
                `keras-sweeps predict`.

        Raises:
            InputError: The images do not fit the model, or a file cannot be read.
        """
        paths = [images] if isinstance(images, str | Path) else images
        if isinstance(paths, Sequence) and all(isinstance(path, str | Path) for path in paths):
            return self._chosen.predict(self._read([Path(path) for path in paths], polarity))
        return self._chosen.predict(self._fitting(np.asarray(images)))

    def _read(self, paths: Sequence[Path], polarity: Polarity) -> np.ndarray:
        from pipelines.images.reading import check_pictures, read_picture

        chosen = self._chosen
        check_pictures(paths)
        return np.stack([
            read_picture(path, self.input_shape, chosen.background, polarity, chosen.resize).pixels
            for path in paths
        ])  # fmt: skip

    def _fitting(self, pixels: np.ndarray) -> np.ndarray:
        found = pixels[..., None] if pixels.ndim == 3 and self.input_shape[2] == 1 else pixels
        if found.ndim != 4 or found.shape[1:] != tuple(self.input_shape):
            raise InputError(
                f"images must have the shape (n, {', '.join(map(str, self.input_shape))}). "
                f"Received: {pixels.shape}. Files of any size are fitted: give their paths."
            )
        return found


@named_as_in_python
def load_model(
    model: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    tracking_uri: str | None = None,
    verbose: int = 1,
) -> Model:
    """A kept model: found, verified by its checksum, and loaded.

    Args:
        model: a registered one (`cnn-mnist`, `cnn-mnist@champion`, `cnn-mnist/3`), the id of the
            MLflow run that kept it, or a .keras file.
        class_names: those of a file.
        tracking_uri: where a model or run is looked for; None for MLFLOW_TRACKING_URI, or mlflow.db
            here.

    Raises:
        InputError: There is no such model, or it cannot be loaded.
    """
    text = str(model)
    names = None if class_names is None else ",".join(class_names)
    if text.endswith(".keras"):
        choice = ModelChoice(file=text, class_names=names, tracking_uri=tracking_uri)
    elif re.fullmatch(r"[0-9a-f]{32}", text):
        choice = ModelChoice(run=text, class_names=names, tracking_uri=tracking_uri)
    else:
        choice = ModelChoice(model=text, class_names=names, tracking_uri=tracking_uri)
    check_choice(choice)
    with warnings_shown() if verbose else nullcontext():
        chosen = load_chosen(choice)
    return Model(
        chosen.label, chosen.name, chosen.version, chosen.run_id, chosen.shapes.input_shape,
        chosen.class_names, chosen,
    )  # fmt: skip
