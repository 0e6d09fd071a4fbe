"""Whether the model of a user's space can be trained on a data set, said before a sweep begins."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.models.input_scale import scales_pixels
from pipelines.models.keras_files import store_model
from pipelines.training.options import TrainingOptions
from search_spaces.errors import InputError
from search_spaces.labels import labels_for
from search_spaces.outputs import are_probabilities, class_probabilities, gives_logits
from search_spaces.pixels import AUTO, RAW, UNIT, scaled
from search_spaces.space import Assembled, Shape
from search_spaces.user_spaces.fit_probe import LOOK_EPOCHS, NUM_STEP
from search_spaces.user_spaces.loading import failure_text
from search_spaces.user_spaces.source import TunerSource, wants_one_hot

if TYPE_CHECKING:
    import keras

MEMORIES = ("EarlyStopping", "ReduceLROnPlateau")
"""Keras' callbacks that count epochs; others that do have a `patience`, too."""
CHANGED_SCALE = 4.0
"""Times as large: what is augmented or has its mean subtracted changes by less."""
CALL_ERROR = re.compile(
    r"multiple values for|unexpected keyword argument|missing (a|\d+) required|"
    r"positional arguments?"
)
"""What Python says of a call with other arguments than a function takes: so it will in a trial."""


def look_at_space(source: TunerSource, pixels: str = AUTO) -> tuple[str, ...]:
    """Builds a space's default model and trains it for one step, to know what trials will meet.

    It leaves with the source what its models are given, and whether they take weights of classes.

    Args:
        pixels: the training option.

    Returns:
        what people should know of the space, a sentence each.

    Raises:
        InputError: It has no model that could be trained on such images.
    """
    label, file = source.reference.label, source.reference.file
    try:
        hp, model = source.build(lambda parameter: parameter.default)
    except InputError:
        raise
    except Exception as error:  # Whatever a user's code raises.
        raise InputError(
            f"'{label}' cannot build a model from its defaults: {failure_text(error, file)}."
        ) from error
    _check_compiled(model, label, has_custom_fit=source.has_custom_fit)
    source.pixels = pixels
    if pixels == AUTO:
        source.pixels = UNIT if scales_pixels(model, source.shape) is False else RAW
    notes = check_model(
        model, source.shape, source.num_classes, label,
        has_custom_fit=source.has_custom_fit, pixels=source.pixels, hypermodel=source.hypermodel,
    )  # fmt: skip
    one_hot = wants_one_hot(source.hypermodel, model, source.num_classes)
    if source.has_custom_fit:
        notes = (*notes, *_look_at_fit(source, hp, model))
    else:
        try:
            _train_a_step(model, source, one_hot=one_hot)
        except Exception as error:  # Whatever Keras makes of the arguments of `compile`.
            raise _untrainable(model, label, error, file, one_hot=one_hot) from error
        source.own_metrics = _compiled_names(model)
    if _has_own_step(model) and model.compiled:
        try:
            _train_a_step(model, source, one_hot=one_hot, weighs=True)
        except Exception:  # It unpacks images and labels, and there are weights, too.
            source.drops_class_weights = True
    return notes


def _compiled_names(model: keras.Model) -> tuple[str, ...] | None:
    """What a model that has made a step reports, of training and of validation; None if unknown."""
    if not getattr(model, "compiled", False):
        return ()
    try:
        names = list(model.get_metrics_result())
    except Exception:  # A model with metrics of its own may need more than a step.
        return None
    return (*names, *(f"val_{name}" for name in names))


def _train_a_step(
    model: keras.Model,
    source: TunerSource,
    *,
    one_hot: bool,
    weighs: bool = False,
) -> None:
    """One step on noise by `fit`, as trials do: `train_on_batch` hands weights over in any case."""
    num_classes = source.num_classes
    labels = labels_for(np.arange(NUM_STEP) % num_classes, num_classes, one_hot=one_hot)
    class_weight = dict.fromkeys(range(num_classes), 1.0) if weighs else None
    model.run_eagerly = True  # Making a graph takes longer than the step.
    model.fit(
        scaled(_noise(source.shape, NUM_STEP), source.pixels), labels,
        batch_size=NUM_STEP, verbose=0, class_weight=class_weight,
    )  # fmt: skip


