"""`.keras` files: written where a model needs no code of its own, opened in Keras' safe mode only.

Only models that name classes of images are opened. The archive is looked at before Keras is: a
damaged file, a Lambda layer (Python code), or a class that is not Keras' own is refused with a
reason. Keras' safe mode holds the same line again.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.evaluation.metrics import array_alone
from pipelines.models.model_size import size_problem
from pipelines.runtime.process import quiet_start
from pipelines.training.options import DEFAULT_TRAINING, TrainingOptions
from search_spaces.errors import InputError
from search_spaces.labels import num_outputs
from search_spaces.outputs import are_probabilities
from search_spaces.pixels import UNIT
from search_spaces.space import Assembled, Shape

if TYPE_CHECKING:
    import keras

_FILE_RULE = "A model must be a .keras file."
CONFIG, METADATA = "config.json", "metadata.json"
MAX_EXPANSION, EXPANSION_FLOOR = 100, 2**20
"""A member that says it grows more than so, beyond a mebibyte, is a bomb; weights are stored."""


@dataclass(frozen=True)
class ModelShapes:
    """What a model takes and gives.

    Attributes:
        input_shape: height, width, channels (1 or 3).
        input_type: `uint8` for models of a sweep.
    """

    input_shape: Shape
    input_type: str
    num_classes: int


def load_saved_model(path: Path, label: str | None = None) -> keras.Model:
    """The model in a `.keras` file, not compiled; its input and output are checked.

    Args:
        label: how messages call the model; None takes the path.

    Raises:
        InputError: The file is no Keras archive, damaged, or needs code that it does not bring;
            or the model does not turn images into class probabilities.
    """
    name = label or str(path)
    config, num_bytes = check_archive(path, name)
    # Read when a GPU is first used: it is not taken whole from a sweep that trains beside.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    with quiet_start():
        if problem := size_problem(config, num_bytes):
            raise _refused(name, f"{problem}: it is not loaded. Name another model.")
        model = _loaded(path, name)
        _check_probabilities(model, model_shapes(model, name), name)
    return model


def store_model(
    assembled: Assembled, path: Path, options: TrainingOptions = DEFAULT_TRAINING
) -> tuple[int, str]:
    """Size of the file in bytes, and why there is none (then the size is 0).

    A model of ours can be stored; one of a user's may have layers of its own, whose code no
    `.keras` file holds. What is stored gives a probability for each class, also where the model
    gives logits, or has one output for two classes; and it takes pixels from 0 to 255, whatever
    `options` (as decided for the model) trained it with.
    """
    if assembled.is_ours:
        _graph(assembled, options).save(path)
        return path.stat().st_size, ""
    try:
        _graph(assembled, options).save(path)
        check_archive(path, "the model")
    except OSError:
        raise  # A full disk is no property of the model.
    except InputError as error:
        path.unlink(missing_ok=True)
        return 0, f"the model, {error.reason}"
    except Exception as error:  # Whatever a layer without `get_config` makes Keras raise.
        path.unlink(missing_ok=True)
        return 0, f"it cannot be saved ({type(error).__name__})"
    return path.stat().st_size, ""


def _graph(assembled: Assembled, options: TrainingOptions) -> keras.Model:
    """The layers from raw pixels to class probabilities; a model that is code stays as it is.

    How it is trained is left out: a `train_step`, losses and metrics may be code, too, and the
    optimizer's state, up to three times the weights, is read by nobody.
    """
    import keras

    model = assembled.model
    if not getattr(model, "inputs", None) or not type(model).call.__module__.startswith("keras."):
        return model
    found = model.outputs[0]
    if assembled.logits:
        # In float32 whatever the trial's precision: the trial makes them so.
        activation = "sigmoid" if num_outputs(model) == 1 else "softmax"
        found = keras.layers.Activation(activation, dtype="float32")(found)
    if num_outputs(model) == 1:
        first = keras.layers.Rescaling(-1.0, offset=1.0)(found)
        found = keras.layers.Concatenate()([first, found])
    # A list of one input, as ours always were, has Keras warn whoever calls it with an array.
    inputs = model.inputs if assembled.is_ours else model.inputs[0]
    graph = keras.Model(inputs, found, name=model.name)
    if options.pixels != UNIT:
        return graph
    raw = keras.Input(model.inputs[0].shape[1:])
    # In float32 whatever the trial's precision: training got its pixels so.
    return keras.Model(raw, graph(keras.layers.Rescaling(1 / 255, dtype="float32")(raw)))


def _loaded(path: Path, name: str) -> keras.Model:
    import keras

    try:
        return keras.models.load_model(path, safe_mode=True, compile=False)
    except Exception as error:  # Keras raises whatever a wrong file makes it stumble over.
        raise InputError(
            "A model must be a .keras file that Keras loads in its safe mode. Received: "
            f"{name} ({type(error).__name__}: {_first_line(error)}). Save it again with "
            f"model.save() of Keras {keras.__version__}."
        ) from error


def model_shapes(model: keras.Model, label: str = "the model") -> ModelShapes:
    """The shapes of a model that names classes of images.

    Raises:
        InputError: Its input is no image of a fixed size, or its output no vector.
    """
    inputs = getattr(model, "inputs", None) or []
    shape = tuple(inputs[0].shape[1:]) if len(inputs) == 1 else ()
    if len(shape) != 3 or None in shape or shape[2] not in (1, 3):
        received = " and ".join(str(tuple(tensor.shape)) for tensor in inputs) or "none"
        raise InputError(
            "A model must take one image of a fixed size: (height, width, channels) with 1 or 3 "
            f"channels. Received: {label}, whose input is {received}. Name another model."
        )
    outputs = getattr(model, "outputs", None) or []
    result = tuple(outputs[0].shape[1:]) if len(outputs) == 1 else ()
    if len(result) != 1 or result[0] is None or result[0] < 2:
        received = " and ".join(str(tuple(tensor.shape)) for tensor in outputs) or "none"
        raise InputError(
            "A model must give one probability per class, for at least two classes. Received: "
            f"{label}, whose output is {received}. Name another model."
        )
    return ModelShapes(
        (int(shape[0]), int(shape[1]), int(shape[2])), str(inputs[0].dtype), int(result[0])
    )


def check_archive(path: Path, name: str) -> tuple[dict[str, Any], int]:
    """The config of a whole Keras archive of Keras' own classes, and the bytes of all its members.

    Raises:
        InputError: The file is none. Its `reason` follows a name for the model, and says what to
            do about it.
    """
    if path.suffix != ".keras":
        raise InputError(
            f"{_FILE_RULE} Received: {name}. Save it with model.save('model.keras'); no other kind "
            "is loaded, because others can hold code."
        )
    if not path.is_file():
        kind = "which is no file" if path.exists() else "which does not exist"
        raise _refused(name, f"{kind}. Check its name.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if not {CONFIG, METADATA} <= set(members):
                raise _refused(
                    name, f"an archive without Keras' {CONFIG}. Save it with model.save()."
                )
            for info in members.values():
                if info.file_size > EXPANSION_FLOOR + MAX_EXPANSION * info.compress_size:
                    raise _refused(
                        name,
                        f"whose {info.filename} would unpack to {info.file_size:,} bytes: it is "
                        "not loaded. Save it with model.save().",
                    )
            # Keras reads weights in a way that skips their checksums when memory is short.
            damaged = archive.testzip()
            config = json.loads(archive.read(CONFIG)) if damaged is None else None
    except InputError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(
            f"{_FILE_RULE} Received: {name} ({why}).", reason=f"which cannot be read ({why})."
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RecursionError,
            NotImplementedError, RuntimeError) as error:  # fmt: skip
        raise _refused(
            name,
            "which is truncated, damaged or another kind of file "
            f"({type(error).__name__}). Copy or save it again.",
        ) from error
    if damaged is not None:
        raise _refused(
            name, f"whose {damaged} is damaged (checksum differs). Copy or save it again."
        )
    if not isinstance(config, dict):
        raise _refused(name, f"whose {CONFIG} describes no model. Save it with model.save().")
    _check_classes(config, name)
    return config, sum(info.file_size for info in members.values())


def _check_classes(config: dict[str, Any], name: str) -> None:
    """Raises InputError where building the model would need code that is not Keras' own."""
    # Losses and optimizers are not built.
    config = {key: value for key, value in config.items() if key != "compile_config"}
    for class_name, module in _classes(config):
        if class_name in ("Lambda", "__lambda__"):
            raise _refused(
                name,
                "which has a Lambda layer: it is not loaded. Build it from Keras' own layers.",
                rule="A model must not hold Python code.",
            )
        if module and module != "builtins" and module.partition(".")[0] != "keras":
            raise _refused(
                name,
                f"which has a '{module}.{class_name}': it is not loaded. Build it from Keras' own "
                "layers.",
                rule="A model must consist of Keras' own classes.",
            )


