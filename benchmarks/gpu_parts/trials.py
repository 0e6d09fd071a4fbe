"""Sweeps that a part runs, and what their trials did, from the sweep's own spool."""

from __future__ import annotations

import math
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gpu_parts.findings import Task
from gpu_parts.jobs import FitTask
from pipelines.data.prepared import PreparedData
from pipelines.runtime.compute import Compute, jit_rule
from search_spaces.hyperparameters import Params
from search_spaces.registry import get_space
from sweeps.setup.data import SILENT, prepare_data
from sweeps.state.paths import SweepPaths

SPACE, PUBLISHED = "cnn_blocks", "cnn3_valid_50k"
WORK_DIR, SERVER_LOG = Path(".sweeps"), Path("server.log")
SMALL: Params = {
    "num_blocks": 1, "filters_0": 8, "pooling_0": "max", "num_dense_layers": 1, "dense_units_0": 32,
    "batch_size": 512,
}  # fmt: skip
"""In place of the published model where all is in small."""
RESERVE_SECONDS = 5.0
"""A sweep is ended so long before its part is, so that it can end in order."""
POLL_SECONDS = 0.2
AGAIN_SECONDS = 5.0
"""A sweep that has not ended so long after it was asked to is asked again, and hurries."""
Condition = Callable[[], bool]


def prepared(task: Task) -> PreparedData:
    """The images, prepared once for all parts."""
    return prepare_data(task.dataset, WORK_DIR / "data", progress=SILENT)


def point(task: Task) -> Params:
    """The published CNN, as published."""
    space = get_space(SPACE)
    if task.stand_in:
        return space.complete(SMALL)
    return next(dict(b.params) for b in space.baselines if b.name == PUBLISHED)


def compute(task: Task) -> Compute:
    """How the published CNN is computed everywhere: by Keras' own rule, in float32.

    Where a part says nothing else, no sweep spends its time on measuring ways to compile.
    """
    return Compute(task.backend, jit=jit_rule(task.backend, on_gpu=not task.stand_in))


def fit_task(task: Task, data: PreparedData, num_epochs: int, seconds: float = math.inf) -> FitTask:
    """The published CNN to train without a sweep, until `seconds` are over."""
    return FitTask(SPACE, point(task), data, compute(task), num_epochs, seconds)


def point_options(task: Task) -> list[str]:
    """Options of `run` for a space of nothing but this point, at many learning rates.

    A search never trains a point twice; another rate is another point, and costs the same.
    """
    params = point(task)
    rate = float(params.pop("learning_rate"))
    fixed = [f"{name}={str(value).lower()}" for name, value in params.items()]
    return [
        "--space", SPACE, "--no-baselines", "--sampler", "random", "--pruner", "none",
        "--jit", compute(task).jit, "--set", f"learning_rate={0.9 * rate:.6f}..{1.1 * rate:.6f}",
        *(word for rule in fixed for word in ("--fix", rule)),
    ]  # fmt: skip


def sweep(task: Task, name: str, options: Iterable[str], until: Condition = lambda: False) -> int:
    """Runs a sweep in this process, whose workers its sweeps share; returns the exit status.

    Args:
        until: what ends the sweep before its own end, as Ctrl-C does; so does the part's limit.
    """
    from sweeps.cli.main import main

    done = threading.Event()

    def interrupt() -> None:
        while not done.wait(POLL_SECONDS):
            if until() or task.left < RESERVE_SECONDS:
                os.kill(os.getpid(), signal.SIGINT)
                done.wait(AGAIN_SECONDS)

    threading.Thread(target=interrupt, daemon=True, name="interrupt").start()
    try:
        return main([
            "run", "--name", name, "--dataset", task.dataset, "--backend", task.backend, *options,
        ])  # fmt: skip
    finally:
        done.set()


@dataclass(frozen=True)
class Life:
    """A trial's life. Times are seconds since 1970.

    Attributes:
        epochs: when each report came, and its metrics.
        ended: None where it did not end.
        num_retries: tries after the first.
    """

    number: int
    began: float
    epochs: tuple[tuple[float, Mapping[str, float]], ...]
    ended: float | None
    state: str
    best: float | None
    num_retries: int = 0

    def seconds(self, num_epochs: int) -> float | None:
        """From its start to its end; as its epochs so far have it, where its end did not come."""
        if self.state == "COMPLETE" and self.ended is not None:
            return self.ended - self.began
        if not self.epochs:
            return None
        times = [at for at, _ in self.epochs]
        paces = [later - at for at, later in pairwise(times)]
        pace = statistics.mean(paces) if paces else self.epochs[0][1]["epoch_seconds"]
        return times[0] - self.began + (num_epochs - 1) * pace

    @property
    def last(self) -> float:
        """When it was last heard of."""
        return self.ended or (self.epochs[-1][0] if self.epochs else self.began)


def lives(name: str) -> list[Life]:
    """The trials of a sweep, by number; none where it has not begun."""
    from tracking.spool.records import EpochRecord, TagsRecord, TrialEnd, TrialRecord
    from tracking.spool.spool import Spool
    from tracking.tags import Tag

    folder = SweepPaths(WORK_DIR, name).spool
    if not folder.exists():
        return []
    records = list(Spool(folder, read_only=True).replay())
    ends = {r.number: r for r in records if isinstance(r, TrialEnd)}
    epochs: dict[int, list[tuple[float, Mapping[str, float]]]] = {}
    retries: dict[int, int] = {}
    for record in records:
        if isinstance(record, EpochRecord):
            epochs.setdefault(record.number, []).append((record.at_ms / 1000, record.metrics))
        elif isinstance(record, TagsRecord) and Tag.NUM_RETRIES in record.tags:
            retries[record.number] = int(record.tags[Tag.NUM_RETRIES])
    found = []
    for record in (r for r in records if isinstance(r, TrialRecord)):
        end = ends.get(record.number)
        found.append(
            Life(
                record.number,
                record.at_ms / 1000,
                tuple(epochs.get(record.number, ())),
                None if end is None else end.at_ms / 1000,
                "RUNNING" if end is None else end.state,
                None if end is None else end.metrics.get("best_val_accuracy"),
                retries.get(record.number, 0),
            )
        )
    return sorted(found, key=lambda life: life.number)


def seconds_since(moment: float) -> float:
    """Seconds since a moment, which is in seconds since 1970."""
    return time.time() - moment
