"""A user's own HyperModel or `build(hp)` as a space."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from search_spaces.cost import Cost
from search_spaces.hyperparameters.discovery import explore
from search_spaces.hyperparameters.parameter import Params
from search_spaces.space import Assembled, Shape, Space
from search_spaces.user_spaces.reference import Reference

if TYPE_CHECKING:
    import keras

Sample = Callable[[Any], Params]


def user_space(
    reference: Reference,
    sample: Sample | None = None,
    at_limit: Callable[[], None] = lambda: None,
    on_look: Callable[[Params], None] = lambda params: None,
    cost_of: Callable[[Params, Shape, int], Cost | None] | None = None,
) -> Space:
    """The space that a reference names; nothing is imported before a model is built.

    Args:
        sample: implements `Space.sample`, which takes Keras; None where only models are built.
        at_limit: called where not all of the space could be looked at.
        on_look: called with each point at which it is looked at.
        cost_of: implements `Space.cost_of`, as `sample` does.
    """
    return Space(
        name=reference.name,
        summary=f"{reference.attribute} of {reference.file or 'the program'}",
        sample=sample or _unsampled,
        build=partial(_build, reference),
        adaptations=_no_adaptations,
        reference=reference.text,
        sources=reference.sources,
        assemble=partial(_assemble, reference),
        starts_with_default=True,
        see_all=partial(explore, at_limit=at_limit, on_look=on_look),
        cost_of=cost_of,
    )


def _unsampled(hp: Any) -> Params:
    raise RuntimeError(f"A user's space is sampled by its host, not here. Received: {hp!r}.")


def _assemble(
    reference: Reference, params: Params, input_shape: Shape, num_classes: int
) -> Assembled:
    from search_spaces.user_spaces.source import assemble

    return assemble(reference, params, input_shape, num_classes)


def _build(
    reference: Reference, params: Params, input_shape: Shape, num_classes: int, *, num_steps: int
) -> keras.Model:
    del num_steps  # Keras Tuner's `build(hp)` takes no such argument.
    return _assemble(reference, params, input_shape, num_classes).model


def _no_adaptations(params: Params, input_shape: Shape) -> tuple[str, ...]:
    del params, input_shape
    return ()
