"""How a model of any space is fitted: optimizer, learning rate, weight decay, batch size.

The `sample_*` functions ask `hp` and never import Keras; `make_optimizer` and
`augmentation_layers` belong to the worker's side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.hyperparameters import HyperParametersLike, Params, Value

if TYPE_CHECKING:
    import keras

ADAPTIVE: list[Value] = ["rmsprop", "adam", "adamw", "nadam"]
BATCH_SIZES: list[Value] = [32, 64, 128, 200, 256, 512]


def sample_fitting(hp: HyperParametersLike) -> None:
    """Asks for batch size, optimizer with its own parameters, learning rate and schedule.

    Defaults are Keras' own (rmsprop: rate 0.001, rho 0.9, no momentum; adam: 0.001, 0.9, 0.999).
    """
    hp.Choice("batch_size", BATCH_SIZES, default=64)
    hp.Choice("optimizer", [*ADAPTIVE, "sgd"], default="rmsprop")
    with hp.conditional_scope("optimizer", ADAPTIVE):
        hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3)
    with hp.conditional_scope("optimizer", ["rmsprop"]):
        hp.Float("rmsprop_rho", 0.8, 0.99, step=0.01, default=0.9)
        hp.Float("rmsprop_momentum", 0.0, 0.9, step=0.1, default=0.0)
    with hp.conditional_scope("optimizer", ["adam", "adamw", "nadam"]):
        hp.Float("beta_1", 0.8, 0.95, step=0.05, default=0.9)
        hp.Choice("beta_2", [0.98, 0.99, 0.999], default=0.999)
    with hp.conditional_scope("optimizer", ["sgd"]):
        # Plain gradient descent wants rates ten times those of the adaptive methods, and a
        # parameter that changes its range between trials misleads a sampler: hence its own name.
        hp.Float("sgd_learning_rate", 1e-3, 3e-1, sampling="log", default=1e-2)
        hp.Float("sgd_momentum", 0.0, 0.95, step=0.05, default=0.9)
        hp.Boolean("sgd_nesterov", default=False)
    with hp.conditional_scope("optimizer", ["adamw"]):
        hp.Float("adamw_weight_decay", 1e-5, 1e-1, sampling="log", default=4e-3)
    with hp.conditional_scope("optimizer", ["rmsprop", "adam", "nadam", "sgd"]):
        hp.Choice("weight_decay", [0.0, 1e-5, 1e-4, 1e-3], default=0.0)
    hp.Choice("schedule", ["constant", "cosine", "exponential"], default="constant")
    with hp.conditional_scope("schedule", ["cosine"]):
        hp.Float("warmup_share", 0.0, 0.2, step=0.05, default=0.0)
    with hp.conditional_scope("schedule", ["exponential"]):
        hp.Float("final_rate_ratio", 1e-2, 0.5, sampling="log", default=0.1)


def sample_augmentation(hp: HyperParametersLike) -> None:
    """Asks for augmentation: shift and zoom as shares of the side, rotation as one of a turn."""
    hp.Boolean("augmentation", default=False)
    with hp.conditional_scope("augmentation", [True]):
        hp.Float("augmentation_shift", 0.0, 0.15, step=0.025, default=0.05)
        hp.Float("augmentation_rotation", 0.0, 0.1, step=0.02, default=0.02)
        hp.Float("augmentation_zoom", 0.0, 0.2, step=0.05, default=0.0)


def augmentation_layers(params: Params) -> list[keras.layers.Layer]:
    """Layers that are active in training only; none where the strength is zero."""
    if not params.get("augmentation"):
        return []
    from keras import layers

    shift, rotation, zoom = (
        float(params[f"augmentation_{name}"]) for name in ("shift", "rotation", "zoom")
    )
    chosen: list[keras.layers.Layer] = []
    if shift:
        chosen.append(layers.RandomTranslation(shift, shift, fill_mode="constant"))
    if rotation:
        chosen.append(layers.RandomRotation(rotation, fill_mode="constant"))
    if zoom:
        chosen.append(layers.RandomZoom(zoom, fill_mode="constant"))
    return chosen


def make_optimizer(params: Params, num_steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a point, its schedule spanning `num_steps` gradient steps."""
    from keras import optimizers

    name = str(params["optimizer"])
    rate = _schedule(params, num_steps)
    decay = float(params.get("weight_decay", 0.0)) or None
    if name == "sgd":
        return optimizers.SGD(
            rate,
            momentum=float(params["sgd_momentum"]),
            nesterov=bool(params["sgd_nesterov"]),
            weight_decay=decay,
        )
    if name == "rmsprop":
        return optimizers.RMSprop(
            rate,
            rho=float(params["rmsprop_rho"]),
            momentum=float(params["rmsprop_momentum"]),
            weight_decay=decay,
        )
    betas = {"beta_1": float(params["beta_1"]), "beta_2": float(params["beta_2"])}
    if name == "adamw":
        return optimizers.AdamW(rate, weight_decay=float(params["adamw_weight_decay"]), **betas)
    family = {"adam": optimizers.Adam, "nadam": optimizers.Nadam}
    return family[name](rate, weight_decay=decay, **betas)


def _schedule(
    params: Params, num_steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    from keras.optimizers import schedules

    rate = float(params["sgd_learning_rate" if params["optimizer"] == "sgd" else "learning_rate"])
    if params["schedule"] == "exponential":
        return schedules.ExponentialDecay(rate, num_steps, float(params["final_rate_ratio"]))
    if params["schedule"] == "cosine":
        warmup = int(num_steps * float(params["warmup_share"]))
        if warmup == 0:
            return schedules.CosineDecay(rate, num_steps)
        return schedules.CosineDecay(
            0.0, max(1, num_steps - warmup), warmup_target=rate, warmup_steps=warmup
        )
    return rate
