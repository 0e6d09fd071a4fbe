"""What a tracker is told: plain values, so that a record can be stored and sent later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

INACTIVE = "inactive"
"""Logged for parameters that are inactive in a trial: MLflow's parallel coordinates show only runs
that have every selected parameter."""

# A pruned trial was ended by the driver before its budget: of MLflow's three ends KILLED says so;
# the tag `sweeps.state` tells it from a trial that was ended because the whole sweep was.
_STATUS: dict[str, RunStatus] = {
    "COMPLETE": "FINISHED",
    "PRUNED": "KILLED",
    "FAILED": "FAILED",
    "KILLED": "KILLED",
}


def run_status(state: str) -> RunStatus:
    """MLflow's status for a trial's final state; raises KeyError for any other."""
    return _STATUS[state]


@dataclass(frozen=True)
class DataRecord:
    """The data set of a sweep, for MLflow's dataset inputs."""

    name: str
    fingerprint: str
    origin: str
    schema: Mapping[str, object]
    profile: Mapping[str, object]


@dataclass(frozen=True)
class SweepRecord:
    """A sweep that starts: the parent run."""

    name: str
    params: Mapping[str, object]
    tags: Mapping[str, str]
    data: DataRecord


@dataclass(frozen=True)
class TrialRecord:
    """A trial that starts: a child run. `params` holds every parameter of the space."""

    number: int
    name: str
    params: Mapping[str, object]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class TrialEnd:
    """A trial that ended, with final metrics and tags."""

    number: int
    state: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelRecord:
    """A trained model to keep: a `.keras` file that takes raw pixels."""

    number: int
    path: str
    input_shape: tuple[int, ...]
    num_classes: int
    metrics: Mapping[str, float]
    step: int
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepEnd:
    """A sweep that ended."""

    status: RunStatus
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    leaderboard: Mapping[str, list[object]] = field(default_factory=dict)
