"""How a model of the core spaces `cnn` and `mlp` is fitted: optimizer, schedule, loss, batch size.

`sample_fitting` asks `hp` and never imports Keras; `make_optimizer` and `compile_model` belong to
the worker's side. The spaces with parameters per block or layer have their own in `optimizers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.augmentation import Augmentation
from search_spaces.hyperparameters import HyperParametersLike, Params

if TYPE_CHECKING:
    import keras

    from search_spaces.space import Shape

WARMUP_SHARE = 0.05
"""Share of the steps over which `one_cycle` raises the learning rate. Usual are 0.05 to 0.3; a
short one lets early rungs compare points under nearly their highest rate (docs/log.md)."""
START_DIVISOR = 25.0
"""`one_cycle` begins at the highest rate divided by it (Smith and Topin 2017, arXiv 1708.07120)."""
SGD_FACTOR = 10.0
"""Gradient descent wants about ten times the rate of the methods that divide by gradient sizes."""
AVERAGE_MOMENTUM = 0.99
"""Of the moving average of the weights: it spans about the last hundred steps."""

PUBLISHED_FITTING: Params = {
    "learning_rate": 1e-3, "schedule": "constant", "weight_decay": 0.0, "label_smoothing": 0.0,
    "augmentation_shift": 0.0,
}  # fmt: skip
"""How the published models are fitted, where that is not the default: as Keras does by itself."""


def sample_fitting(hp: HyperParametersLike) -> None:
    """Asks for optimizer, rate, schedule, regularization, augmentation and batch size.

    Defaults are the recipe that is usual for small images. `learning_rate` is that of the adaptive
    methods; sgd takes `SGD_FACTOR` times as much.
    """
    hp.Choice("optimizer", ["adam", "nadam", "rmsprop", "sgd"], default="adam")
    hp.Float("learning_rate", 3e-4, 2e-2, sampling="log", default=3e-3)
    hp.Choice("schedule", ["one_cycle", "cosine", "constant"], default="one_cycle")
    hp.Choice("weight_decay", [0.0, 1e-5, 1e-4, 1e-3, 1e-2], default=1e-4)
    hp.Choice("label_smoothing", [0.0, 0.05, 0.1], default=0.05)
    hp.Float("augmentation_shift", 0.0, 0.1, step=0.02, default=0.04)
    hp.Boolean("augmentation_flip", default=False)
    hp.Boolean("weight_averaging", default=False)
    hp.Choice("batch_size", [32, 64, 128, 200, 256, 512], default=128)


def augmentation_of(params: Params, input_shape: Shape) -> Augmentation | None:
    """What a point asks for, in pixels of an image shape; None where it changes nothing.

    `augmentation_shift` is a share of the shorter side: 0.04 is one pixel of 28.
    """
    shift = round(float(params["augmentation_shift"]) * min(input_shape[:2]))
    flip = bool(params["augmentation_flip"])
    return Augmentation(shift, flip) if shift or flip else None


def compile_model(model: keras.Model, params: Params, num_steps: int) -> None:
    """Compiles the model of a point; with smoothed labels its loss takes one-hot ones."""
    from keras import losses

    smoothing = float(params["label_smoothing"])
    model.compile(
        optimizer=make_optimizer(params, num_steps),
        loss=(
            losses.CategoricalCrossentropy(label_smoothing=smoothing)
            if smoothing
            else "sparse_categorical_crossentropy"
        ),
        metrics=["accuracy"],
    )


def make_optimizer(params: Params, num_steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a point, its schedule spanning `num_steps` gradient steps.

    Weight decay is decoupled (Loshchilov and Hutter 2019, arXiv 1711.05101) in all of them.
    """
    from keras import optimizers

    name = str(params["optimizer"])
    highest = float(params["learning_rate"]) * (SGD_FACTOR if name == "sgd" else 1.0)
    rate = _schedule(str(params["schedule"]), highest, num_steps)
    decay = float(params["weight_decay"]) or None
    averaging = {
        "use_ema": bool(params["weight_averaging"]), "ema_momentum": AVERAGE_MOMENTUM,
    }  # fmt: skip
    if name == "sgd":
        return optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay, **averaging)
    family = {"adam": optimizers.Adam, "nadam": optimizers.Nadam, "rmsprop": optimizers.RMSprop}
    return family[name](rate, weight_decay=decay, **averaging)


def _schedule(
    name: str, highest: float, num_steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    from keras.optimizers import schedules

    if name == "constant":
        return highest
    warmup = int(WARMUP_SHARE * num_steps) if name == "one_cycle" else 0
    if warmup == 0:
        return schedules.CosineDecay(highest, max(1, num_steps))
    return schedules.CosineDecay(
        highest / START_DIVISOR, num_steps - warmup, warmup_target=highest, warmup_steps=warmup
    )