def _refused(name: str, reason: str, rule: str = _FILE_RULE) -> InputError:
    return InputError(f"{rule} Received: {name}, {reason}", reason=reason)


def _classes(config: Any) -> Iterator[tuple[str, str]]:
    """Every class that a config mentions, with its module (empty where none is said)."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                yield value["class_name"], str(value.get("module") or "")
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _check_probabilities(model: keras.Model, shapes: ModelShapes, name: str) -> None:
    """Raises InputError unless a black image and noise get probabilities."""
    import keras

    pixels = np.zeros((2, *shapes.input_shape), np.uint8)
    pixels[1] = np.random.default_rng(0).integers(0, 256, shapes.input_shape)
    try:
        with array_alone():
            output = model(pixels, training=False)
        found = np.asarray(keras.ops.convert_to_numpy(output), np.float32)
    except Exception as error:  # Whatever the layers make of pixels.
        raise InputError(
            f"A model must take raw pixels 0 to 255. Received: {name}, which fails on them "
            f"({type(error).__name__}: {_first_line(error)}). Name another model."
        ) from error
    if not are_probabilities(found):
        raise InputError(
            "A model must give class probabilities, which are at least 0 and sum to 1. Received: "
            f"{name}, whose output ranges from {found.min():.3g} to {found.max():.3g} and sums to "
            f"{found[0].sum():.3g}. End it with a softmax."
        )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else "no reason given"
