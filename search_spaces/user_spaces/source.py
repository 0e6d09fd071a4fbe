"""A user's HyperModel asked for its parameters, and built at a point.

Imports Keras Tuner, and with it Keras: only for processes that may have them.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras_tuner.src.engine.hyperparameters import hp_types

from search_spaces.hyperparameters import active_values, declare
from search_spaces.hyperparameters.parameter import (
    Condition,
    Parameter,
    Params,
    Value,
    boolean_parameter,
    choice_parameter,
    fixed_parameter,
    float_parameter,
    int_parameter,
)
from search_spaces.labels import takes_one_hot
from search_spaces.outputs import gives_logits
from search_spaces.pixels import RAW
from search_spaces.space import Assembled, Shape
from search_spaces.user_spaces.fit_probe import Pretended, pretend_to_fit
from search_spaces.user_spaces.keras_settings import check_layers, settings_kept
from search_spaces.user_spaces.loading import (
    failure_text,
    import_notes,
    load_hypermodel,
)
from search_spaces.user_spaces.reference import Reference

Answer = Callable[[Parameter], Value | None]
"""The value of a parameter; None for one that is inactive."""
DEFAULT_BATCH_SIZE = 32
"""Keras' own."""


class AskingHyperParameters(keras_tuner.HyperParameters):  # type: ignore[misc]
    """Asks for every parameter when it is declared; all else is Keras Tuner's own."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer

    def _register(self, hyperparameter: Any, overwrite: bool = False) -> Any:
        self._validate_name(hyperparameter.name)
        # Inactive ones are declared, too: whoever answers learns the whole space.
        value = self._answer(described(hyperparameter))
        if self.is_active(hyperparameter) and hyperparameter.name not in self.values:
            self.values[hyperparameter.name] = value
        return super()._register(hyperparameter, overwrite)


class MissingParameterError(LookupError):
    """A space asks for a parameter that a point does not hold."""


class HeldHyperParameters(keras_tuner.HyperParameters):  # type: ignore[misc]
    """Returns the values of a point; Keras Tuner's own takes the default of what a point lacks.

    A trial that did so would train with values that nothing records.
    """

    def __init__(self, params: Params) -> None:
        super().__init__()
        self.values = dict(params)

    def _register(self, hyperparameter: Any, overwrite: bool = False) -> Any:
        name = hyperparameter.name
        if self.is_active(hyperparameter) and name not in self.values:
            raise MissingParameterError(
                f"The hyperparameter '{name}' has no value in this trial, because it was not "
                "declared when the trial was sampled. Declare it in build, or in fit before "
                "anything that depends on the data."
            )
        return super()._register(hyperparameter, overwrite)


class TunerSource:
    """One HyperModel, loaded once and asked as often as needed.

    Attributes:
        notes: what people should know of it, as far as it has been asked.
        drops_class_weights: whether its own `fit` or `train_step` was seen to leave weights of
            classes out.
        pixels: RAW or UNIT: what its default model was seen to expect.
        own_metrics: as `Space.own_metrics`, once a model was looked at.

    Raises:
        InputError: As `load_hypermodel`.
    """

    def __init__(self, reference: Reference, input_shape: Shape, num_classes: int) -> None:
        self.reference, self.shape, self.num_classes = reference, input_shape, num_classes
        self.hypermodel = load_hypermodel(reference, input_shape, num_classes)
        self.has_custom_fit = has_custom_fit(self.hypermodel)
        self.notes: list[str] = [*import_notes(reference)]
        self.drops_class_weights = False
        self.own_metrics: tuple[str, ...] | None = None
        self.pixels = RAW
        self._noted: set[object] = set()

    def build(self, answer: Answer) -> tuple[Any, keras.Model]:
        """Builds a model with values that `answer` gives; returns the `hp` that asked, too."""
        keras.utils.set_random_seed(0)  # A space that draws lots draws the same ones.
        hp = AskingHyperParameters(answer)
        with settings_kept(self.reference.label):
            self.hypermodel.declare_hyperparameters(hp)
            model = self.hypermodel.build(hp)
        if isinstance(model, keras.Model):
            check_layers(model, self.reference.label)
        return hp, model

    def pretend(self, hp: Any, model: keras.Model, *, look: bool = False) -> Pretended:
        """Lets the HyperModel's `fit` name its parameters; what it raises becomes a note."""
        done = pretend_to_fit(
            self.hypermodel, hp, model, self.shape, self.num_classes,
            one_hot=wants_one_hot(self.hypermodel, model, self.num_classes), look=look,
            pixels=self.pixels,
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
        hp, model = self.build(answer)
        if self.has_custom_fit and isinstance(model, keras.Model):
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
                f"the fit of '{self.reference.label}' fails where it only pretends to train, on "
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
    hypermodel = load_hypermodel(reference, input_shape, num_classes)
    hp = HeldHyperParameters(params)
    with settings_kept(reference.label):
        hypermodel.declare_hyperparameters(hp)
        model = hypermodel.build(hp)
    check_layers(model, reference.label)
    if not model.built:
        # As numbers that every layer takes, whatever it is given later.
        model(np.zeros((1, *input_shape), np.float32), training=False)
    return Assembled(
        model=model,
        batch_size=_batch_size(params),
        custom_fit=_custom_fit(reference, hypermodel, hp, model),
        one_hot=wants_one_hot(hypermodel, model, num_classes),
        is_ours=False,
        logits=gives_logits(hypermodel, model, input_shape, num_classes),
    )


def _custom_fit(
    reference: Reference, hypermodel: Any, hp: Any, model: keras.Model
) -> Callable[..., Any] | None:
    """The HyperModel's own `fit` of that model, where it has one."""
    if not has_custom_fit(hypermodel):
        return None

    def fit(*arguments: Any, **options: Any) -> Any:
        with settings_kept(reference.label):
            return hypermodel.fit(hp, model, *arguments, **options)

    return fit


def described(hp: Any) -> Parameter:
    """A parameter of Keras Tuner's as ours, with the values that Keras Tuner itself can reach.

    With a step that is no exact fraction of a range, it does not reach the upper end: 0 to 0.5 by
    0.1 ends at 0.4, because 0.5 // 0.1 is 4. A default that cannot be reached is the nearest value
    that can.
    """
    conditions = tuple(Condition(c.name, tuple(c.values)) for c in hp.conditions)
    parameter = _without_conditions(hp)
    return Parameter(
        **{**vars(parameter), "conditions": conditions,
           "default": parameter.nearest(parameter.default)}
    )  # fmt: skip


def has_custom_fit(hypermodel: Any) -> bool:
    """Whether the HyperModel trains its models itself."""
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


def _without_conditions(hp: Any) -> Parameter:
    if isinstance(hp, hp_types.Fixed):
        return fixed_parameter(hp.name, hp.value)
    if isinstance(hp, hp_types.Boolean):
        return boolean_parameter(hp.name, bool(hp.default))
    if isinstance(hp, hp_types.Choice):
        values = [float(v) if isinstance(v, float) else v for v in hp.values]
        return choice_parameter(hp.name, values, ordered=bool(hp.ordered), default=hp.default)
    low, high = hp.min_value, hp.max_value
    if hp.step is not None and hp.sampling == "linear":
        high = low + (hp._get_n_values() - 1) * hp.step
    make = int_parameter if isinstance(hp, hp_types.Int) else float_parameter
    return make(hp.name, low, high, hp.step, hp.sampling, hp.default)
