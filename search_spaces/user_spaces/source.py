"""A user's HyperModel asked for its parameters, and built at a point, where Keras may be."""

from __future__ import annotations

import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.hyperparameters import active_values, declare
from search_spaces.hyperparameters.parameter import Params
from search_spaces.labels import takes_one_hot
from search_spaces.space import Assembled, Shape
from search_spaces.user_spaces.fit_probe import Pretended, pretend_to_fit
from search_spaces.user_spaces.loading import failure_text, load_hypermodel
from search_spaces.user_spaces.reference import Reference

if TYPE_CHECKING:
    import keras

    from search_spaces.user_spaces.hp_bridge import Answer

DEFAULT_BATCH_SIZE = 32
"""Keras' own."""


class TunerSource:
    """One HyperModel, loaded once and asked as often as needed.

    Attributes:
        notes: what people should know of it, as far as it has been asked.
        drops_class_weights: whether its own `fit` was seen to leave weights of classes out.

    Raises:
        InputError: As `load_hypermodel`.
    """

    def __init__(self, reference: Reference, input_shape: Shape, num_classes: int) -> None:
        self.reference, self.shape, self.num_classes = reference, input_shape, num_classes
        self.hypermodel = load_hypermodel(reference, input_shape, num_classes)
        self.has_own_fit = has_own_fit(self.hypermodel)
        self.notes: list[str] = []
        self.drops_class_weights = False
        self._noted: set[object] = set()

    def build(self, answer: Answer) -> tuple[Any, keras.Model]:
        """Builds a model with values that `answer` gives; returns the `hp` that asked, too."""
        import keras

        from search_spaces.user_spaces.hp_bridge import AskingHyperParameters

        keras.utils.set_random_seed(0)  # A space that draws lots draws the same ones.
        hp = AskingHyperParameters(answer)
        self.hypermodel.declare_hyperparameters(hp)
        return hp, self.hypermodel.build(hp)

    def pretend(self, hp: Any, model: keras.Model, *, look: bool = False) -> Pretended:
        """Lets the HyperModel's `fit` name its parameters; what it raises becomes a note."""
        done = pretend_to_fit(
            self.hypermodel, hp, model, self.shape, self.num_classes,
            one_hot=wants_one_hot(self.hypermodel, model, self.num_classes), look=look,
        )  # fmt: skip
        if look:
            # One that broke off was not seen to its end.
            self.drops_class_weights = not done.weighs and done.error is None
        if done.error is not None:
            self._note_failure(done.error)
        return done

    def ask(self, answer: Answer) -> keras.Model:
        """Builds a model with values that `answer` gives, and lets `fit` name its own.

        What `build` raises passes; what `fit` raises does not, because it only pretends to train.
        """
        import keras

        hp, model = self.build(answer)
        if self.has_own_fit and isinstance(model, keras.Model):
            self.pretend(hp, model)
        return model

    def sample(self, hp: Any) -> Params:
        """The active values of a point that `hp` chooses, as `Space.sample`."""
        self.ask(lambda parameter: declare(hp, parameter))
        return active_values(hp)

    def _note_failure(self, error: Exception) -> None:
        """Says once where `fit` breaks off: what it would have declared later stays unknown."""
        file = self.reference.file
        places = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        key = (type(error), *places[-1:])
        if key not in self._noted:
            self._noted.add(key)
            self.notes.append(
                f"the fit of '{self.reference.text}' fails where it only pretends to train, on "
                f"noise: {failure_text(error, file)}. Parameters that it declares after that are "
                "not searched, and a trial that asks for one fails: declare them first, or in build"
            )


def assemble(
    reference: Reference, params: Params, input_shape: Shape, num_classes: int
) -> Assembled:
    """The model of a point, with the HyperModel's own `fit` where it has one.

    Raises:
        MissingParameterError: It asks for a parameter that the point does not hold.
    """
    from search_spaces.user_spaces.hp_bridge import HeldHyperParameters

    hypermodel = load_hypermodel(reference, input_shape, num_classes)
    hp = HeldHyperParameters(params)
    hypermodel.declare_hyperparameters(hp)
    model = hypermodel.build(hp)
    if not model.built:
        model(np.zeros((1, *input_shape), np.uint8), training=False)
    return Assembled(
        model=model,
        batch_size=_batch_size(params),
        own_fit=partial(hypermodel.fit, hp, model) if has_own_fit(hypermodel) else None,
        one_hot=wants_one_hot(hypermodel, model, num_classes),
        is_ours=False,
    )


def has_own_fit(hypermodel: Any) -> bool:
    """Whether the HyperModel trains its models itself."""
    import keras_tuner

    return type(hypermodel).fit is not keras_tuner.HyperModel.fit


def wants_one_hot(hypermodel: Any, model: keras.Model, num_classes: int) -> bool:
    """What the HyperModel's attribute `one_hot` says; without one, what the model's loss takes."""
    told = getattr(hypermodel, "one_hot", None)
    return told if isinstance(told, bool) else takes_one_hot(model, num_classes)


def _batch_size(params: Params) -> int:
    """The point's own `batch_size`, where it has one that can be meant."""
    found = params.get("batch_size")
    usable = isinstance(found, int | float) and found >= 1
    return int(found) if usable and found is not None else DEFAULT_BATCH_SIZE
