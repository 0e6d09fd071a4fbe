"""Part 2: a plain `model.fit` of the published CNN, and the same through the project."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from gpu_parts import cuda_graph, trials
from gpu_parts.findings import Finding, Task
from gpu_parts.jobs import fit_job
from pipelines.data.prepared import PreparedData
from sweeps.executors.base import Slot
from sweeps.interrupts import Interrupts
from sweeps.resources.machine import detect_machine
from sweeps.workers.start import run_job, start_workers

SHARE = 0.4
"""Of the time, for `model.fit`: the sweep beside it has a start and an end of its own."""


def find(task: Task) -> Iterator[Finding]:
    """Seconds of an epoch and images a second on both sides, and the ratio."""
    data, num_epochs = trials.prepared(task), 2 if task.stand_in else 5
    num_images = data.num_images["train"]
    _, *epochs = plain_epochs(task, data, num_epochs, SHARE * task.seconds)
    yield from _side("model.fit", epochs, num_images)
    end = trials.sweep(task, "plain", [
        *trials.point_options(task), "--trials", "1", "--epochs", str(num_epochs), "--workers", "1",
        "--gpus", task.gpu, "--trials-per-gpu", "1", "--timeout", "none", "--offline",
    ])  # fmt: skip
    lives = trials.lives("plain")
    yield trials.in_order("plain", end, lives)
    full = [life for life in lives if life.state == "COMPLETE"]
    ours = [metrics["epoch_seconds"] for life in full for _, metrics in life.epochs[1:]]
    if not ours:
        raise RuntimeError(f"the sweep ended with status {end.status} and no trial in full")
    yield from _side("through the project", ours, num_images)
    ratio = statistics.median(epochs) / statistics.median(ours)
    yield Finding(
        "images/s: project / model.fit", ratio, "x",
        "1 or more", min(len(epochs), len(ours)), "goal",
        None if task.stand_in else ratio >= 1,
    )  # fmt: skip
    if task.backend == "torch":
        yield from cuda_graph.find(task, data)


def _side(name: str, epochs: list[float], num_images: int) -> Iterator[Finding]:
    seconds = statistics.median(epochs)
    note = f"from {min(epochs):.3g} to {max(epochs):.3g} s; the first epoch is left out"
    yield Finding(f"{name}: an epoch", seconds, "s", n=len(epochs), note=note)
    yield Finding(f"{name}: images", num_images / seconds, "images/s", n=len(epochs))


def plain_epochs(task: Task, data: PreparedData, num_epochs: int, seconds: float) -> list[float]:
    """Seconds of the epochs of a plain `model.fit`, at least two; the first with its start."""
    slot = Slot(0, detect_machine(task.backend).num_cores, task.gpu)
    fit = trials.fit_task(task, data, num_epochs, seconds)
    executor = start_workers(trials.SERVER_LOG, task.backend)
    epochs: list[float] = []
    log = str(Path("fit.log").absolute())
    try:
        run_job(executor, fit_job, fit, slot, log, epochs.append, Interrupts(),
                task.left - trials.RESERVE_SECONDS)  # fmt: skip
    finally:
        executor.close()
    if len(epochs) < 2:
        raise RuntimeError(f"model.fit had {len(epochs)} epochs before the time was over")
    return epochs