def check_model(
    model: Any,
    input_shape: Shape,
    num_classes: int,
    label: str,
    *,
    has_custom_fit: bool = False,
    pixels: str = RAW,
    hypermodel: Any = None,
) -> tuple[str, ...]:
    """What is to be known of the models of a space, a sentence each.

    Args:
        model: what the space built from its defaults.
        label: how messages call the space.
        has_custom_fit: whether the space trains its models itself; then they need not be compiled.
        pixels: RAW or UNIT: what it is given.
        hypermodel: the space itself, which may say what its models give.

    Raises:
        InputError: It is no compiled model that makes class probabilities, or logits, of images.
    """
    _check_compiled(model, label, has_custom_fit=has_custom_fit)
    output = _output(model, input_shape, label, pixels)
    logits = gives_logits(hypermodel, model, input_shape, num_classes)
    _check_probabilities(output, num_classes, label, logits=logits)
    notes = [*_notes_on_pixels(model, input_shape, label, pixels)]
    with tempfile.TemporaryDirectory(prefix="keras-sweeps-") as folder:
        assembled = Assembled(model, 1, is_ours=False, logits=logits)
        options = TrainingOptions(pixels=pixels)
        _, why = store_model(assembled, Path(folder) / "model.keras", options)
    if why:
        notes.append(
            f"models of '{label}' are trained and recorded, but not stored, because they use "
            f"custom layers and cannot be saved without their code: {why}"
        )
    return tuple(notes)


def _check_compiled(model: Any, label: str, *, has_custom_fit: bool) -> None:
    import keras

    if not isinstance(model, keras.Model):
        raise InputError(f"'{label}' builds a {type(model).__name__} instead of a keras.Model.")
    if not has_custom_fit and not getattr(model, "compiled", False):
        raise InputError(
            f"'{label}' does not compile its model. End it with "
            "model.compile(optimizer=..., loss='sparse_categorical_crossentropy', "
            "metrics=['accuracy']), or train the model in the fit of a HyperModel."
        )


def _notes_on_pixels(model: keras.Model, shape: Shape, label: str, pixels: str) -> list[str]:
    scales = scales_pixels(model, shape)
    if scales is None:
        return [
            f"it cannot be seen whether '{label}' rescales pixels, because its layers cannot be "
            f"called one by one: it gets them from 0 to {1 if pixels == UNIT else 255}; say "
            "--pixels raw or --pixels unit to decide it"
        ]
    if not scales and pixels == RAW:
        return [
            f"'{label}' gets pixels from 0 to 255 and does not seem to rescale them: add "
            "keras.layers.Rescaling(1/255) as its first layer, or leave --pixels raw out"
        ]
    if scales and pixels == UNIT:
        return [
            f"'{label}' rescales pixels itself and gets them from 0 to 1 all the same: leave "
            "--pixels unit out"
        ]
    return []


def _look_at_fit(source: TunerSource, hp: Any, model: keras.Model) -> list[str]:
    """What is to be known of a HyperModel's own `fit`, which is called once per epoch."""
    label, file = source.reference.label, source.reference.file
    done = source.pretend(hp, model, look=True)
    if done.step_error is not None:
        one_hot = wants_one_hot(source.hypermodel, model, source.num_classes)
        raise _untrainable(model, label, done.step_error, file, one_hot=one_hot)
    if isinstance(done.error, TypeError) and CALL_ERROR.search(str(done.error)):
        raise InputError(
            f"The fit of '{label}' fails as soon as it is called: "
            f"{failure_text(done.error, file)}. It is given x, y, validation_data, epochs, "
            "initial_epoch, verbose and callbacks: end its arguments with **kwargs, pass each on "
            "once, and set none of them yourself (--epochs sets the number of epochs)."
        )
    wrong = [num for num in done.num_epochs if num != 1]
    wrong += [num for num in [done.num_passes] if num == LOOK_EPOCHS]
    if wrong:
        raise InputError(
            f"The fit of '{label}' trains {max(0, wrong[0])} epochs when it is given epochs="
            f"{LOOK_EPOCHS} and initial_epoch={LOOK_EPOCHS - 1}; it is called once per epoch and "
            "must train only that one. Pass both on to model.fit, or neither, or begin your own "
            "loop at initial_epoch. --epochs sets the number of epochs."
        )
    compiled = _compiled_names(model)
    if done.error is None and compiled is not None:
        source.own_metrics = tuple(dict.fromkeys((*done.returned, *compiled)))
    notes = []
    if len(done.num_epochs) > 1:
        notes.append(
            f"the fit of '{label}' calls model.fit {len(done.num_epochs)} times, and it is called "
            "once per epoch: every epoch of the sweep makes all of these calls again"
        )
    others = [shape for shape in done.image_shapes if shape != source.shape]
    if others:
        given, own = ("x".join(map(str, shape)) for shape in (others[0], source.shape))
        notes.append(
            f"the fit of '{label}' trains on images of {given}, but its models are measured on, "
            f"and take, the data's {own}: crop or resize in the model (keras.layers.CenterCrop or "
            "Resizing) instead of in fit"
        )
    if any(scale < 1 / CHANGED_SCALE or scale > CHANGED_SCALE for scale in done.scales):
        notes.append(
            f"the fit of '{label}' rescales the images that it trains on, but its models are "
            "measured on, and take, those that it was given: rescale in the model "
            "(keras.layers.Rescaling) or not at all (--pixels gives 0 to 1 or 0 to 255)"
        )
    if done.num_passes > 1:
        notes.append(
            f"the fit of '{label}' trains {done.num_passes} epochs of its own at each call, and it "
            f"is called once per epoch: one epoch of the sweep is {done.num_passes} of them"
        )
    remembering = [callback for callback in done.callbacks if _remembers(callback)]
    if remembering:
        names = " and ".join(dict.fromkeys(type(callback).__name__ for callback in remembering))
        notes.append(
            f"the fit of '{label}' makes callbacks that count epochs ({names}); it is called once "
            "per epoch, so they never see a second one: use --early-stopping instead"
        )
    return notes


