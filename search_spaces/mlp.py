"""Space `mlp`: flattened pixels and dense layers that share their parameters.

It is the core of what `mlp_layers` can say, with the published model in it.
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
from search_spaces.layers import Layer, classifier, cost_of, pool_factor
from search_spaces.space import Baseline, Shape, Space

if TYPE_CHECKING:
    import keras

MAX_LAYERS = 4
MAX_FLATTENED = 12_288
"""Largest input of the first layer (64x64x3): larger images are averaged down to it first."""


def sample(hp: HyperParametersLike) -> Params:
    """Asks for every parameter of the space; see `--describe mlp` for the table."""
    hp.Int("num_layers", 1, MAX_LAYERS, default=2)
    hp.Int("units", 64, 1024, sampling="log", default=512)
    hp.Choice("layer_widths", ["constant", "halving"], default="constant")
    hp.Boolean("batch_norm", default=True)
    hp.Float("dropout", 0.0, 0.5, step=0.05, default=0.2)
    sample_fitting(hp)
    return active_values(hp)


def plan(params: Params, input_shape: Shape) -> tuple[Layer, ...]:
    """The layers of a point for an image shape. Pure."""
    factor, batch_norm = pool_factor(input_shape, MAX_FLATTENED), bool(params["batch_norm"])
    layers = [Layer("average", factor)] if factor > 1 else []
    layers.append(Layer("flatten"))
    units = int(params["units"])
    for _ in range(int(params["num_layers"])):
        layers.append(Layer("dense", units, use_bias=not batch_norm))
        if batch_norm:
            layers.append(Layer("batch_norm"))
        layers.append(Layer("relu"))
        if params["dropout"]:
            layers.append(Layer("dropout", float(params["dropout"])))
        if params["layer_widths"] == "halving":
            units //= 2
    return tuple(layers)


def build(params: Params, input_shape: Shape, num_classes: int, *, num_steps: int) -> keras.Model:
    """The compiled model: raw pixels 0 to 255 in, class probabilities out."""
    layers = plan(params, input_shape)
    model = classifier("mlp", layers, input_shape, num_classes)
    compile_model(model, params, num_steps)
    return model


def cost(params: Params, input_shape: Shape, num_classes: int) -> Cost:
    """What the model of a point costs. Pure."""
    return cost_of(plan(params, input_shape), input_shape, num_classes)


def _adaptations(params: Params, input_shape: Shape) -> tuple[str, ...]:
    factor = pool_factor(input_shape, MAX_FLATTENED)
    return (f"input: averaged over {factor}x{factor} pixels",) if factor > 1 else ()


_BARE = Space("mlp", "", sample, build, _adaptations)
_MLP_512X2 = _BARE.complete({
    **PUBLISHED_FITTING, "num_layers": 2, "units": 512, "batch_norm": False, "dropout": 0.0,
    "optimizer": "rmsprop", "batch_size": 32,
})  # fmt: skip

SPACE = Space(
    name="mlp",
    summary="dense layers on flattened pixels, optimizer, schedule, augmentation",
    sample=sample,
    build=build,
    adaptations=_adaptations,
    augmentation=augmentation_of,
    cost_of=cost,
    image_size_note=f"Images of more than {MAX_FLATTENED:,} values are averaged down first.",
    baselines=(Baseline("mlp_512x2", "mlp", _MLP_512X2, 5, "train+validation", 0.98),),
)
