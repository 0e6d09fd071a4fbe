"""Space `cnn_blocks`: as `cnn`, with parameters for each block and each dense layer.

Any point is a possible model for any image, because `plan` adapts it: a pooling that would leave
less than one pixel is left out, a kernel larger than the feature map is padded `same`, and a
flattened feature map of more than `MAX_FLATTENED` values is averaged instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.cost import Cost
from search_spaces.hyperparameters import (
    HyperParametersLike,
    Params,
    active_values,
    repeated,
)
from search_spaces.layers import Layer, classifier, cost_of
from search_spaces.optimizers import (
    augmentation_layers,
    make_optimizer,
    sample_augmentation,
    sample_fitting,
)
from search_spaces.space import Baseline, Shape, Space

if TYPE_CHECKING:
    import keras

MAX_BLOCKS = 4
MAX_DENSE_LAYERS = 2
MAX_FLATTENED = 32_768
"""Largest input of the first dense layer: 256 units on it are 8.4 million weights, 34 MB."""


def sample(hp: HyperParametersLike) -> Params:
    """Asks for every parameter of the space; see `--describe cnn_blocks` for the table."""
    hp.Choice("padding", ["valid", "same"])
    hp.Int("num_blocks", 1, MAX_BLOCKS, default=3)
    for i in range(MAX_BLOCKS):
        # The first block sees the full image and costs most: it stays narrower.
        with repeated(hp, "num_blocks", i, MAX_BLOCKS):
            hp.Int(f"num_convs_{i}", 1, 2)
            hp.Int(f"filters_{i}", 8, 32 if i == 0 else 64, step=8, default=32 if i == 0 else 64)
            hp.Choice(f"kernel_size_{i}", [3, 5])
            hp.Choice(f"pooling_{i}", ["max", "average", "none"])
            hp.Boolean(f"batch_norm_{i}")
            hp.Float(f"dropout_{i}", 0.0, 0.5, step=0.05, default=0.0)
    hp.Choice("head", ["flatten", "average"])
    hp.Int("num_dense_layers", 0, MAX_DENSE_LAYERS, default=1)
    for j in range(MAX_DENSE_LAYERS):
        with hp.conditional_scope("num_dense_layers", list(range(j + 1, MAX_DENSE_LAYERS + 1))):
            hp.Int(f"dense_units_{j}", 32, 256, step=32, default=64)
            hp.Float(f"dense_dropout_{j}", 0.0, 0.5, step=0.05, default=0.0)
    sample_fitting(hp)
    sample_augmentation(hp)
    return active_values(hp)


def plan(params: Params, input_shape: Shape) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """The layers of a point for an image shape, and one sentence per adaptation. Pure."""
    height, width, channels = input_shape
    layers: list[Layer] = []
    adapted: list[str] = []
    for i in range(int(params["num_blocks"])):
        channels, kernel = int(params[f"filters_{i}"]), int(params[f"kernel_size_{i}"])
        for _ in range(int(params[f"num_convs_{i}"])):
            padding = str(params["padding"])
            if padding == "valid" and kernel > min(height, width):
                padding = "same"
                adapted.append(f"block {i}: padding same, {kernel}x{kernel} on {height}x{width}")
            if padding == "valid":
                height, width = height - kernel + 1, width - kernel + 1
            layers.append(Layer("conv", channels, kernel, padding))
            if params[f"batch_norm_{i}"]:
                layers.append(Layer("batch_norm"))
            layers.append(Layer("relu"))
        pooling = params[f"pooling_{i}"]
        if pooling != "none" and min(height, width) < 2:
            adapted.append(f"block {i}: no pooling, the feature map is {height}x{width}")
        elif pooling != "none":
            height, width = height // 2, width // 2
            layers.append(Layer("max" if pooling == "max" else "average", 2))
        if params[f"dropout_{i}"]:
            layers.append(Layer("dropout", float(params[f"dropout_{i}"])))
    flattened = height * width * channels
    if params["head"] == "flatten" and flattened > MAX_FLATTENED:
        adapted.append(f"head: averaged, {flattened:,} values are too many to flatten")
    keep = params["head"] == "flatten" and flattened <= MAX_FLATTENED
    layers.append(Layer("flatten" if keep else "global"))
    for j in range(int(params["num_dense_layers"])):
        layers += [Layer("dense", int(params[f"dense_units_{j}"])), Layer("relu")]
        if params[f"dense_dropout_{j}"]:
            layers.append(Layer("dropout", float(params[f"dense_dropout_{j}"])))
    return tuple(layers), tuple(adapted)


def build(params: Params, input_shape: Shape, num_classes: int, *, num_steps: int) -> keras.Model:
    """The compiled model: raw pixels 0 to 255 in, class probabilities out."""
    layers = plan(params, input_shape)[0]
    model = classifier("cnn", layers, input_shape, num_classes, augmentation_layers(params))
    model.compile(
        optimizer=make_optimizer(params, num_steps),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def cost(params: Params, input_shape: Shape, num_classes: int) -> Cost:
    """What the model of a point costs. Pure."""
    return cost_of(plan(params, input_shape)[0], input_shape, num_classes)


def _adaptations(params: Params, input_shape: Shape) -> tuple[str, ...]:
    return plan(params, input_shape)[1]


_NAME = "cnn_blocks"
_BARE = Space(_NAME, "", sample, build, _adaptations)
_CNN3: Params = {
    "num_blocks": 3, "filters_0": 32, "filters_1": 64, "filters_2": 64,
    "pooling_0": "max", "pooling_1": "max", "pooling_2": "none",
    "num_dense_layers": 1, "dense_units_0": 64, "optimizer": "rmsprop",
}  # fmt: skip
_CNN3_VALID = _BARE.complete({**_CNN3, "padding": "valid", "batch_size": 64})
_CNN3_SAME = _BARE.complete({**_CNN3, "padding": "same", "batch_size": 200})
# The publication names neither batch size nor split; Keras' default batch of 32 on all training
# images reproduces its figure after the two epochs that it shows.
_CNN2_DROPOUT = _BARE.complete({
    "padding": "valid", "num_blocks": 1, "num_convs_0": 2, "filters_0": 32, "dropout_0": 0.25,
    "num_dense_layers": 1, "dense_units_0": 128, "dense_dropout_0": 0.5, "optimizer": "adam",
    "batch_size": 32,
})  # fmt: skip

SPACE = Space(
    name=_NAME,
    summary="as cnn, with parameters of their own for each block and dense layer",
    sample=sample,
    build=build,
    adaptations=_adaptations,
    cost_of=cost,
    image_size_note=(
        "On small images a pooling that would leave less than a pixel is left out and a kernel "
        f"larger than the feature map is padded; above {MAX_FLATTENED:,} values the head averages."
    ),
    baselines=(
        Baseline("cnn3_valid_50k", _NAME, _CNN3_VALID, 5, "train", 0.992, 0.0274),
        Baseline("cnn3_valid_60k", _NAME, _CNN3_VALID, 5, "train+validation", 0.9918, reload=True),
        Baseline("cnn3_same", _NAME, _CNN3_SAME, 10, "train+validation", 0.9927, 0.0317),
        Baseline("cnn2_dropout", _NAME, _CNN2_DROPOUT, 2, "train+validation", 0.9872, 0.0397),
    ),
)
