"""What a space is: a sampler of values, a builder of models, and its published baselines."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

from search_spaces.augmentation import Augmentation
from search_spaces.cost import Cost
from search_spaces.errors import InputError
from search_spaces.hyperparameters import (
    GivenHyperParameters,
    Parameter,
    Params,
    Value,
    parameters_of,
)
from search_spaces.labels import takes_one_hot
from search_spaces.user_spaces.reference import Sources, sources_digest

if TYPE_CHECKING:
    import keras

DEFAULT_NAME = "default"
"""How the point of all defaults is called, where a space begins with it."""
Shape = tuple[int, int, int]
"""Height and width in pixels, and channels."""


class Build(Protocol):
    """Builds and compiles the model that a point of the space means (imports Keras)."""

    def __call__(
        self, params: Params, input_shape: Shape, num_classes: int, *, num_steps: int
    ) -> keras.Model:
        """The model of `params`; a learning rate schedule spans `num_steps` gradient steps."""


@dataclass(frozen=True)
class Baseline:
    """A named, published configuration, with how it was trained and what it reached.

    Attributes:
        params: a complete point of the space.
        num_epochs: epochs as published.
        train_on: `train` is the training part without the validation images, `train+validation`
            all training images.
        reload: whether the published figure is that of the model saved and loaded again.
        accuracy: published test accuracy, 0 to 1.
        loss: published test loss (categorical cross-entropy, nats), where there is one.
    """

    name: str
    space: str
    params: Params
    num_epochs: int
    train_on: Literal["train", "train+validation"]
    accuracy: float
    loss: float | None = None
    reload: bool = False
    dataset: str = "mnist"


@dataclass(frozen=True)
class Assembled:
    """The compiled model of a point, and how the space wants it to be trained.

    Attributes:
        batch_size: images per step, unless `custom_fit` decides it.
        custom_fit: trains the model itself, called like `keras.Model.fit`; None for the plain loop.
        one_hot: whether the model's loss takes one-hot labels instead of class numbers.
        is_ours: whether the model is known to be storable; others may hold code of their own.
        augmentation: how training images are to be changed; None for as they are.
        logits: whether the model's output is logits, and its probabilities are to be made of them.
    """

    model: keras.Model
    batch_size: int
    custom_fit: Callable[..., Any] | None = None
    one_hot: bool = False
    is_ours: bool = True
    augmentation: Augmentation | None = None
    logits: bool = False


class Assemble(Protocol):
    """Makes the compiled model of a point (imports Keras)."""

    def __call__(self, params: Params, input_shape: Shape, num_classes: int) -> Assembled:
        """The model with the way in which it is trained."""


@dataclass(frozen=True)
class Space:
    """One search space.

    Attributes:
        sample: asks `hp` for every parameter and returns the active values; never imports Keras.
        build: makes the compiled model of a point.
        adaptations: what `build` changes for an image shape, one sentence each, so that a point
            never means an impossible shape; pure, and empty for most points.
        image_size_note: how the space treats small and large images, for `--describe`.
        reference: where a user's own space is found again; empty for ours, which have their name.
        sources: the files that a user's space is written in, with digests of their text.
        assemble: makes a user's model; None for `build`.
        starts_with_default: whether the point of all defaults is proposed first.
        see_all: finds every parameter by sampling; None where one pass shows all.
        narrowing: what was narrowed, as `NAME=VALUES`, so that it can be done again.
        notes: what people should know before they search it, a sentence each.
        drops_class_weights: whether a `fit` of the user's own leaves weights of classes out.
        own_metrics: names of what its models, or a `fit` of its own, report beside what is measured
            of every model; None where that is not known.
        looks: points at which a space of plain Python was looked at, to find its parameters.
        augmentation: how a point wants training images changed; None where none ever does.
        pixels: what the default model of a user's space is given (`search_spaces.pixels`).
        rest: ends the process that a user's space is asked in; it starts again when it is asked.
        cost_of: what a point's model costs; None where only a built model tells, as in the process
            of a trial of a user's space.
    """

    name: str
    summary: str
    sample: Callable[[Any], Params]
    build: Build
    adaptations: Callable[[Params, Shape], tuple[str, ...]]
    baselines: tuple[Baseline, ...] = ()
    image_size_note: str = ""
    reference: str = ""
    sources: Sources = ()
    assemble: Assemble | None = None
    starts_with_default: bool = False
    see_all: Callable[[Callable[[Any], Params]], tuple[Parameter, ...]] | None = None
    narrowing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    drops_class_weights: bool = False
    own_metrics: tuple[str, ...] | None = ()
    looks: tuple[Params, ...] = ()
    augmentation: Callable[[Params, Shape], Augmentation | None] | None = None
    cost_of: Callable[[Params, Shape, int], Cost | None] | None = None
    pixels: str = ""
    rest: Callable[[], None] = lambda: None

    @property
    def key(self) -> str:
        """What `registry.get_space` finds the space by."""
        return self.reference or self.name

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter with its range and conditions."""
        return (self.see_all or parameters_of)(self.sample)

    def is_asked_everywhere(self, parameter: Parameter) -> bool:
        """Whether a parameter without conditions was asked for at every look that the space allows.

        One behind a plain `if` is not.
        """
        allowed = [
            look
            for look in self.looks
            if all(p.name not in look or p.contains(look[p.name]) for p in self.parameters)
        ]
        return all(parameter.name in look for look in allowed)

    @cached_property
    def most_points(self) -> int | None:
        """How many points there are at most, as if no parameter had conditions; None for endless
        ones.
        """
        grids = [parameter.grid() for parameter in self.parameters]
        if any(grid is None for grid in grids):
            return None
        return math.prod(len(grid) for grid in grids if grid is not None)

    @property
    def source_digest(self) -> str:
        """Of the text that a user's space is written in; empty for one of ours."""
        return sources_digest(self.sources)

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change when a name, range, condition or source does."""
        described = [asdict(parameter) for parameter in self.parameters]
        for fields in described:
            if not fields["ordered"]:
                del fields["ordered"]  # Fingerprints of before there was such a thing stay.
        text = json.dumps(described, sort_keys=True) + self.source_digest
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def assembled(
        self, params: Params, input_shape: Shape, num_classes: int, num_images: int, num_epochs: int
    ) -> Assembled:
        """The model of a point for a training of so many epochs of so many images."""
        if self.assemble is not None:
            return self.assemble(params, input_shape, num_classes)
        batch_size = int(params["batch_size"])
        num_steps = math.ceil(num_images / batch_size) * num_epochs
        model = self.build(params, input_shape, num_classes, num_steps=num_steps)
        augmentation = self.augmentation(params, input_shape) if self.augmentation else None
        return Assembled(
            model,
            batch_size,
            one_hot=takes_one_hot(model, num_classes),
            augmentation=augmentation,
        )

    def cost(self, params: Params, input_shape: Shape, num_classes: int) -> Cost | None:
        """What the model of a point costs; None where that is not known."""
        return self.cost_of(params, input_shape, num_classes) if self.cost_of else None

    def complete(self, given: Mapping[str, Value]) -> Params:
        """The point with these values and defaults elsewhere.

        Raises:
            InputError: A value out of range, a name that the space does not have, or one that is
                inactive at this point.
        """
        params = self.sample(GivenHyperParameters(given))
        for name in given:
            if name not in params:
                known = name in {parameter.name for parameter in self.parameters}
                state = "is inactive at this point" if known else "is not a parameter"
                raise InputError(
                    f"'{name}' {state} of space '{self.name}'. "
                    f"`--describe {self.name}` lists parameters and conditions."
                )
        return params

    @cached_property
    def known_points(self) -> dict[str, Params]:
        """The point of all defaults, called `defaults`, then the published ones by their names."""
        points = {"defaults": self.complete({})}
        for names, params in self.distinct_baselines():
            if DEFAULT_NAME not in names:
                points[names[0]] = params
        return points

    def distinct_baselines(self) -> tuple[tuple[tuple[str, ...], Params], ...]:
        """What is proposed first: points without repetition, with all names that share each."""
        points: list[tuple[list[str], Params]] = []
        if self.starts_with_default:
            points.append(([DEFAULT_NAME], self.complete({})))
        for baseline in self.baselines:
            for names, params in points:
                if params == baseline.params:
                    names.append(baseline.name)
                    break
            else:
                points.append(([baseline.name], baseline.params))
        return tuple((tuple(names), params) for names, params in points)
