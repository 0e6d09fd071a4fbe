"""Training options as a run or a model tells them, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipelines.runtime.compute import DEFAULT_COMPUTE, Compute
from pipelines.training.options import TRAINED as MEASURED_BEFORE
from pipelines.training.options import TrainingOptions, from_stored
from tracking.tags import Tag


def compute_tags(compute: Compute) -> dict[str, str]:
    """The tags by which a run or a model says what it was trained with."""
    return {
        Tag.BACKEND: compute.backend,
        Tag.PRECISION: compute.precision,
        Tag.JIT: compute.jit,
    }


def tagged_compute(tags: Mapping[str, str]) -> Compute:
    """What `compute_tags` says; that of before there were such tags where they are missing."""
    before = DEFAULT_COMPUTE
    return Compute(
        tags.get(Tag.BACKEND, before.backend),
        tags.get(Tag.PRECISION, before.precision),
        tags.get(Tag.JIT, before.jit),
    )


def option_tags(training: TrainingOptions) -> dict[str, str]:
    """The tags of a run or a model that say how it was trained and measured."""
    tags = compute_tags(training.compute)
    if training.measured_weights != MEASURED_BEFORE:
        tags[Tag.MEASURED_WEIGHTS] = training.measured_weights
    return tags


def recorded_options(tags: Mapping[str, str], params: Mapping[str, str]) -> TrainingOptions:
    """The training options that a run was trained with.

    Args:
        tags: the run's own.
        params: those of its sweep's run; empty where that is gone.
    """
    compute, found = tagged_compute(tags), from_stored(params)
    return replace(
        found,
        backend=compute.backend, precision=compute.precision, jit=compute.jit,
        measured_weights=tags.get(Tag.MEASURED_WEIGHTS, found.measured_weights),
        # As decided for the run's own model.
        pixels=tags.get(Tag.PIXELS, found.pixels),
    )  # fmt: skip
