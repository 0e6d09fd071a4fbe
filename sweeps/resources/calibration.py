"""Measures how many trials a GPU trains fastest at once: one, two, four of the same point.

Nothing that is measured here trains a trial, asks the engine or draws a random number of the
sweep's: what is proposed afterwards does not follow from it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.training.cost import Measurement, MeasureTask
from search_spaces.hyperparameters import Params
from search_spaces.space import Space
from sweeps.executors.base import Executor, Raised, Reported, Returned, Slot
from sweeps.executors.failures import FailureKind, classify
from sweeps.formatting import count
from sweeps.interrupts import Interrupts
from sweeps.resources.gpu_monitor import GpuWatch
from sweeps.resources.packing import LevelMeasure, fastest
from sweeps.workers.jobs import measure_job

WAIT_SECONDS = 0.2
MOST_SECONDS = 180.0
MOST_OF_TIMEOUT = 0.2
"""The measurement takes no longer, and no larger part of the sweep's time limit."""


@dataclass
class Calibration:
    """What was measured; `ended_by` says why not all levels were.

    Attributes:
        lost: whether the machine was lost meanwhile, which says nothing of its kind.
    """

    measured: dict[int, LevelMeasure] = field(default_factory=dict)
    ended_by: str = ""
    lost: bool = False

    @property
    def level(self) -> int:
        """The fastest level."""
        return fastest(self.measured)

    @property
    def text(self) -> str:
        """One line for people."""
        found = "; ".join(
            f"{level} per GPU: {measure.trials_per_hour:.0f} trials/h{_memory(measure)}"
            for level, measure in self.measured.items()
        )
        more = f"{'; ' if found else ''}{self.ended_by}" if self.ended_by else ""
        return f"{found}{more}; {self.level} from now on"


def _memory(measure: LevelMeasure) -> str:
    if measure.memory_bytes is None:
        return ""
    return f", {measure.memory_bytes / 2**30:.1f} GiB each"


def seconds_for(timeout_seconds: float | None) -> float:
    """How long a measurement may take in a sweep with this time limit."""
    if timeout_seconds is None:
        return MOST_SECONDS
    return min(MOST_SECONDS, MOST_OF_TIMEOUT * timeout_seconds)


def measured_point(space: Space, *, baselines: bool) -> Params:
    """The point that is measured: the first that the sweep trains, or the space's defaults."""
    first = space.distinct_baselines()[:1] if baselines else ()
    return dict(first[0][1]) if first else space.complete({})


@dataclass(frozen=True)
class Bench:
    """What levels are measured with.

    Attributes:
        task: what to measure, made only where something is measured.
        executor: nothing else runs on it.
        watch: tells what processes take of this machine's GPUs; None where nothing does.
        folder: for what the processes print meanwhile; it is removed.
        limit_seconds: for all that is measured together.
    """

    task: Callable[[], MeasureTask]
    executor: Executor
    watch: GpuWatch | None
    interrupts: Interrupts
    folder: Path
    limit_seconds: float
    say: Callable[[str], None] = lambda text: None

    def calibrate(
        self,
        levels: Iterable[int],
        slots_of: Callable[[int], Sequence[Slot]],
        where: str = "",
    ) -> Calibration:
        """Measures levels, the lowest first, while time and memory last.

        Args:
            slots_of: takes a level and gives the slots that are at work then.
            where: what the slots are on, for people; empty for this machine.
        """
        found, task = Calibration(), self.task()
        deadline = time.monotonic() + self.limit_seconds
        self.folder.mkdir(parents=True, exist_ok=True)
        for level in levels:
            slots = slots_of(level)
            self.say(f"measuring {count(len(slots), 'trial')} at once, {level} per GPU{where} ...")
            attempt = _Level(level, slots, self.executor, self.watch, self.folder)
            measure = attempt.measure(task, deadline, self.interrupts)
            if isinstance(measure, str):
                found.ended_by, found.lost = measure, attempt.lost
                break
            found.measured[level] = measure
        shutil.rmtree(self.folder, ignore_errors=True)
        return found


class _Level:
    """The measurement of one level: so many processes that all begin at the same moment."""

    def __init__(
        self,
        level: int,
        slots: Sequence[Slot],
        executor: Executor,
        watch: GpuWatch | None,
        folder: Path,
    ) -> None:
        self._level, self._executor, self._watch, self._folder = level, executor, watch, folder
        self._slots = {f"measure-{level}-{slot.index}": slot for slot in slots}
        self._running: set[str] = set()
        self.lost = False
        self._ready: list[str] = []
        self._results: list[Measurement] = []
        self._process_ids: list[int] = []

    def measure(
        self, task: MeasureTask, deadline: float, interrupts: Interrupts
    ) -> LevelMeasure | str:
        """The measure, or why there is none; nothing of it runs afterwards."""
        left = self._running
        try:
            self._start(task)
            while left:
                if interrupts.received:
                    return "interrupted"
                if time.monotonic() > deadline:
                    return f"no time was left to measure {self._level} per GPU"
                reason = ""
                for event in self._executor.events(WAIT_SECONDS):
                    if isinstance(event, Reported):
                        self._arrived(event.job_id)
                        continue
                    left.discard(event.job_id)
                    if isinstance(event, Returned):
                        self._results += event.value
                    else:
                        reason = reason or self._reason(event)
                        self.lost |= isinstance(event, Raised) and event.lost
                if reason:
                    return reason
        except (OSError, EOFError) as error:
            return f"{self._level} per GPU could not be measured: {error}"
        finally:
            for job_id in left:
                self._executor.stop(job_id)
        seconds = [
            found.start_seconds + task.num_epochs * found.epoch_seconds for found in self._results
        ]
        return LevelMeasure(len(self._slots), sum(seconds) / len(seconds), self._memory_bytes())

    def _start(self, task: MeasureTask) -> None:
        for job_id, slot in self._slots.items():
            log_path = str(self._folder / f"{job_id}.log")
            self._executor.start(job_id, measure_job, task, slot, log_path)
            self._running.add(job_id)
            process_id = self._executor.process_id(job_id)
            if process_id is not None:
                self._process_ids.append(process_id)

    def _arrived(self, job_id: str) -> None:
        """Lets all begin once all have their libraries and their GPU."""
        self._ready.append(job_id)
        if len(self._ready) == len(self._slots):
            for ready in self._ready:
                self._executor.answer(ready, True)

    def _reason(self, event: Raised) -> str:
        failure = classify(event, memory_ran_out=False)
        if failure.kind is FailureKind.OUT_OF_MEMORY:
            return f"memory ran out with {self._level} per GPU"
        return f"{self._level} per GPU could not be measured ({failure.reason})"

    def _memory_bytes(self) -> int | None:
        if self._watch is None:
            return None
        usages = [self._watch.take(process_id) for process_id in self._process_ids]
        seen = [u.memory_bytes for u in usages if u is not None and u.memory_bytes is not None]
        return max(seen, default=None)
