"""The jobs that a sweep gives its executor; they run in worker processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from pipelines.checkpoints import EpochReport
from pipelines.measuring import Measurement, MeasureTask
from pipelines.prepared import PreparedData
from pipelines.reproduction import ReproductionResult, ReproductionTask
from pipelines.scoring import Score, ScoreTask
from pipelines.trial import Decision, TrialResult, TrialTask
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
