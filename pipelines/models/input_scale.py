"""Whether a model scales its pixels itself, measured: what arrives at its first layer with weights.

A black, a white and a noisy image go through the built model as far as the first layer that has
weights and depends on the image. Of pixels from 0 to 255 a model that scales them (by a layer of
Keras, a Lambda, operators in its graph or in its `call`) lets less than a quarter of that range
arrive, or something that is shifted as only raw pixels are. What arrives follows from no random
weight, so every process finds the same for a point. ADR 22 has the reasons.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.training.options import TrainingOptions
from search_spaces.pixels import AUTO, RAW, UNIT
from search_spaces.space import Assembled, Shape

if TYPE_CHECKING:
    import keras

WHITE = 255.0
MOST_OF_SCALED = WHITE / 4
"""Scaled pixels differ by less: 1 or 2, or 255 over a deviation, which is 20 to 100 of images."""
LEAST_SHIFT = 1 / 16
"""Of the range: where a mean of raw pixels was subtracted; one of pixels from 0 to 1 is 0.002."""
NORMALIZING = (
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization",
)  # fmt: skip
"""Layers to which the scale of what arrives means nothing, while they are trained."""
INDEXING = ("Embedding",)
"""Layers to which pixels are places in a table: those from 0 to 1 would all be the first."""
CHANGES_BYTES = 2.0
"""A `value_range` that ends above it says that a layer of augmentation takes raw pixels."""


def decided(options: TrainingOptions, assembled: Assembled, shape: Shape) -> TrainingOptions:
    """The options with what `pixels=auto` means for a model: ours scale pixels themselves."""
    if options.pixels != AUTO:
        return options
    unscaled = not assembled.is_ours and scales_pixels(assembled.model, shape) is False
    return replace(options, pixels=UNIT if unscaled else RAW)


def scales_pixels(model: keras.Model, shape: Shape) -> bool | None:
    """Whether a model makes pixels from 0 to 255 small itself; None where that cannot be seen.

    Args:
        model: it is called, and built by that where it was not.
        shape: height, width and channels of its images.
    """
    inputs = getattr(model, "inputs", None)
    if inputs and not str(inputs[0].dtype).startswith(("float", "bfloat")):
        return True  # Pixels from 0 to 1 would all become 0.
    if not all(layer.built for layer in _layers(model)):
        with contextlib.suppress(Exception):  # Whoever uses the model is told.
            model(np.zeros((1, *shape), np.float32), training=False)
    noise = np.random.default_rng(0).integers(0, 256, shape)
    images = [np.zeros(shape), np.full(shape, WHITE), noise]
    blind: list[Any] = []
    while True:
        arrived = [_arriving(model, image[None].astype(np.float32), blind) for image in images]
        layers = {id(layer) for layer, _ in arrived}
        layer = arrived[0][0]
        if layer is None or len(layers) > 1:
            return None
        if type(layer).__name__ in NORMALIZING:
            return True
        black, white, noisy = (value for _, value in arrived)
        if black is None or white is None or noisy is None:
            return None
        if black.shape == noisy.shape and not (black == noisy).all():
            if type(layer).__name__ in INDEXING:
                return True
            asks_for_bytes = getattr(layer, "value_range", (0, 1))[1] > CHANGES_BYTES
            return asks_for_bytes or _is_scaled(black, white)
        blind.append(layer)  # Such as an embedding of positions.


def _is_scaled(black: np.ndarray, white: np.ndarray) -> bool:
    differences = np.abs(white - black)
    reached = differences > 0  # Padding stays as it is.
    if not reached.any():
        return True  # Each image was normalised by itself.
    # The median: a Normalization of pixels that are always 0 divides them by nearly nothing.
    spread = float(np.median(differences[reached]))
    shift = float(np.median(np.abs(black[reached])))
    return spread < MOST_OF_SCALED or shift > LEAST_SHIFT * spread


class _ArrivedError(Exception):
    """Ends a call of a model: what was asked for is known."""


def _arriving(
    model: keras.Model, image: np.ndarray, blind: list[Any]
) -> tuple[Any, np.ndarray | None]:
    """The first layer that could tell, with what it is given of an image; None for none.

    Args:
        blind: layers that do not depend on the image.
    """
    found: list[tuple[Any, Any]] = []
    with _watched(model, found, blind), contextlib.suppress(Exception):
        model(image, training=False)
    if not found:
        return None, None
    layer, value = found[0]
    return layer, _numbers(value)


@contextlib.contextmanager
def _watched(model: keras.Model, found: list[tuple[Any, Any]], blind: list[Any]) -> Iterator[None]:
    """Has the layers that could tell end the call of the model, and leave what they were given."""
    layers = [
        layer
        for layer in _layers(model)
        if _tells(layer) and not any(layer is other for other in blind)
    ]

    def watch(layer: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            found.append((layer, args[0] if args else next(iter(kwargs.values()), None)))
            raise _ArrivedError

        return called

    own = [vars(layer).get("call") for layer in layers]
    try:
        for layer in layers:
            # Past Keras, which would track what is set on a layer.
            object.__setattr__(layer, "call", watch(layer))
        yield
    finally:
        for layer, call in zip(layers, own, strict=True):
            object.__delattr__(layer, "call")
            if call is not None:
                object.__setattr__(layer, "call", call)


def _tells(layer: Any) -> bool:
    """Whether what arrives at a layer says for what pixels it was written."""
    name = type(layer).__name__
    if name == "Normalization" or (name == "BatchNormalization" and not layer.trainable):
        return False  # What they make of pixels is seen behind them.
    if hasattr(layer, "value_range") and name != "RandomContrast":  # It serves any range.
        return True
    # Where a layer with weights holds others that have some, those are asked.
    return _has_weights(layer) and not any(map(_has_weights, _layers(layer)))


def _has_weights(layer: Any) -> bool:
    """Whether it has weights itself."""
    return bool(layer._trainable_variables or layer._non_trainable_variables)


def _layers(layer: Any) -> list[Any]:
    """All that a layer or model holds, those of nested models too."""
    return list(layer._flatten_layers(include_self=False))


def _numbers(value: Any) -> np.ndarray | None:
    import keras

    while isinstance(value, list | tuple) and value:
        value = value[0]
    try:
        return np.asarray(keras.ops.convert_to_numpy(value), np.float64)
    except Exception:  # A tensor of a graph, where the model's `call` is compiled by itself.
        return None
