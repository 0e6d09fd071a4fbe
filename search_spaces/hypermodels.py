"""Our spaces the other way round: as hypermodels for Keras Tuner's own tuners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search_spaces.registry import get_space
from search_spaces.space import Shape

if TYPE_CHECKING:
    import keras
    import keras_tuner


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

    Args:
        num_images, num_epochs: what a learning rate schedule spans.

    Raises:
        InputError: Unknown space.
    """
    import keras_tuner

    space = get_space(name)

    class SpaceHyperModel(keras_tuner.HyperModel):  # type: ignore[misc]
        """Samples the space with Keras Tuner's own `hp` and builds the point."""

        def build(self, hp: Any) -> keras.Model:
            params = space.sample(hp)
            return space.assembled(params, input_shape, num_classes, num_images, num_epochs).model

        def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
            return model.fit(*args, **{"batch_size": hp.get("batch_size"), **kwargs})

    return SpaceHyperModel(name=space.name)
