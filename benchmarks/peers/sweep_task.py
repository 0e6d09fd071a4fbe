"""What the programs of a whole sweep share: images, the space `cnn`, and the model of a point."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from search_spaces.hyperparameters import Params
from search_spaces.hyperparameters.narrowing import narrowed
from search_spaces.registry import get_space


class Task:
    """The arguments of a program, as they come from its command line.

    Args:
        data: an npz file with `x_train`, `y_train`, `x_validation` and `y_validation`: pixels 0 to
            255 and class numbers.
        trials, epochs, seconds, seed: of the sweep; epochs of every trial.
        fixed: parameters that are not searched, as `NAME=VALUE`.
    """

    def __init__(
        self, data: str, trials: str, epochs: str, seconds: str, seed: str, *fixed: str
    ) -> None:
        self._arguments = (data, trials, epochs, seconds, seed, *fixed)
        with np.load(data) as file:
            self.x, labels = file["x_train"], file["y_train"]
            x_validation, validation_labels = file["x_validation"], file["y_validation"]
        self.num_classes = int(labels.max()) + 1
        one_hot = np.eye(self.num_classes, dtype=np.float32)
        self.y, self.validation = one_hot[labels], (x_validation, one_hot[validation_labels])
        self.trials, self.epochs, self.seed = int(trials), int(epochs), int(seed)
        self.seconds = float(seconds)
        self._generator = np.random.default_rng(self.seed)
        self.space = narrowed(get_space("cnn"), fixed)
        self.defaults = self.space.complete({})

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes are sent the arguments, and read the images themselves."""
        return Task, self._arguments

    def sample(self, hp: Any) -> Params:
        """A point of the space, asked of Keras Tuner's `hp`."""
        return self.space.sample(hp)

    def suggest(self, trial: Any) -> Params:
        """A point of the space, asked of an Optuna trial."""
        from sweeps.engines.optuna_study.hyperparameters import OptunaHyperParameters

        return self.space.sample(OptunaHyperParameters(trial))

    def draw(self) -> Params:
        """A point drawn uniformly, another one at each call; they follow from the seed."""
        from search_spaces.hyperparameters import RandomHyperParameters

        return self.space.sample(RandomHyperParameters(self._generator))

    def model(self, params: Params) -> Any:
        """The compiled Keras model of a point; it takes pixels and one-hot labels."""
        import keras

        keras.utils.set_random_seed(self.seed)
        model = self.space.build(
            params, self.x.shape[1:], self.num_classes, num_steps=self.steps(params) * self.epochs
        )
        # The space's loss takes class numbers where nothing is smoothed; here all are one-hot.
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=params["label_smoothing"])
        model.compile(model.optimizer, loss, metrics=["accuracy"])
        return model

    def steps(self, params: Params) -> int:
        """Gradient steps of an epoch."""
        return math.ceil(len(self.x) / int(params["batch_size"]))
