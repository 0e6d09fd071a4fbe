"""The space that a sweep's settings mean, for its data: ours or a user's, narrowed as told."""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.prepared import PreparedData
from search_spaces.errors import InputError
from search_spaces.narrowing import narrowed
from search_spaces.references import find_reference, is_reference
from search_spaces.registry import get_space
from search_spaces.space import Shape, Space
from search_spaces.user_spaces import user_space
from sweeps.settings import SweepSettings

if TYPE_CHECKING:
    from sweeps.executors.base import Executor

SOURCE_TAG = "sweeps.space_source"
"""What a run needs beside the space's name, so that its space can be opened again: JSON."""


def space_of(settings: SweepSettings, data: PreparedData) -> Space:
    """The space of a sweep; a user's own is opened in a process of its own, once.

    Raises:
        InputError: It cannot be used, does not fit the data, or cannot be narrowed so.
    """
    space = open_space(settings.space, settings.narrowing, data.input_shape, data.num_classes)
    if settings.class_weights != "none" and space.drops_class_weights:
        raise InputError(
            "--class-weights reaches a HyperModel's own fit as `class_weight`. Received: "
            f"'{settings.space}', whose fit does not pass it on to model.fit. Pass it on, or name "
            "`class_weight` among the arguments of a loop that uses it."
        )
    return space


@lru_cache
def open_space(
    name: str, narrowing: tuple[str, ...], input_shape: Shape, num_classes: int
) -> Space:
    """As `space_of`, for pictures of a shape in so many classes."""
    if not is_reference(name):
        return narrowed(get_space(name), narrowing)
    from sweeps.space_host import SpaceHost

    reference = find_reference(name)
    host = SpaceHost(reference.text, input_shape, num_classes, make_executor)
    atexit.register(host.close)
    space = user_space(reference, host.sample, host.note_limit)
    if not space.parameters:
        raise InputError(
            f"A space must have hyperparameters. Received: '{name}', which asks `hp` for nothing."
        )
    parameters = space.parameters
    seen = replace(
        space, see_all=lambda _: parameters, notes=host.notes,
        drops_class_weights=host.drops_class_weights,
    )  # fmt: skip
    return narrowed(seen, narrowing)


def source_tags(space: Space, data: PreparedData) -> dict[str, str]:
    """The tag by which `tagged_space` opens the space again; none for one of ours as it is."""
    if not space.reference and not space.narrowing:
        return {}
    source = {
        "reference": space.key,
        "narrowing": space.narrowing,
        "input_shape": data.input_shape,
        "num_classes": data.num_classes,
    }
    return {SOURCE_TAG: json.dumps(source)}


def tagged_space(tags: Mapping[str, str]) -> Space | None:
    """The space that `source_tags` describe; None where they do not.

    Raises:
        InputError: The tag is damaged, or the space is not there any more.
    """
    if SOURCE_TAG not in tags:
        return None
    try:
        source: dict[str, Any] = json.loads(tags[SOURCE_TAG])
        height, width, channels = (int(size) for size in source["input_shape"])
        asked = str(source["reference"]), tuple(map(str, source["narrowing"]))
        num_classes = int(source["num_classes"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"A run's tag {SOURCE_TAG} must be as it was written. Received: {tags[SOURCE_TAG]!r}."
        ) from error
    return open_space(*asked, (height, width, channels), num_classes)


def make_executor() -> Executor:
    """What runs a process beside the trials: of a user's space, of an oracle."""
    from sweeps.executors.processes import ProcessExecutor

    # The server that is started here forks the trials later: Keras is imported once.
    return ProcessExecutor("sweeps.preload", Path(os.devnull))
