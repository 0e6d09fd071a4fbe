"""The space that a sweep's settings mean, for its data: ours or a user's, narrowed as told."""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.compute import tagged_compute
from pipelines.prepared import PreparedData
from search_spaces.errors import InputError
from search_spaces.narrowing import narrowed
from search_spaces.references import find_reference, is_reference
from search_spaces.registry import get_space
from search_spaces.space import Shape, Space
from search_spaces.user_spaces import user_space
from sweeps.settings import SweepSettings
from sweeps.workers import start_workers

if TYPE_CHECKING:
    from sweeps.executors.base import Executor

SOURCE_TAG = "sweeps.space_source"
"""What a run needs beside the space's name, so that its space can be opened again: JSON."""


def space_of(settings: SweepSettings, data: PreparedData) -> Space:
    """The space of a sweep; a user's own is opened in a process of its own, once.

    Raises:
        InputError: It cannot be used, does not fit the data, or cannot be narrowed so.
    """
    return open_space(
        settings.space, settings.narrowing, data.input_shape, data.num_classes, settings.backend
    )


@lru_cache
def open_space(
    name: str,
    narrowing: tuple[str, ...],
    input_shape: Shape,
    num_classes: int,
    backend: str = "tensorflow",
) -> Space:
    """As `space_of`, for pictures of a shape in so many classes."""
    if not is_reference(name):
        return narrowed(get_space(name), narrowing)
    from sweeps.space_host import SpaceHost

    reference = find_reference(name)
    host = SpaceHost(reference.text, input_shape, num_classes, partial(_make_executor, backend))
    atexit.register(host.close)
    space = user_space(reference, host.sample)
    if not space.parameters:
        raise InputError(
            f"A space must have hyperparameters. Received: '{name}', which asks `hp` for nothing."
        )
    return narrowed(replace(space, notes=host.notes), narrowing)


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
    backend = tagged_compute(tags).backend
    return open_space(*asked, (height, width, channels), num_classes, backend)


def _make_executor(backend: str) -> Executor:
    # The server that is started here forks the trials later: Keras is imported once.
    return start_workers(Path(os.devnull), backend)
