"""A HyperModel's own `fit` called without training: what it declares, and how it would train.

`fit` declares parameters as `build` does, the batch size above all, so it is called at every point
that is asked for. `model.fit` then trains nothing, or a single step.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.labels import labels_for
from search_spaces.pixels import RAW, scaled
from search_spaces.user_spaces.fit_values import returned_values

if TYPE_CHECKING:
    import keras

    from search_spaces.space import Shape

NUM_PICTURES, NUM_OF_A_CLASS = 320, 10
"""So many that the usual splits of them, stratified ones too, leave something in every part."""
MAX_BYTES, LEAST_OF_A_CLASS = 2**27, 4
NUM_STEP = 8
"""Images of the one real step."""
LOOK_EPOCHS = 8
"""The epoch that the look at a space asks for: what ignores the number does not train one."""


@dataclass
class Pretended:
    """What a pretended `fit` did.

    Attributes:
        error: what it raised outside of `model.fit`; None where it came to its end.
        step_error: what `model.fit` raised in its one real step.
        num_epochs: how many epochs each of its calls of `model.fit` asked for.
        num_passes: how many epochs a loop of its own told its callbacks of.
        callbacks: what it gave them.
        image_shapes: of what its calls of `model.fit` were given, where that tells.
        scales: how many times as large the pixels were that it gave to `model.fit`, where that
            tells.
        returned: names of what it returned (`fit_values`).
        weighs: whether class or sample weights that it was given reached one.
    """

    error: Exception | None = None
    step_error: Exception | None = None
    num_epochs: list[int] = field(default_factory=list)
    num_passes: int = 0
    callbacks: list[Any] = field(default_factory=list)
    image_shapes: list[tuple[int, ...]] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    returned: tuple[str, ...] = ()
    weighs: bool = False


class _StepError(Exception):
    """Ends a `fit` whose real step failed."""


def pretend_to_fit(
    hypermodel: Any,
    hp: Any,
    model: keras.Model,
    shape: Shape,
    num_classes: int,
    *,
    one_hot: bool,
    look: bool,
    pixels: str = RAW,
) -> Pretended:
    """Calls a HyperModel's `fit` with noise of balanced labels and a model that trains nothing.

    Args:
        look: whether `model.fit` really makes a step of a few images, once, and `fit` is given
            weights of classes and a late epoch. It is the dearer way, for once.
        pixels: RAW or UNIT: what the model is given.
    """
    import keras

    done = Pretended()

    class Counter(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            done.num_passes += 1

    raw, labels = _noise(shape, num_classes)
    x = scaled(raw, pixels)
    y = labels_for(labels, num_classes, one_hot=one_hot)
    epoch = LOOK_EPOCHS if look else 1
    given: dict[str, Any] = {
        "epochs": epoch, "initial_epoch": epoch - 1, "verbose": 0, "callbacks": [Counter()],
        "validation_data": (x, y),
    }  # fmt: skip
    if look and _takes(hypermodel.fit, "class_weight"):
        given["class_weight"] = dict.fromkeys(range(num_classes), 1.0)
    stand_in = _StandIn(model, done, largest=float(np.max(x)), steps=look)
    # Past Keras, which would track what is set on a model.
    object.__setattr__(model, "fit", stand_in)
    try:
        done.returned = tuple(returned_values(hypermodel.fit(hp, model, x, y, **given)))
    except _StepError:
        pass
    except Exception as error:  # A loop of its own may need what is not there.
        done.error = error
    finally:
        object.__delattr__(model, "fit")
    # A loop of its own that names the argument is believed to use it.
    done.weighs |= not done.num_epochs and _names(hypermodel.fit, "class_weight")
    return done


class _AnyMetric(dict):
    """A history that has whatever metric it is asked for."""

    def __missing__(self, name: str) -> list[float]:
        return [0.0]


class _StandIn:
    """Replaces a model's `fit`; returns the history of no epoch, or of one step."""

    def __init__(self, model: keras.Model, done: Pretended, *, largest: float, steps: bool) -> None:
        self._model, self._done, self._largest, self._steps = model, done, largest, steps
        self._fit = model.fit

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        import keras

        bound = inspect.signature(self._fit).bind(*args, **kwargs)
        given = bound.arguments
        self._done.num_epochs.append(given.get("epochs", 1) - given.get("initial_epoch", 0))
        if (shape := _image_shape(given.get("x"))) is not None:
            self._done.image_shapes.append(shape)
            if self._steps:
                self._done.scales.append(_largest_pixel(given["x"]) / self._largest)
        callbacks = given.get("callbacks") or []
        self._done.callbacks += callbacks if isinstance(callbacks, list | tuple) else [callbacks]
        weights = (given.get("class_weight"), given.get("sample_weight"))
        self._done.weighs |= any(weight is not None for weight in weights)
        if self._steps:
            self._step(bound)
        history = keras.callbacks.History()
        history.history, history.epoch = _AnyMetric(loss=[0.0]), [0]
        history.set_model(self._model)
        return history

    def _step(self, bound: inspect.BoundArguments) -> None:
        """One step on a few images; callbacks and validation are left to the trials."""
        given, known = bound.arguments, bound.signature.parameters
        for name in ("x", "y", "sample_weight"):
            if getattr(given.get(name), "shape", None):
                given[name] = given[name][:NUM_STEP]
        once: dict[str, Any] = {
            "epochs": 1, "initial_epoch": 0, "steps_per_epoch": 1, "verbose": 0,
            "callbacks": None, "validation_data": None, "validation_split": 0.0,
            "validation_steps": None, "validation_batch_size": None,
            # Only to see whether they arrive: a `train_step` need not take them.
            "class_weight": None,
        }  # fmt: skip
        given.update({name: value for name, value in once.items() if name in known})
        self._steps = False
        try:
            # Without a graph, whose making takes longer than a few steps.
            self._model.run_eagerly = True
            self._fit(*bound.args, **bound.kwargs)
        except Exception as error:  # Whatever the user's layers raise is told to them.
            self._done.step_error = error
            raise _StepError from error
        finally:
            self._model.run_eagerly = False


