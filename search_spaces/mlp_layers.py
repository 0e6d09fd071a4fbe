"""Space `mlp`: flattened pixels and dense layers with dropout and batch norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.hyperparameters import (
    HyperParametersLike,
    Params,
    active_values,
    repeated,
)
from search_spaces.optimizers import make_optimizer, sample_fitting
from search_spaces.space import Baseline, Shape, Space

if TYPE_CHECKING:
    import keras

MAX_LAYERS = 4
MAX_FLATTENED = 12_288
"""Largest input of the first layer (64x64x3): larger images are averaged down to it first."""


def sample(hp: HyperParametersLike) -> Params:
    """Asks for every parameter of the space; see `--describe mlp` for the table."""
    hp.Int("num_layers", 1, MAX_LAYERS, default=2)
    for i in range(MAX_LAYERS):
        with repeated(hp, "num_layers", i, MAX_LAYERS):
            hp.Int(f"units_{i}", 64, 1024, step=64, default=512)
            hp.Boolean(f"batch_norm_{i}")
            hp.Float(f"dropout_{i}", 0.0, 0.5, step=0.05, default=0.0)
    sample_fitting(hp)
    return active_values(hp)


def pool_factor(input_shape: Shape) -> int:
    """The side of the squares whose pixels are averaged so that the input stays in bounds. Pure."""
    height, width, channels = input_shape
    factor = 1
    while (height // factor) * (width // factor) * channels > MAX_FLATTENED:
        factor += 1
    return factor


def build(params: Params, input_shape: Shape, num_classes: int, *, num_steps: int) -> keras.Model:
    """The compiled model: raw pixels 0 to 255 in, class probabilities out."""
    import keras
    from keras import layers as kl

    inputs = keras.Input(input_shape, dtype="uint8", name="pixels")
    x = kl.Rescaling(1 / 255)(inputs)
    if (factor := pool_factor(input_shape)) > 1:
        x = kl.AveragePooling2D(factor)(x)
    x = kl.Flatten()(x)
    for i in range(int(params["num_layers"])):
        x = kl.Dense(int(params[f"units_{i}"]))(x)
        if params[f"batch_norm_{i}"]:
            x = kl.BatchNormalization()(x)
        x = kl.ReLU()(x)
        if params[f"dropout_{i}"]:
            x = kl.Dropout(float(params[f"dropout_{i}"]))(x)
    # Probabilities are float32 also where a mixed precision computes the rest in half of it.
    outputs = kl.Dense(num_classes, activation="softmax", name="probabilities", dtype="float32")(x)
    model = keras.Model(inputs, outputs, name="mlp")
    model.compile(
        optimizer=make_optimizer(params, num_steps),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def _adaptations(params: Params, input_shape: Shape) -> tuple[str, ...]:
    factor = pool_factor(input_shape)
    return (f"input: averaged over {factor}x{factor} pixels",) if factor > 1 else ()


_BARE = Space("mlp", "", sample, build, _adaptations)
_MLP_512X2 = _BARE.complete({
    "num_layers": 2, "units_0": 512, "units_1": 512, "optimizer": "rmsprop", "batch_size": 32,
})  # fmt: skip

SPACE = Space(
    name="mlp",
    summary="dense layers on flattened pixels, optimizer, schedule",
    sample=sample,
    build=build,
    adaptations=_adaptations,
    image_size_note=f"Images of more than {MAX_FLATTENED:,} values are averaged down first.",
    baselines=(
        Baseline("mlp_512x2", "mlp", _MLP_512X2, 5, "train+validation", 0.98),
    ),
)  # fmt: skip
