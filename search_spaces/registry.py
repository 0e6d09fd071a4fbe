"""The spaces that can be named, ours and those of users, also as hypermodels for Keras Tuner."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from search_spaces import cnn, cnn_blocks, mlp, mlp_layers
from search_spaces.errors import InputError, unknown_name
from search_spaces.labels import take_class_numbers
from search_spaces.space import Baseline, Shape, Space
from search_spaces.user_spaces.reference import find_reference, is_reference, reference_name
from search_spaces.user_spaces.space import user_space

if TYPE_CHECKING:
    import keras
    import keras_tuner

CORE = (cnn.SPACE, mlp.SPACE)
"""The spaces whose parts share their parameters, with the published models."""
SPACES: dict[str, Space] = {
    space.name: space for space in (*CORE, cnn_blocks.SPACE, mlp_layers.SPACE)
}

EARLIER_NAMES = {"cnn_blocks": "cnn", "mlp_layers": "mlp"}
"""What spaces were called before the core ones took their names."""


def get_space(name: str) -> Space:
    """The space of that name, or one of the user's to build models with.

    Raises:
        InputError: There is none; the message has the valid names.
    """
    if not isinstance(name, str):
        raise InputError(
            f"A space is got by its name. Received: {name!r}. Give it to run as it is."
        )
    if is_reference(name):
        return user_space(find_reference(name))
    if name not in SPACES:
        raise InputError(
            f"{unknown_name('space', name, SPACES)} Or name one of your own: FILE.py:NAME."
        )
    return SPACES[name]


def earlier_name(name: str) -> str:
    """How what was recorded before the core spaces calls a space: other than now, or the same."""
    return EARLIER_NAMES.get(name, name)


def space_called_earlier(name: str) -> str:
    """The space that was called so before the core spaces; the name itself for all others."""
    return next((space for space, earlier in EARLIER_NAMES.items() if earlier == name), name)


def recorded_space(name: str, parameters: Collection[str]) -> str:
    """The space, as it is called now, that a run recorded under `name` is a point of.

    The names of the core spaces were those of others before; which of them is meant shows in the
    parameters, because a run holds all of its space, inactive ones too.

    Args:
        parameters: names of the run's params.
    """
    earlier = space_called_earlier(name)
    if earlier == name:
        return name
    own = {parameter.name for parameter in SPACES[earlier].parameters}
    return earlier if own <= set(parameters) else name


def is_space(name: str) -> bool:
    """Whether there is a space of that name."""
    try:
        get_space(name)
    except InputError:
        return False
    return True


def stored_name(name: str) -> str:
    """What finds the space again from any folder; the name itself where it is one of ours.

    Raises:
        InputError: As `get_space`.
    """
    return get_space(name).key


def short_name(name: str) -> str:
    """How folders, experiments and models call a space; its source need not be there."""
    return reference_name(name) if is_reference(name) else name


def all_baselines() -> tuple[Baseline, ...]:
    """The published models, each once, in the order of the published table."""
    return tuple(baseline for space in CORE for baseline in space.baselines)


def baselines_of(name: str, *, earlier: bool = False) -> tuple[Baseline, ...]:
    """The published models as points of the named space; as `all_baselines` for an empty name.

    Args:
        earlier: whether an empty name stands for what it did before there were core spaces.
    """
    if name:
        return get_space(name).baselines
    if earlier:
        return tuple(b for space in EARLIER_NAMES for b in SPACES[space].baselines)
    return all_baselines()


def as_hypermodel(
    name: str,
    input_shape: Shape,
    num_classes: int,
    *,
    num_images: int = 60_000,
    num_epochs: int = 10,
) -> keras_tuner.HyperModel:
    """A space as a `keras_tuner.HyperModel`, for a `RandomSearch` and its like (imports Keras).

    Its models take raw pixels 0 to 255 and class numbers, and train with the point's batch size.
    A point's augmentation is left out: images are trained as `fit` is given them.

    Args:
        num_images, num_epochs: what a learning rate schedule spans.

    Raises:
        InputError: Unknown space.
    """
    space = get_space(name)  # Before the libraries, which take seconds.
    import keras_tuner

    class SpaceHyperModel(keras_tuner.HyperModel):  # type: ignore[misc]
        """Samples the space with Keras Tuner's own `hp` and builds the point."""

        def build(self, hp: Any) -> keras.Model:
            params = space.sample(hp)
            found = space.assembled(params, input_shape, num_classes, num_images, num_epochs)
            if found.one_hot:
                take_class_numbers(found.model)
            return found.model

        def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
            return model.fit(*args, **{"batch_size": hp.get("batch_size"), **kwargs})

    return SpaceHyperModel(name=space.name)
