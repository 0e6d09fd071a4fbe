"""The space that a sweep's settings mean, for its data: ours or a user's, narrowed as told."""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.prepared import PreparedData
from pipelines.runtime.compute import AUTO, DEFAULT_COMPUTE, Compute
from search_spaces.errors import InputError, shown
from search_spaces.files import parsed_json
from search_spaces.hyperparameters.narrowing import narrowed
from search_spaces.pixels import AUTO as AUTO_PIXELS
from search_spaces.registry import SPACES, get_space, recorded_space
from search_spaces.space import Shape, Space
from search_spaces.user_spaces.reference import (
    GivenSpace,
    find_reference,
    is_given,
    is_reference,
    label_of,
    other_object,
)
from search_spaces.user_spaces.space import user_space
from sweeps.settings import SweepSettings
from sweeps.state.paths import compiled_folder
from sweeps.state.recorded_options import tagged_compute
from sweeps.workers.start import start_workers
from tracking.tags import Tag

if TYPE_CHECKING:
    from sweeps.executors.base import Executor


def space_of(settings: SweepSettings, data: PreparedData) -> Space:
    """The space of a sweep; a user's own is opened in a process of its own, once.

    Raises:
        InputError: It cannot be used, does not fit the data, or cannot be narrowed so.
    """
    space = open_space(
        settings.space,
        settings.narrowing,
        data.input_shape,
        data.num_classes,
        settings.training.compute,
        settings.training.pixels,
        compiled_folder(settings),
        settings.pass_env,
    )
    if settings.training.class_weights != "none" and space.drops_class_weights:
        raise InputError(
            f"--class-weights has no effect with '{label_of(settings.space)}': its fit gets "
            "`class_weight` and does not pass it on to model.fit, or its train_step does not take "
            "the weights of images. Pass it on, or name `class_weight` among the arguments of fit "
            "if a loop of its own uses it; unpack x, y, sample_weight in train_step."
        )
    return space


def open_space(
    name: str,
    narrowing: tuple[str, ...],
    input_shape: Shape,
    num_classes: int,
    compute: Compute = DEFAULT_COMPUTE,
    pixels: str = AUTO_PIXELS,
    compiled: Path | None = None,
    pass_env: tuple[str, ...] = (),
) -> Space:
    """As `space_of`, for images of a shape in so many classes.

    Args:
        pixels: the training option, with which a user's space is looked at.
        compiled: the folder for what the backend compiles, as `start_workers` takes it.
        pass_env: as `start_workers` takes it.
    """
    payload = name.payload if isinstance(name, GivenSpace) else b""
    precision = DEFAULT_COMPUTE.precision if compute.precision == AUTO else compute.precision
    known = Compute(compute.backend, precision)  # A space does not depend on more of it.
    return _opened(
        name, payload, narrowing, input_shape, num_classes, known, pixels, compiled, pass_env
    )


@lru_cache
def _opened(
    name: str,
    payload: bytes,
    narrowing: tuple[str, ...],
    input_shape: Shape,
    num_classes: int,
    compute: Compute,
    pixels: str,
    compiled: Path | None,
    pass_env: tuple[str, ...],
) -> Space:
    del payload  # Two objects may have one name; each is opened for itself.
    if not is_reference(name):
        return narrowed(get_space(name), narrowing)
    from sweeps.workers.hosts import SpaceHost

    reference = find_reference(name)
    make = partial(make_executor, compute.backend, compiled, pass_env)
    host = SpaceHost(reference.text, input_shape, num_classes, make, compute, pixels)
    atexit.register(host.close)
    space = user_space(reference, host.sample, host.note_limit, host.looks.append, host.cost)
    parameters = space.parameters
    if not parameters:
        raise InputError(
            f"The space '{reference.label}' has no hyperparameters: its build never calls `hp`. "
            "Declare at least one, such as hp.Float('rate', 1e-4, 1e-1, sampling='log')."
        )
    known = replace(
        space, notes=host.notes, sources=host.sources or space.sources,
        see_all=lambda sample: parameters, drops_class_weights=host.drops_class_weights,
        own_metrics=host.own_metrics, looks=tuple(host.looks),
        pixels=host.pixels, rest=host.rest,
    )  # fmt: skip
    return narrowed(known, narrowing)


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
    return {Tag.SPACE_SOURCE: json.dumps(source)}


def tagged_space(
    tags: Mapping[str, str],
    parameters: Collection[str],
    trusted: Collection[str] = (),
    pass_env: tuple[str, ...] = (),
) -> Space | None:
    """The space that `source_tags` describe; None where they do not.

    Whoever can write tags could name any file of this machine, so a tag alone makes nobody's code
    run.

    Args:
        parameters: names of the run's params.
        trusted: references of the user's own spaces that may be imported.
        pass_env: as `start_workers` takes it.

    Raises:
        InputError: The tag is damaged, the space is not there any more, or it is not trusted.
    """
    if Tag.SPACE_SOURCE not in tags:
        return None
    try:
        source: dict[str, Any] = parsed_json(tags[Tag.SPACE_SOURCE])
        height, width, channels = (int(size) for size in source["input_shape"])
        name = recorded_space(str(source["reference"]), parameters)
        narrowing = tuple(map(str, source["narrowing"]))
        num_classes = int(source["num_classes"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The run's tag {Tag.SPACE_SOURCE} is damaged, so its space cannot be opened: "
            f"{shown(tags[Tag.SPACE_SOURCE])}."
        ) from error
    is_ours = not is_reference(name)
    if is_ours != (tags.get(Tag.SPACE) in SPACES) or (is_ours and name not in SPACES):
        raise InputError(
            f"The run's tags name two spaces: {Tag.SPACE} {tags.get(Tag.SPACE)!r} and "
            f"{Tag.SPACE_SOURCE} {name!r}."
        )
    if not is_ours and name not in trusted:
        raise InputError(
            f"The run was trained with the custom space '{name}', which no sweep in this "
            "--work-dir uses, so its code is not run. If you trust that code, allow it with "
            f"--space '{name}'."
        )
    objects = {str(known): known for known in trusted if isinstance(known, GivenSpace)}
    if is_given(name) and objects:
        if name not in objects:
            raise other_object(name)
        name = objects[name]  # With its value.
    shape = height, width, channels
    compute = tagged_compute(tags)
    return open_space(name, narrowing, shape, num_classes, compute, pass_env=pass_env)


def make_executor(
    backend: str, compiled: Path | None = None, pass_env: tuple[str, ...] = ()
) -> Executor:
    """What runs a process beside the trials: of a user's space, of an oracle."""
    # The server that is started here forks the trials later: Keras is imported once.
    return start_workers(Path(os.devnull), backend, compiled=compiled, pass_env=pass_env)
