"""What a built model costs: its weights, and the multiply-adds of its layers.

Imports Keras: only for processes that may have it.
"""

from __future__ import annotations

import math

import keras
from keras import layers as kl

from search_spaces.cost import Cost

_CONVOLUTIONS = (kl.Conv1D, kl.Conv2D, kl.Conv3D)
_DEPTHWISE = (kl.DepthwiseConv1D, kl.DepthwiseConv2D)
_SEPARABLE = (kl.SeparableConv1D, kl.SeparableConv2D)
_TRANSPOSED = (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose)


def cost_of_model(model: keras.Model) -> Cost | None:
    """The cost of a model for one image; None where it is not built, or takes images of any size.

    Convolutions and dense layers count, in nested models and in layers of the user's own, too; a
    layer that is used several times counts once. Every other layer counts nothing.
    """
    if not model.built or any(not layer.built for layer in _layers(model) if _counts(layer)):
        return None
    try:
        multiply_adds = sum(map(_multiply_adds, _layers(model)))
    except TypeError:  # A size that is None.
        return None
    return Cost(model.count_params(), multiply_adds)


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    return list(model._flatten_layers(include_self=False))


def _counts(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, (kl.Dense, *_CONVOLUTIONS, *_DEPTHWISE, *_SEPARABLE, *_TRANSPOSED))


def _multiply_adds(layer: keras.layers.Layer) -> int:
    """Of one layer for one image: each weight of a kernel, as often as it is used."""
    if not _counts(layer):
        return 0
    shape = layer.get_build_config()["input_shape"]
    is_separable = isinstance(layer, _SEPARABLE)
    kernels = (layer.depthwise_kernel, layer.pointwise_kernel) if is_separable else (layer.kernel,)
    num_weights: int = sum(math.prod(kernel.shape) for kernel in kernels)
    if isinstance(layer, kl.Dense):
        return num_weights * int(math.prod(shape[1:-1]))
    if isinstance(layer, _TRANSPOSED):  # Each pixel that comes in meets the whole kernel.
        return num_weights * _positions(layer, shape)
    return num_weights * _positions(layer, layer.compute_output_shape(shape))


def _positions(layer: keras.layers.Layer, shape: tuple[int | None, ...]) -> int:
    """How many pixels an image of this shape has."""
    sides = shape[1:-1] if layer.data_format == "channels_last" else shape[2:]
    return int(math.prod(sides))  # type: ignore[arg-type]
