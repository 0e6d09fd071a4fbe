"""A user's HyperModel asked for its parameters, and built at a point, where Keras may be."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.hyperparameters import active_values, declare
from search_spaces.parameters import Params
from search_spaces.references import Reference
from search_spaces.space import Assembled, Shape
from search_spaces.tuner_loading import load_hypermodel

if TYPE_CHECKING:
    import keras

    from search_spaces.tuner_asking import Answer

DEFAULT_BATCH_SIZE = 32
"""Keras' own."""
NUM_PRETENDED = 8


class TunerSource:
    """One HyperModel, loaded once and asked as often as needed.

    Raises:
        InputError: As `load_hypermodel`.
    """

    def __init__(self, reference: Reference, input_shape: Shape, num_classes: int) -> None:
        self._shape, self._num_classes = input_shape, num_classes
        self.hypermodel = load_hypermodel(reference, input_shape, num_classes)

    def ask(self, answer: Answer) -> keras.Model:
        """Builds a model with values that `answer` gives, and lets `fit` name its own.

        What `build` raises passes; what `fit` raises does not, because it only pretends to train.
        """
        import keras

        from search_spaces.tuner_asking import AskingHyperParameters

        keras.utils.set_random_seed(0)  # A space that draws lots draws the same ones.
        hp = AskingHyperParameters(answer)
        self.hypermodel.declare_hyperparameters(hp)
        model = self.hypermodel.build(hp)
        if has_own_fit(self.hypermodel) and isinstance(model, keras.Model):
            self._pretend_to_fit(hp, model)
        return model

    def sample(self, hp: Any) -> Params:
        """The active values of a point that `hp` chooses, as `Space.sample`."""
        self.ask(lambda parameter: declare(hp, parameter))
        return active_values(hp)

    def _pretend_to_fit(self, hp: Any, model: keras.Model) -> None:
        """Calls the HyperModel's `fit` with a few black pictures and a model that trains nothing.

        `fit` declares parameters as `build` does, the batch size above all.
        """
        import keras

        def pretended(*args: Any, **kwargs: Any) -> Any:
            history = keras.callbacks.History()
            names = ("loss", "accuracy", "val_loss", "val_accuracy")
            history.history, history.epoch = {name: [0.0] for name in names}, [0]
            return history

        object.__setattr__(model, "fit", pretended)
        x = np.zeros((NUM_PRETENDED, *self._shape), np.uint8)
        y = labels_for(np.arange(NUM_PRETENDED) % self._num_classes, self._num_classes,
                       one_hot=takes_one_hot(model))  # fmt: skip
        try:
            self.hypermodel.fit(hp, model, x, y, epochs=1, initial_epoch=0, verbose=0,
                                callbacks=[], validation_data=(x, y))  # fmt: skip
        except Exception:  # A loop of its own may need what is not there; a trial will tell.
            return


def assemble(
    reference: Reference, params: Params, input_shape: Shape, num_classes: int
) -> Assembled:
    """The model of a point, with the HyperModel's own `fit` where it has one."""
    import keras_tuner

    hypermodel = load_hypermodel(reference, input_shape, num_classes)
    hp = keras_tuner.HyperParameters()
    hp.values = dict(params)
    hypermodel.declare_hyperparameters(hp)
    model = hypermodel.build(hp)
    if not model.built:
        model(np.zeros((1, *input_shape), np.uint8), training=False)
    return Assembled(
        model=model,
        batch_size=_batch_size(params),
        own_fit=partial(hypermodel.fit, hp, model) if has_own_fit(hypermodel) else None,
        one_hot=takes_one_hot(model),
        is_ours=False,
    )


def has_own_fit(hypermodel: Any) -> bool:
    """Whether the HyperModel trains its models itself."""
    import keras_tuner

    return type(hypermodel).fit is not keras_tuner.HyperModel.fit


def takes_one_hot(model: keras.Model) -> bool:
    """Whether a compiled model's loss compares with one-hot labels: all but `sparse` ones do."""
    loss = getattr(model, "loss", None)
    if loss is None:
        return False
    name = loss if isinstance(loss, str) else getattr(loss, "name", None)
    name = name or getattr(loss, "__name__", type(loss).__name__)
    return "sparse" not in str(name).lower()


def labels_for(labels: np.ndarray, num_classes: int, *, one_hot: bool) -> np.ndarray:
    """Class numbers (n,) as they are, or one-hot (n, classes) float32."""
    return np.eye(num_classes, dtype=np.float32)[labels] if one_hot else labels


def _batch_size(params: Params) -> int:
    """The point's own `batch_size`, where it has one that can be meant."""
    found = params.get("batch_size")
    usable = isinstance(found, int | float) and found >= 1
    return int(found) if usable and found is not None else DEFAULT_BATCH_SIZE
