"""Planned layers: what a plan's layers become in Keras, and what they cost. Planning is pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from search_spaces.cost import Cost

if TYPE_CHECKING:
    import keras

Kind = Literal[
    "conv", "batch_norm", "relu", "max", "average", "dropout", "flatten", "global", "dense"
]


@dataclass(frozen=True)
class Layer:
    """One planned layer; `size` is filters, units, the dropout rate, or the side of a pooling.

    Attributes:
        padding, kernel_size, strides: of a convolution.
        use_bias: of a convolution or a dense layer.
    """

    kind: Kind
    size: float = 0
    kernel_size: int = 0
    padding: str = ""
    strides: int = 1
    use_bias: bool = True


def classifier(
    name: str,
    layers: Iterable[Layer],
    input_shape: tuple[int, int, int],
    num_classes: int,
    augmentation: Iterable[keras.layers.Layer] = (),
) -> keras.Model:
    """The model of planned layers, not compiled: raw pixels 0 to 255 in, class probabilities out.

    Args:
        augmentation: layers that change images in training, before the planned ones.
    """
    import keras
    from keras import layers as kl

    inputs = keras.Input(input_shape, dtype="uint8", name="pixels")
    x = kl.Rescaling(1 / 255)(inputs)
    for layer in augmentation:
        x = layer(x)
    for spec in layers:
        x = keras_layer(spec)(x)
    # Probabilities are float32 also where a mixed precision computes the rest in half of it.
    outputs = kl.Dense(num_classes, activation="softmax", name="probabilities", dtype="float32")(x)
    return keras.Model(inputs, outputs, name=name)


def keras_layer(layer: Layer) -> keras.layers.Layer:
    """The layer in Keras (imports Keras)."""
    from keras import layers as kl

    size = int(layer.size)
    if layer.kind == "conv":
        return kl.Conv2D(
            size, layer.kernel_size, layer.strides, layer.padding, use_bias=layer.use_bias
        )
    if layer.kind == "dense":
        return kl.Dense(size, use_bias=layer.use_bias)
    if layer.kind == "dropout":
        return kl.Dropout(layer.size)
    if layer.kind in ("max", "average"):
        return kl.MaxPooling2D(size) if layer.kind == "max" else kl.AveragePooling2D(size)
    simple = {
        "batch_norm": kl.BatchNormalization,
        "relu": kl.ReLU,
        "flatten": kl.Flatten,
        "global": kl.GlobalAveragePooling2D,
    }
    return simple[layer.kind]()


def conv_side(side: int, layer: Layer) -> int:
    """What is left of one side of a feature map after a convolution."""
    if layer.padding == "valid":
        side -= layer.kernel_size - 1
    return -(-side // layer.strides)


def pool_factor(input_shape: tuple[int, int, int], most: int) -> int:
    """The side of the squares to average so that an image has at most so many values. Pure."""
    height, width, channels = input_shape
    factor = 1
    while (height // factor) * (width // factor) * channels > most:
        factor += 1
    return factor


def cost_of(layers: Sequence[Layer], input_shape: tuple[int, int, int], num_classes: int) -> Cost:
    """Parameters and multiply-adds of the layers and the output layer behind them. Pure."""
    height, width, channels = input_shape
    num_parameters = multiply_adds = 0
    for layer in (*layers, Layer("dense", num_classes)):
        if layer.kind == "conv":
            height, width = conv_side(height, layer), conv_side(width, layer)
            weights = layer.kernel_size**2 * channels * int(layer.size)
            multiply_adds += height * width * weights
        elif layer.kind == "dense":
            weights = channels * int(layer.size)
            multiply_adds += weights
        if layer.kind in ("conv", "dense"):
            channels = int(layer.size)
            num_parameters += weights + (channels if layer.use_bias else 0)
        elif layer.kind == "batch_norm":
            num_parameters += 4 * channels  # Scale, shift, moving mean and moving variance.
        elif layer.kind in ("max", "average"):
            height, width = height // int(layer.size), width // int(layer.size)
        elif layer.kind == "flatten":
            channels *= height * width
    return Cost(num_parameters, multiply_adds)
