"""Space `mlp_layers`: as `mlp`, with parameters for each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.cost import Cost
from search_spaces.hyperparameters import (
    HyperParametersLike,
    Params,
    active_values,
    repeated,
)
from search_spaces.layers import Layer, classifier, cost_of, pool_factor
from search_spaces.optimizers import make_optimizer, sample_fitting
from search_spaces.space import Baseline, Shape, Space

if TYPE_CHECKING:
    import keras

MAX_LAYERS = 4
MAX_FLATTENED = 12_288
"""Largest input of the first layer (64x64x3): larger images are averaged down to it first."""


def sample(hp: HyperParametersLike) -> Params:
    """Asks for every parameter of the space; see `--describe mlp_layers` for the table."""
    hp.Int("num_layers", 1, MAX_LAYERS, default=2)
    for i in range(MAX_LAYERS):
        with repeated(hp, "num_layers", i, MAX_LAYERS):
            hp.Int(f"units_{i}", 64, 1024, step=64, default=512)
            hp.Boolean(f"batch_norm_{i}")
            hp.Float(f"dropout_{i}", 0.0, 0.5, step=0.05, default=0.0)
    sample_fitting(hp)
    return active_values(hp)


def plan(params: Params, input_shape: Shape) -> tuple[Layer, ...]:
    """The layers of a point for an image shape. Pure."""
    factor = pool_factor(input_shape, MAX_FLATTENED)
    layers = [Layer("average", factor)] if factor > 1 else []
    layers.append(Layer("flatten"))
    for i in range(int(params["num_layers"])):
        layers.append(Layer("dense", int(params[f"units_{i}"])))
        if params[f"batch_norm_{i}"]:
            layers.append(Layer("batch_norm"))
        layers.append(Layer("relu"))
        if params[f"dropout_{i}"]:
            layers.append(Layer("dropout", float(params[f"dropout_{i}"])))
    return tuple(layers)


def build(params: Params, input_shape: Shape, num_classes: int, *, num_steps: int) -> keras.Model:
    """The compiled model: raw pixels 0 to 255 in, class probabilities out."""
    layers = plan(params, input_shape)
    model = classifier("mlp", layers, input_shape, num_classes)
    model.compile(
        optimizer=make_optimizer(params, num_steps),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def cost(params: Params, input_shape: Shape, num_classes: int) -> Cost:
    """What the model of a point costs. Pure."""
    return cost_of(plan(params, input_shape), input_shape, num_classes)


def _adaptations(params: Params, input_shape: Shape) -> tuple[str, ...]:
    factor = pool_factor(input_shape, MAX_FLATTENED)
    return (f"input: averaged over {factor}x{factor} pixels",) if factor > 1 else ()


_BARE = Space("mlp_layers", "", sample, build, _adaptations)
_MLP_512X2 = _BARE.complete({
    "num_layers": 2, "units_0": 512, "units_1": 512, "optimizer": "rmsprop", "batch_size": 32,
})  # fmt: skip

SPACE = Space(
    name="mlp_layers",
    summary="as mlp, with parameters of their own for each layer",
    sample=sample,
    build=build,
    adaptations=_adaptations,
    cost_of=cost,
    image_size_note=f"Images of more than {MAX_FLATTENED:,} values are averaged down first.",
    baselines=(
        Baseline("mlp_512x2", "mlp_layers", _MLP_512X2, 5, "train+validation", 0.98),
    ),
)  # fmt: skip
