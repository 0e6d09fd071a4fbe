"""The jobs that a sweep gives its executor; they run in worker processes."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.data.prepared import PreparedData
from pipelines.models.scoring import Score, ScoreTask
from pipelines.runtime.compute import DEFAULT_COMPUTE, Compute
from pipelines.runtime.device import resident_limit
from pipelines.training.cost import FailedPoint, Measurement, MeasureTask
from pipelines.training.reports import TrialReport
from pipelines.training.trial import Decision, TrialResult, TrialTask
from search_spaces.cost import Cost
from search_spaces.errors import SearchEndedError
from search_spaces.pixels import AUTO
from search_spaces.space import Shape
from search_spaces.user_spaces.fatal_errors import search_can_end
from search_spaces.user_spaces.reference import Sources, find_reference
from sweeps.executors.base import Slot


def configured(
    slot: Slot, seed: int, *, deterministic: bool = False, compute: Compute | None = None
) -> str:
    """Gives this process what its slot says, and a seed; returns the device's name."""
    from pipelines.runtime.process import configure

    return configure(
        slot.num_threads, slot.gpu, seed,
        deterministic=deterministic, compute=compute, memory=slot.memory,
    )  # fmt: skip


def _room(slot: Slot) -> int | None:
    """For training pixels, on the slot's GPU."""
    return resident_limit(slot.memory, slot.gpu_bytes)


def warm_up(slot: Slot) -> None:
    """Starts the device of a slot before a job comes; the job configures it again, and seeds it."""
    from pipelines.runtime.device import touch

    configured(slot, 0)
    touch()


def train_job(
    task: TrialTask, report: Callable[[TrialReport], Decision], slot: Slot
) -> TrialResult:
    """Trains one trial on its slot."""
    from pipelines.training.trial import run_trial

    device = configured(
        slot, task.seed, deterministic=task.training.deterministic, compute=task.training.compute
    )
    with search_can_end():
        return run_trial(task, report, device, resident_bytes=_room(slot))


def score_job(task: ScoreTask, report: object, slot: Slot) -> Score:
    """Measures a saved model on the test split, in a process that has seen nothing else."""
    del report
    from pipelines.models.scoring import score_model

    device = configured(slot, task.seed)
    return score_model(task, device)


def check_job(path: str, report: object, slot: Slot) -> bool:
    """Loads a saved model, in a process that has seen nothing else."""
    del report
    from pipelines.models.keras_files import load_saved_model

    configured(slot, 0)
    load_saved_model(Path(path))
    return True


def measure_job(
    task: MeasureTask, report: Callable[[str], bool], slot: Slot
) -> list[Measurement | FailedPoint]:
    """Measures points on a slot; reports when the libraries are there, and between points.

    The answer to a report says whether there is time for another.
    """
    from pipelines.training.cost import measure_points

    configured(slot, task.seed, compute=task.training.compute)
    report("ready")
    found: list[Measurement | FailedPoint] = []
    for number, params in enumerate(task.points):
        if number and not report("measured"):  # A sign of life, too: a point may take minutes.
            break
        try:
            with search_can_end():
                found += measure_points(replace(task, points=(params,)), resident_bytes=_room(slot))
        except SearchEndedError as error:
            if not task.skips_failures:
                raise
            found.append(FailedPoint("the search would end here", str(error), ""))
        except (Exception, SystemExit) as error:  # Whatever a user's space raises at a point.
            if not task.skips_failures:
                raise
            details = "".join(traceback.format_exception(error))
            found.append(FailedPoint(type(error).__name__, str(error), details))
    return found


def calibrate_job(
    tasks: tuple[MeasureTask, ...], report: Callable[[tuple[int, float | None]], bool], slot: Slot
) -> None:
    """Measures ways to compute, one after the other; reports each one's seconds of a trial.

    Compilation belongs to them: every trial is a process of its own, and compiles for itself.

    A way in which the model cannot be trained here, or has a non-finite loss, has None.
    """
    from pipelines.runtime.device import touch
    from pipelines.runtime.process import set_precision
    from pipelines.training.cost import measure_points

    configured(slot, tasks[0].seed, compute=tasks[0].training.compute)
    touch()  # The first way would pay for the start of the device otherwise.
    for number, task in enumerate(tasks):
        set_precision(task.training.precision)
        try:
            (found,) = measure_points(task, resident_bytes=_room(slot))
        except Exception:  # Whatever a backend lacks: an operation in this precision, a compiler.
            report((number, None))
        else:
            seconds = found.start_seconds + task.num_epochs * found.epoch_seconds
            report((number, seconds if found.is_finite else None))


def figures_job(argument: tuple[str, PreparedData], report: object, slot: Slot) -> None:
    """Draws the figures of a finished trial, yielding the cores to those that train."""
    del report, slot
    with contextlib.suppress(AttributeError, OSError):
        os.nice(10)
    from pipelines.evaluation.figures import render_trial

    render_trial(*argument)


@dataclass(frozen=True)
class HostTask:
    """A user's space to host.

    Attributes:
        check: whether its model is to be tried on pixels first.
        compute: what its models are trained with.
        pixels: the training option.
    """

    reference: str
    input_shape: Shape
    num_classes: int
    check: bool
    compute: Compute = DEFAULT_COMPUTE
    pixels: str = AUTO


@dataclass(frozen=True)
class Sampled:
    """One point has been asked for in full, or until the space raised.

    Attributes:
        notes: what people should know of the space, as far as it has been asked.
        drops_class_weights: whether a `fit` or `train_step` of its own leaves weights of classes
            out.
        sources: the files that it is written in, where it was checked.
        own_metrics: as `Space.own_metrics`, where it was checked.
        pixels: what its default model is given, where it was checked.
        cost: of the model that was built; None where it does not tell.
    """

    notes: tuple[str, ...] = ()
    drops_class_weights: bool = False
    sources: Sources = ()
    own_metrics: tuple[str, ...] | None = None
    cost: Cost | None = None
    pixels: str = ""


def host_job(task: HostTask, report: Callable[[Any], Any], slot: Slot) -> None:
    """Asks a user's space for points for as long as the driver wants some.

    It reports each `Parameter` as the space declares it, and is answered with the value; then
    `Sampled`, and is answered when another point is wanted.

    Raises:
        InputError: The space cannot be used.
    """
    configured(slot, 0, compute=task.compute)
    from pipelines.models.user_model_check import look_at_space
    from search_spaces.user_spaces.loading import loaded_sources
    from search_spaces.user_spaces.model_cost import cost_of_model
    from search_spaces.user_spaces.source import TunerSource

    reference = find_reference(task.reference)
    source = TunerSource(reference, task.input_shape, task.num_classes)
    notes = look_at_space(source, task.pixels) if task.check else ()
    sources = loaded_sources(reference) if task.check else ()
    seen = Sampled((*notes, *source.notes), source.drops_class_weights, sources, source.own_metrics)
    report(replace(seen, pixels=source.pixels if task.check else ""))
    while True:
        # The trial of this point raises the same in its own process, and is FAILED with the
        # traceback: what `build` asked for until then is the point.
        cost = None
        with contextlib.suppress(Exception):
            cost = cost_of_model(source.ask(report))
        report(Sampled(notes=tuple(source.notes), cost=cost))


def oracle_job(argument: object, report: Callable[[Any], Any], slot: Slot) -> None:
    """Reports an `OracleAnswer` for each `OracleQuestion` for as long as the driver has some."""
    del argument
    configured(slot, 0)
    from sweeps.engines.keras_tuner_oracles.worker import propose

    question = report(None)
    while True:
        question = report(propose(question))
