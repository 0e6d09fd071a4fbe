"""The jobs that a sweep gives its executor; they run in worker processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.checkpoints import EpochReport
from pipelines.measuring import Measurement, MeasureTask
from pipelines.prepared import PreparedData
from pipelines.reproduction import ReproductionResult, ReproductionTask
from pipelines.scoring import Score, ScoreTask
from pipelines.trial import Decision, TrialResult, TrialTask
from search_spaces.references import find_reference
from search_spaces.space import Shape
from sweeps.executors.base import Slot


def train_job(
    task: TrialTask, report: Callable[[EpochReport], Decision], slot: Slot
) -> TrialResult:
    """Trains one trial on its slot."""
    from pipelines.runtime import configure
    from pipelines.trial import run_trial

    device = configure(slot.num_threads, slot.gpu, task.seed, deterministic=task.deterministic)
    return run_trial(task, report, device)


def reproduce_job(
    task: ReproductionTask, report: Callable[[EpochReport], bool], slot: Slot
) -> ReproductionResult:
    """Trains one published model on its slot."""
    from pipelines.reproduction import reproduce
    from pipelines.runtime import configure

    device = configure(slot.num_threads, slot.gpu, task.seed)
    return reproduce(task, report, device)


def score_job(task: ScoreTask, report: object, slot: Slot) -> Score:
    """Measures a saved model on the test split, in a process that has seen nothing else."""
    del report
    from pipelines.runtime import configure
    from pipelines.scoring import score_model

    device = configure(slot.num_threads, slot.gpu, task.seed)
    return score_model(task, device)


def check_job(path: str, report: object, slot: Slot) -> bool:
    """Loads a saved model, in a process that has seen nothing else."""
    del report
    from pipelines.runtime import configure
    from pipelines.saved_models import load_saved_model

    configure(slot.num_threads, slot.gpu, 0)
    load_saved_model(Path(path))
    return True


def measure_job(task: MeasureTask, report: Callable[[str], bool], slot: Slot) -> list[Measurement]:
    """Measures points on a slot; reports when the libraries are there."""
    from pipelines.measuring import measure_points
    from pipelines.runtime import configure

    configure(slot.num_threads, slot.gpu, task.seed)
    report("ready")
    return measure_points(task)


def figures_job(argument: tuple[str, PreparedData], report: object, slot: Slot) -> None:
    """Draws the pictures of a finished trial, yielding the cores to those that train."""
    del report, slot
    with contextlib.suppress(AttributeError, OSError):
        os.nice(10)
    from pipelines.figures import render_trial

    render_trial(*argument)


@dataclass(frozen=True)
class HostTask:
    """A user's space to host; `check` says whether its model is to be tried on pixels first."""

    reference: str
    input_shape: Shape
    num_classes: int
    check: bool


@dataclass(frozen=True)
class Sampled:
    """One point has been asked for in full, or until the space raised.

    Attributes:
        notes: what people should know of the space, as far as it has been asked.
        drops_class_weights: whether a `fit` of its own leaves weights of classes out.
    """

    notes: tuple[str, ...] = ()
    drops_class_weights: bool = False


def host_job(task: HostTask, report: Callable[[Any], Any], slot: Slot) -> None:
    """Asks a user's space for points for as long as the driver wants some.

    It reports each `Parameter` as the space declares it, and is answered with the value; then
    `Sampled`, and is answered when another point is wanted.

    Raises:
        InputError: The space cannot be used.
    """
    from pipelines.runtime import configure
    from pipelines.space_check import look_at_space
    from search_spaces.tuner_source import TunerSource

    configure(slot.num_threads, slot.gpu, 0)
    reference = find_reference(task.reference)
    source = TunerSource(reference, task.input_shape, task.num_classes)
    notes = look_at_space(source) if task.check else ()
    report(Sampled((*notes, *source.notes), source.drops_class_weights))
    while True:
        # The trial of this point raises the same in its own process, and is FAILED with the
        # traceback: what `build` asked for until then is the point.
        with contextlib.suppress(Exception):
            source.ask(report)
        report(Sampled(notes=tuple(source.notes)))


def oracle_job(argument: object, report: Callable[[Any], Any], slot: Slot) -> None:
    """Answers `OracleQuestion`s with `OracleAnswer`s for as long as the driver has some.

    Raises:
        InputError: The oracle cannot search the space.
    """
    del argument
    from pipelines.runtime import configure

    configure(slot.num_threads, slot.gpu, 0)
    from sweeps.engines.oracle_proposals import propose

    question = report(None)
    while True:
        question = report(propose(question))