def _remembers(callback: Any) -> bool:
    patience = getattr(callback, "patience", None)
    return type(callback).__name__ in MEMORIES or (isinstance(patience, int) and patience > 0)


def _untrainable(
    model: keras.Model, label: str, error: Exception, file: str, *, one_hot: bool
) -> InputError:
    form = "one-hot labels" if one_hot else "class numbers"
    way_out = (
        "Check the arguments of model.compile: loss and metrics that take such labels ('sparse' "
        "ones take class numbers), metrics by name."
    )
    if _has_own_step(model):
        way_out = (
            "Check its train_step, which is given (x, y): Keras 3 has self.compute_loss(x, y, "
            "y_pred) and self.optimizer.apply(gradients, variables)."
        )
    return InputError(
        f"The model of '{label}' cannot be trained: its first step, with {form}, fails: "
        f"{failure_text(error, file)}. {way_out}"
    )


def _has_own_step(model: keras.Model) -> bool:
    import keras

    return type(model).train_step is not keras.Model.train_step


def _noise(shape: Shape, count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def _output(model: keras.Model, input_shape: Shape, label: str, pixels: str) -> np.ndarray:
    import keras

    try:
        found = model(scaled(_noise(input_shape, 2), pixels), training=False)
        if not isinstance(found, dict | list | tuple):
            return np.asarray(keras.ops.convert_to_numpy(found), np.float32)
    except Exception as error:  # Whatever the layers make of pixels.
        height, width, channels = input_shape
        given = "float32, 0 to 1" if pixels == UNIT else "raw pixels (uint8, 0 to 255)"
        raise InputError(
            f"The model of '{label}' does not take the data's images, {height}x{width}x{channels} "
            f"{given}: {failure_text(error)}. Begin it with "
            f"keras.Input({input_shape}) and keras.layers.Rescaling(1/255), or, in a call of its "
            "own, cast them first: keras.ops.cast(x, 'float32'); a class or function that takes "
            "input_shape is given it."
        ) from error
    what = f"a dict of {', '.join(map(str, found))}" if isinstance(found, dict) else len(found)
    raise InputError(
        f"The model of '{label}' gives {what}{'' if isinstance(found, dict) else ' outputs'}; it "
        "must have one output, the class probabilities. Build it as keras.Model(inputs, "
        "probabilities)."
    )


def _check_probabilities(output: np.ndarray, num_classes: int, label: str, *, logits: bool) -> None:
    found = output
    if output.shape == (2, num_classes) or (output.shape == (2, 1) and num_classes == 2):
        found = class_probabilities(output, logits=logits)
    if found.shape != (2, num_classes):
        raise InputError(
            f"The model of '{label}' gives an output of shape {tuple(found.shape[1:])} per image "
            f"instead of one probability for each of the data's {num_classes} classes. End it with "
            f"Dense({num_classes}, activation='softmax') and a loss such as "
            "sparse_categorical_crossentropy; a class or function that takes num_classes (or "
            "classes) is given it."
        )
    if not are_probabilities(found):
        raise InputError(
            f"The output of the model of '{label}' is no class probabilities: it ranges from "
            f"{output.min():.3g} to {output.max():.3g}, and must be at least 0 and sum to 1, and "
            "its loss does not take logits. End it with activation='softmax' (one output: "
            "'sigmoid'), or, where the last layer is to be linear, compile it with a loss that has "
            "from_logits=True."
        )
