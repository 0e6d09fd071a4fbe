"""The model that `--model`, `--run` or `--file` means: found, verified, loaded."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from pipelines.data.prepared import Background
from pipelines.evaluation.metrics import predict
from pipelines.images.options import RESIZES, Resize
from pipelines.models.keras_files import ModelShapes, load_saved_model, model_shapes
from pipelines.runtime.compute import DEFAULT_COMPUTE, choose_backend
from search_spaces.errors import InputError
from sweeps.state.recorded_options import tagged_compute
from tracking.stores import check_existing_store, resolve_uri
from tracking.tags import Tag

if TYPE_CHECKING:
    from tracking.models.model_store import StoredModel

log = logging.getLogger(__name__)
CHOICES = ("model", "run", "file")
DEFAULT_BACKEND = DEFAULT_COMPUTE.backend


@dataclass(frozen=True)
class ChosenModel:
    """A loaded model and what is known of it.

    Attributes:
        predict: class probabilities of raw pixels.
        label: how people call it.
        name, version, run_id, data: None where it was given as a file.
        background: of its data; None where that is not known.
        class_names: one per class; numbers where names are not known.
        resize: how the images of its data came into their frame.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    shapes: ModelShapes
    label: str
    class_names: tuple[str, ...]
    name: str | None = None
    version: int | None = None
    run_id: str | None = None
    file: str | None = None
    data: str | None = None
    background: Background | None = None
    resize: Resize = "fit"


@dataclass(frozen=True)
class ModelChoice:
    """Which model is meant, as it was asked for: exactly one of the first three is given.

    Attributes:
        model: a registered one, as `NAME`, `NAME@alias` or `NAME/3`.
        run: id of the MLflow run that kept it.
        file: a .keras file.
        class_names: those of a file, with commas between.
        tracking_uri: where a model or run is looked for; None for the usual place.
    """

    model: str | None = None
    run: str | None = None
    file: str | None = None
    class_names: str | None = None
    tracking_uri: str | None = None


def check_choice(choice: ModelChoice) -> None:
    """What can be wrong with a choice without anything being opened.

    Raises:
        InputError: Not exactly one model is named, or an option does not go with it.
    """
    given = [f"--{name}" for name in CHOICES if getattr(choice, name) is not None]
    if len(given) != 1:
        raise InputError(
            "Exactly one model must be named, with --model NAME@champion, --run ID or --file "
            f"m.keras. Received: {' and '.join(given) or 'none of them'}."
        )
    for option in ("class_names", "tracking_uri"):
        with_file = option == "class_names"
        if getattr(choice, option) is not None and (choice.file is not None) != with_file:
            ours = "--file" if with_file else "--model and --run"
            raise InputError(
                f"--{option.replace('_', '-')} goes with {ours} only. Received: it and {given[0]}. "
                "Leave it out."
            )
    if choice.class_names is not None:
        _split_names(choice.class_names)


def load_chosen(choice: ModelChoice) -> ChosenModel:
    """Finds, verifies and loads the model.

    Raises:
        InputError: There is no such model, or it is not loaded; the message says why.
    """
    if choice.file is not None:
        return _from_file(Path(choice.file), choice.class_names)
    uri = resolve_uri(choice.tracking_uri)
    check_existing_store(uri)
    from tracking.errors import store_errors
    from tracking.models.model_store import ModelStore

    with tempfile.TemporaryDirectory(prefix="keras-sweeps-") as folder:
        with store_errors(uri):
            store = ModelStore(uri)
            if choice.run is not None:
                stored = store.of_run(choice.run)
            else:
                assert choice.model is not None
                stored = store.registered(choice.model)
            path = store.fetch(stored, Path(folder))
        return _from_store(stored, path)


def _from_store(stored: StoredModel, path: Path) -> ChosenModel:
    _choose_backend_of(stored)
    model = load_saved_model(path, stored.label)
    shapes = model_shapes(model, stored.label)
    names = stored.class_names
    if len(set(names)) != shapes.num_classes:
        names = _numbers(shapes.num_classes)
    background = stored.tags.get(Tag.BACKGROUND)
    return ChosenModel(
        partial(predict, model),
        shapes,
        stored.label,
        names,
        stored.name,
        stored.version,
        stored.run_id,
        data=stored.tags.get(Tag.DATA),
        background=next((word for word in get_args(Background) if word == background), None),
        resize=next((w for w in RESIZES if w == stored.tags.get(Tag.RESIZE)), "fit"),
    )


def _choose_backend_of(stored: StoredModel) -> None:
    """The backend that the model was trained on; TensorFlow, which takes it too, without that."""
    backend = tagged_compute(stored.tags).backend
    try:
        choose_backend(backend)
    except InputError:
        choose_backend(DEFAULT_BACKEND)
        log.warning(
            "%s was trained on %s, which is not installed: TensorFlow predicts, and may differ in "
            "the last digits.",
            stored.label, backend,
        )  # fmt: skip


def _from_file(path: Path, given_names: str | None) -> ChosenModel:
    choose_backend(DEFAULT_BACKEND)
    model = load_saved_model(path)
    shapes = model_shapes(model, str(path))
    names = _numbers(shapes.num_classes)
    if given_names is not None:
        names = _split_names(given_names)
        if len(names) != shapes.num_classes:
            raise InputError(
                f"--class-names must be one name per class. Received: {len(names)}, and {path} "
                f"has {shapes.num_classes} classes."
            )
    return ChosenModel(partial(predict, model), shapes, str(path), names, file=str(path))


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))


def _split_names(given: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in given.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise InputError(
            f"--class-names must be different names between commas. Received: '{given}'. Try "
            "cat,dog."
        )
    return names
