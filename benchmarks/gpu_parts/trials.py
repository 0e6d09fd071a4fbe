"""Sweeps that a part runs, and what their trials did, from the sweep's own spool."""

from __future__ import annotations

import math
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from gpu_parts.findings import Finding, Task
from gpu_parts.jobs import FitTask
from pipelines.data.prepared import PreparedData
from pipelines.runtime.compute import Compute, jit_rule
from search_spaces.hyperparameters import Params
from search_spaces.registry import get_space
from sweeps.cli.exit_codes import DONE, FAILED, INTERRUPTED
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
USEFUL = ("COMPLETE", "PRUNED")
"""States of trials that a sweep has tried; what failed, or did not end, shows nothing."""


@dataclass(frozen=True)
class SweepEnd:
    """How a sweep ended.

    Attributes:
        interrupted: whether its part ended it, as Ctrl-C does, before its own end.
    """

    status: int
    interrupted: bool = False

    def in_order(self, found: Sequence[Life]) -> bool:
        """Whether its status is what the project promises, with such trials.

        A sweep whose time limit stopped every trial has no result, and says so by its status.
        """
        if self.status == FAILED:
            return bool(found) and all(life.state == "PRUNED" for life in found)
        return self.status == DONE or (self.interrupted and self.status == INTERRUPTED)


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


def point_options(task: Task, params: Params | None = None) -> list[str]:
    """Options of `run` for a space of nothing but one point, at many learning rates.

    A search never trains a point twice; another rate is another point, and costs the same.

    Args:
        params: of the space `SPACE`; None for the published CNN.
    """
    params = point(task) if params is None else dict(params)
    rate = float(params.pop("learning_rate"))
    fixed = [f"{name}={str(value).lower()}" for name, value in params.items()]
    return [
        "--space", SPACE, "--no-baselines", "--sampler", "random", "--pruner", "none",
        "--jit", compute(task).jit, "--set", f"learning_rate={0.9 * rate:.6f}..{1.1 * rate:.6f}",
        *(word for rule in fixed for word in ("--fix", rule)),
    ]  # fmt: skip


def sweep(
    task: Task, name: str, options: Iterable[str], until: Condition = lambda: False
) -> SweepEnd:
    """Runs a sweep in this process, whose workers its sweeps share; returns how it ended.

    Args:
        until: what ends the sweep before its own end, as Ctrl-C does; so does the part's limit.
    """
    from sweeps.cli.main import main

    done, interrupted = threading.Event(), threading.Event()

    def interrupt() -> None:
        while not done.wait(POLL_SECONDS):
            if until() or task.left < RESERVE_SECONDS:
                interrupted.set()
                os.kill(os.getpid(), signal.SIGINT)
                done.wait(AGAIN_SECONDS)

    threading.Thread(target=interrupt, daemon=True, name="interrupt").start()
    try:
        status = main([
            "run", "--name", name, "--dataset", task.dataset, "--backend", task.backend, *options,
        ])  # fmt: skip
        return SweepEnd(status, interrupted.is_set())
    finally:
        done.set()


@dataclass(frozen=True)
class Life:
    """A trial's life. Times are seconds since 1970.

    Attributes:
        epochs: when each report came, and its metrics.
        ended: None where it did not end.
        num_retries: tries after the first.
        retry_reason, retry_kind: why the latest of them was made; empty without one.
    """

    number: int
    began: float
    epochs: tuple[tuple[float, Mapping[str, float]], ...]
    ended: float | None
    state: str
    best: float | None
    num_retries: int = 0
    retry_reason: str = ""
    retry_kind: str = ""
    params: Mapping[str, object] = field(default_factory=dict)

    def seconds(self, num_epochs: int) -> float | None:
        """From its start to its end; as its epochs so far have it, where its end did not come."""
        if self.state == "COMPLETE" and self.ended is not None:
            return self.ended - self.began
        return self.seconds_for(num_epochs)

    def seconds_for(self, num_epochs: int) -> float | None:
        """What so many epochs take from its start, as those that it had have it; None without."""
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


def in_order(name: str, end: SweepEnd, found: Sequence[Life]) -> Finding:
    """The promise of every sweep: it ends with status 0, and none of its trials FAILED."""
    failed = sum(life.state == "FAILED" for life in found)
    return Finding(
        f"{name}: ends in order", f"status {end.status}, {failed} of {len(found)} FAILED",
        expected="status 0, none FAILED", n=len(found), kind="promise",
        held=end.in_order(found) and not failed,
        note="ended by this script, with Ctrl-C" if end.interrupted else "",
    )  # fmt: skip


def level(name: str) -> int | None:
    """How many trials shared a GPU at the end of a sweep; None where it never said."""
    from tracking.spool.records import SweepStateRecord
    from tracking.spool.spool import Spool
    from tracking.tags import Tag

    folder = SweepPaths(WORK_DIR, name).spool
    if not folder.exists():
        return None
    records = Spool(folder, read_only=True).replay()
    told = [
        record.tags[Tag.TRIALS_PER_GPU]
        for record in records
        if isinstance(record, SweepStateRecord) and Tag.TRIALS_PER_GPU in record.tags
    ]
    return int(told[-1]) if told else None


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
    retries: dict[int, Mapping[str, str]] = {}
    for record in records:
        if isinstance(record, EpochRecord):
            epochs.setdefault(record.number, []).append((record.at_ms / 1000, record.metrics))
        elif isinstance(record, TagsRecord) and Tag.NUM_RETRIES in record.tags:
            retries[record.number] = record.tags
    found = []
    for record in (r for r in records if isinstance(r, TrialRecord)):
        end, again = ends.get(record.number), retries.get(record.number, {})
        found.append(
            Life(
                record.number,
                record.at_ms / 1000,
                tuple(epochs.get(record.number, ())),
                None if end is None else end.at_ms / 1000,
                "RUNNING" if end is None else end.state,
                None if end is None else end.metrics.get("best_val_accuracy"),
                int(again.get(Tag.NUM_RETRIES, 0)),
                again.get(Tag.RETRY_REASON, ""),
                again.get(Tag.RETRY_KIND, ""),
                record.params,
            )
        )
    return sorted(found, key=lambda life: life.number)


def after(seconds: float) -> Condition:
    """Comes true once so many seconds are over."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def seconds_since(moment: float) -> float:
    """Seconds since a moment, which is in seconds since 1970."""
    return time.time() - moment
