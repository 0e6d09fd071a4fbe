"""Space `cnn`: blocks of convolutions that share their parameters, then a dense head.

It is the core of what `cnn_blocks` can say, with the published models in it. Any point is a
possible model for any image, because `plan` adapts it: a pooling that would leave less than one
pixel is left out, a kernel larger than the feature map is padded `same`, and a flattened feature
map of more than `MAX_FLATTENED` values is averaged instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.cost import Cost
from search_spaces.fitting import (
    PUBLISHED_FITTING,
    augmentation_of,
    compile_model,
    sample_fitting,
)
from search_spaces.hyperparameters import HyperParametersLike, Params, active_values
from search_spaces.layers import Layer, classifier, conv_side, cost_of
from search_spaces.space import Baseline, Shape, Space

if TYPE_CHECKING:
    import keras

MAX_BLOCKS = 4
MAX_FLATTENED = 8_192
"""Largest input of the first dense layer: 256 units on it are 2.1 million weights, 8 MB."""


def sample(hp: HyperParametersLike) -> Params:
    """Asks for every parameter of the space; see `--describe cnn` for the table."""
    hp.Int("num_blocks", 1, MAX_BLOCKS, default=3)
    hp.Int("filters", 8, 64, sampling="log", default=32)
    hp.Choice("growth", ["none", "double_once", "half_more", "double"], default="half_more")
    hp.Int("num_convs", 1, 2, default=1)
    with hp.conditional_scope("num_convs", [1]):
        # Two of 3x3 see as much as one of 5x5 (Simonyan and Zisserman 2015, section 2.3).
        hp.Choice("kernel_size", [3, 5], default=3)
    hp.Choice("padding", ["valid", "same"], default="same")
    hp.Choice("pooling", ["max", "average", "stride"], default="max")
    hp.Boolean("pool_last", default=True)
    hp.Boolean("batch_norm", default=True)
    hp.Float("block_dropout", 0.0, 0.3, step=0.05, default=0.0)
    hp.Choice("head", ["flatten", "average"], default="flatten")
    hp.Choice("dense_units", [0, 64, 128, 256], default=128)
    hp.Float("head_dropout", 0.0, 0.5, step=0.05, default=0.2)
    sample_fitting(hp)
    return active_values(hp)


def filters_of(params: Params) -> tuple[int, ...]:
    """The filters of each block."""
    first, growth = int(params["filters"]), params["growth"]
    blocks = range(int(params["num_blocks"]))
    if growth == "double_once":
        return tuple(first * 2 if i else first for i in blocks)
    factor = {"none": 1.0, "half_more": 1.5, "double": 2.0}[str(growth)]
    return tuple(int(first * factor**i) for i in blocks)


def plan(params: Params, input_shape: Shape) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """The layers of a point for an image shape, and one sentence per adaptation. Pure."""
    height, width, channels = input_shape
    kernel, num_convs = int(params.get("kernel_size", 3)), int(params["num_convs"])
    pooling, batch_norm = str(params["pooling"]), bool(params["batch_norm"])
    layers: list[Layer] = []
    adapted: list[str] = []
    for i, channels in enumerate(filters_of(params)):
        pools = bool(params["pool_last"]) or i < int(params["num_blocks"]) - 1
        for k in range(num_convs):
            padding = str(params["padding"])
            if padding == "valid" and kernel > min(height, width):
                padding = "same"
                adapted.append(f"block {i}: padding same, {kernel}x{kernel} on {height}x{width}")
            strides = 2 if pools and pooling == "stride" and k == num_convs - 1 else 1
            if strides > 1 and min(height, width) < 2:
                strides = 1
                adapted.append(f"block {i}: no stride, the feature map is {height}x{width}")
            conv = Layer("conv", channels, kernel, padding, strides, use_bias=not batch_norm)
            height, width = conv_side(height, conv), conv_side(width, conv)
            layers.append(conv)
            after = [Layer("batch_norm")] * batch_norm + [Layer("relu")]
            if k == num_convs - 1 and pools and pooling != "stride":
                if min(height, width) < 2:
                    adapted.append(f"block {i}: no pooling, the feature map is {height}x{width}")
                else:
                    height, width = height // 2, width // 2
                    pool = Layer("max" if pooling == "max" else "average", 2)
                    # Normalising what is pooled already takes a quarter of the time, which is most
                    # of the time of a small network on cores (as in airbench: Jordan 2024, arXiv
                    # 2404.00498, section 3). Without it the order is that of the published models.
                    after = [pool, *after] if batch_norm else [*after, pool]
            layers += after
        if params["block_dropout"]:
            layers.append(Layer("dropout", float(params["block_dropout"])))
    flattened = height * width * channels
    if params["head"] == "flatten" and flattened > MAX_FLATTENED:
        adapted.append(f"head: averaged, {flattened:,} values are too many to flatten")
    keep = params["head"] == "flatten" and flattened <= MAX_FLATTENED
    layers.append(Layer("flatten" if keep else "global"))
    if params["dense_units"]:
        layers += [Layer("dense", int(params["dense_units"])), Layer("relu")]
    if params["head_dropout"]:
        layers.append(Layer("dropout", float(params["head_dropout"])))
    return tuple(layers), tuple(adapted)


def build(params: Params, input_shape: Shape, num_classes: int, *, num_steps: int) -> keras.Model:
    """The compiled model: raw pixels 0 to 255 in, class probabilities out."""
    layers = plan(params, input_shape)[0]
    model = classifier("cnn", layers, input_shape, num_classes)
    compile_model(model, params, num_steps)
    return model


def cost(params: Params, input_shape: Shape, num_classes: int) -> Cost:
    """What the model of a point costs. Pure."""
    return cost_of(plan(params, input_shape)[0], input_shape, num_classes)


def _adaptations(params: Params, input_shape: Shape) -> tuple[str, ...]:
    return plan(params, input_shape)[1]


_BARE = Space("cnn", "", sample, build, _adaptations)
_CNN3: Params = {
    **PUBLISHED_FITTING, "num_blocks": 3, "filters": 32, "growth": "double_once",
    "pool_last": False, "batch_norm": False, "dense_units": 64, "head_dropout": 0.0,
    "optimizer": "rmsprop",
}  # fmt: skip
_CNN3_VALID = _BARE.complete({**_CNN3, "padding": "valid", "batch_size": 64})
_CNN3_SAME = _BARE.complete({**_CNN3, "padding": "same", "batch_size": 200})
# The publication names neither batch size nor split; Keras' default batch of 32 on all training
# images reproduces its figure after the two epochs that it shows.
_CNN2_DROPOUT = _BARE.complete({
    **PUBLISHED_FITTING, "padding": "valid", "num_blocks": 1, "num_convs": 2, "filters": 32,
    "growth": "none", "batch_norm": False, "block_dropout": 0.25, "dense_units": 128,
    "head_dropout": 0.5, "optimizer": "adam", "batch_size": 32,
})  # fmt: skip

SPACE = Space(
    name="cnn",
    summary="convolutional blocks, dense head, optimizer, schedule, augmentation",
    sample=sample,
    build=build,
    adaptations=_adaptations,
    augmentation=augmentation_of,
    cost_of=cost,
    image_size_note=(
        "On small images a pooling that would leave less than a pixel is left out and a kernel "
        f"larger than the feature map is padded; above {MAX_FLATTENED:,} values the head averages."
    ),
    baselines=(
        Baseline("cnn3_valid_50k", "cnn", _CNN3_VALID, 5, "train", 0.992, 0.0274),
        Baseline("cnn3_valid_60k", "cnn", _CNN3_VALID, 5, "train+validation", 0.9918, reload=True),
        Baseline("cnn3_same", "cnn", _CNN3_SAME, 10, "train+validation", 0.9927, 0.0317),
        Baseline("cnn2_dropout", "cnn", _CNN2_DROPOUT, 2, "train+validation", 0.9872, 0.0397),
    ),
)
