"""What a space is: a sampler of values, a builder of models, and its published baselines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

from search_spaces.errors import InputError
from search_spaces.hyperparameters import (
    GivenHyperParameters,
    Parameter,
    Params,
    Value,
    parameters_of,
)

if TYPE_CHECKING:
    import keras

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
class Space:
    """One search space.

    Attributes:
        sample: asks `hp` for every parameter and returns the active values; never imports Keras.
        build: makes the compiled model of a point.
        adaptations: what `build` changes for an image shape, one sentence each, so that a point
            never means an impossible shape; pure, and empty for most points.
        image_size_note: how the space treats small and large images, for `--describe`.
    """

    name: str
    summary: str
    sample: Callable[[Any], Params]
    build: Build
    adaptations: Callable[[Params, Shape], tuple[str, ...]]
    baselines: tuple[Baseline, ...] = ()
    image_size_note: str = ""

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter with its range and conditions."""
        return parameters_of(self.sample)

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change when any name, range or condition does."""
        text = json.dumps([asdict(parameter) for parameter in self.parameters], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

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

    def distinct_baselines(self) -> tuple[tuple[tuple[str, ...], Params], ...]:
        """The baselines' points without repetition, each with the names of all that share it."""
        points: list[tuple[list[str], Params]] = []
        for baseline in self.baselines:
            for names, params in points:
                if params == baseline.params:
                    names.append(baseline.name)
                    break
            else:
                points.append(([baseline.name], baseline.params))
        return tuple((tuple(names), params) for names, params in points)
