"""How much a stored model would take, found out from its config before Keras makes any of it.

A config of a kilobyte can ask for a layer of a hundred gigabytes. What it asks for is held against
the weights that the archive has, by building the layers without values.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

MAX_WEIGHTS_PER_BYTE, WEIGHTS_FLOOR = 4, 2**20
"""Weights for each byte of the archive's weights: packed ones of four bits take two a byte."""
MAX_VALUES = 2**27
"""Of one image between two layers: 512 MiB in float32, a hundred times what our models have."""


def size_problem(config: dict[str, Any], weights_bytes: int) -> str:
    """Why a model is too large to be loaded, as a phrase; empty where it is not.

    Where Keras cannot build it without values, the reason follows when it is loaded.

    Args:
        config: of Keras' own classes only (`pipelines.models.keras_files.check_archive`).
        weights_bytes: of the archive's weights.
    """
    for shape in _input_shapes(config):
        if _size(shape) > MAX_VALUES:
            return f"whose input has {_size(shape):,} values"
    with _without_values():
        try:
            return _problem_of(config, weights_bytes)
        except Exception:  # Keras raises whatever a wrong config makes it stumble over.
            return ""


def _problem_of(config: dict[str, Any], weights_bytes: int) -> str:
    import keras

    plain = {key: value for key, value in config.items() if key != "compile_config"}
    model = keras.saving.deserialize_keras_object(plain, safe_mode=True)
    num_weights = sum(math.prod(weight.shape) for weight in model.weights)
    if num_weights > WEIGHTS_FLOOR + MAX_WEIGHTS_PER_BYTE * weights_bytes:
        return (
            f"whose layers ask for {num_weights:,} weights, though it holds {weights_bytes:,} "
            "bytes of them"
        )
    for layer in model._flatten_layers():
        for tensor in keras.tree.flatten(getattr(layer, "output", None)):
            if tensor is not None and _size(tensor.shape[1:]) > MAX_VALUES:
                return f"whose layer '{layer.name}' gives {_size(tensor.shape[1:]):,} values"
    return ""


@contextlib.contextmanager
def _without_values() -> Iterator[None]:
    """Variables that are made inside get no values, neither now nor later."""
    import keras
    from keras.src.backend.common import global_state

    name = "uninitialized_variables"
    known = list(global_state.get_global_attribute(name) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(name, known)


def _size(shape: Any) -> int:
    return math.prod(size for size in shape if isinstance(size, int))


def _input_shapes(config: Any) -> Iterator[list[Any]]:
    """What any layer of the config says that it takes, without the number of images."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(shape := value.get("batch_shape"), list):
                yield shape[1:]
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