def _image_shape(x: Any) -> tuple[int, ...] | None:
    """The shape of an image of an array, or of a TensorFlow data set; None where it is not told."""
    spec = getattr(x, "element_spec", x)
    while isinstance(spec, tuple | list) and spec:
        spec = spec[0]
    try:
        sizes = tuple(getattr(spec, "shape", ()))[1:]
    except ValueError:  # A tensor of unknown rank.
        return None
    return sizes if len(sizes) == 3 and all(isinstance(size, int) for size in sizes) else None


def _largest_pixel(x: Any) -> float:
    """The largest pixel of an array, or of the first batch of a data set."""
    images = next(iter(x)) if hasattr(x, "element_spec") else x
    while isinstance(images, tuple | list):
        images = images[0]
    return float(np.max(np.abs(np.asarray(images, np.float32))))


def _noise(shape: Shape, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of noise, and their labels: every class several times, as often as the others."""
    room = MAX_BYTES // int(np.prod(shape)) // num_classes
    wanted = max(NUM_OF_A_CLASS, -(-NUM_PICTURES // num_classes))
    each = max(LEAST_OF_A_CLASS, min(wanted, room))
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (each * num_classes, *shape), np.uint8)
    return pixels, generator.permutation(np.arange(each * num_classes) % num_classes)


def _takes(function: Any, name: str) -> bool:
    """Whether a function can be given an argument of that name."""
    parameters = inspect.signature(function).parameters.values()
    return _names(function, name) or any(p.kind is p.VAR_KEYWORD for p in parameters)


def _names(function: Any, name: str) -> bool:
    return name in inspect.signature(function).parameters
