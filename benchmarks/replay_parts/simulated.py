"""Time that passes when somebody says so, and trials that report what was recorded."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from pipelines.training.reports import Reports, TrialReport
from pipelines.training.trial import Decision, TrialResult, TrialTask
from replay_parts.curves import Curve
from search_spaces.hyperparameters import Params
from sweeps.executors.base import Event, Job, Raised, Reported, Returned, Slot

START_SECONDS, TRACING_SECONDS = 0.7, 1.0
"""Of a trial that begins or goes on: until it trains, and until its steps are compiled."""


@dataclass
class Clock:
    """Seconds that pass when somebody says so."""

    now: float = 0.0

    def read(self) -> float:
        """The time."""
        return self.now


Replay = Generator[tuple[float, TrialReport], Decision, TrialResult]


@dataclass
class SimulatedExecutor:
    """Sends recorded reports, each when its training would have ended."""

    clock: Clock
    curve_of: Callable[[Params], Curve]
    target: float
    measured: str
    seconds_to: float = math.inf
    _jobs: dict[str, Replay] = field(default_factory=dict)
    _events: list[tuple[float, int, Event]] = field(default_factory=list)
    _count: int = 0

    def start(self, job_id: str, job: Job, argument: Any, slot: Slot, log_path: str) -> None:
        """Starts a trial; pictures are not drawn."""
        if not job_id.startswith("trial-"):
            self._put(0.0, Raised(job_id, "NotDrawn", "nothing to draw", ""))
            return
        self._jobs[job_id] = self._trial(argument)
        self._go_on(job_id, None)

    def _put(self, seconds: float, event: Event) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.clock.now + seconds, self._count, event))

    def _go_on(self, job_id: str, decision: Decision | None) -> None:
        try:
            job = self._jobs[job_id]
            seconds, report = next(job) if decision is None else job.send(decision)
        except StopIteration as end:
            del self._jobs[job_id]
            self._put(0.0, Returned(job_id, end.value))
        except ArithmeticError as error:
            del self._jobs[job_id]
            self._put(1.0, Raised(job_id, "NonFiniteLossError", str(error), ""))
        else:
            self._put(seconds, Reported(job_id, report))

    def _trial(self, task: TrialTask) -> Replay:
        curve, reports = self.curve_of(task.params), task.schedule.reports
        step, wait, decision = task.reported_step, START_SECONDS, Decision.GO_ON
        if step:
            decision = yield wait, self._report(task.number, step, curve, reports)
            wait = 0.0
        wait += TRACING_SECONDS
        while decision is Decision.GO_ON and step < task.schedule.end_step:
            trained = reports.next_step(step) - step
            step += trained
            validation = 0.25 if reports.is_early(step) else 1.0
            wait += curve.epoch_seconds * trained / reports.per_epoch
            wait += curve.validation_seconds * validation
            report = self._report(task.number, step, curve, reports)
            decision = yield wait, report
            wait = 0.0
        values = {
            at: self._value(at, curve, reports)
            for at in range(1, step + 1) if at % reports.per_epoch == 0
        } or {step: self._value(step, curve, reports)}  # fmt: skip
        best = max(values, key=lambda at: values[at])
        stopped_by = "epochs" if decision is Decision.GO_ON else decision.value
        return TrialResult(
            task.number, values[best], reports.epochs(best), reports.epochs(step),
            {"val_accuracy": values[best]}, 0, 0, 0.0, "simulated", stopped_by,
        )  # fmt: skip

    def _value(self, step: int, curve: Curve, reports: Reports) -> float:
        value = curve.at(Fraction(step, reports.per_epoch), self.measured)
        if math.isnan(value):
            raise ArithmeticError("the recorded training broke off")
        return value

    def _report(self, number: int, step: int, curve: Curve, reports: Reports) -> TrialReport:
        value = self._value(step, curve, reports)
        return TrialReport(
            number, step,
            {"val_accuracy": value, "val_loss": 0.0, "accuracy": value, "loss": 0.0,
             "epoch": float(reports.epochs(step)), "epoch_seconds": curve.epoch_seconds},
        )  # fmt: skip

    def events(self, timeout_seconds: float) -> list[Event]:
        """What happens next; time passes until then."""
        until = self.clock.now + timeout_seconds
        if not self._events or self._events[0][0] > until:
            self.clock.now = until
            return []
        at, _, event = heapq.heappop(self._events)
        self.clock.now = max(self.clock.now, at)
        if isinstance(event, Reported):
            metrics = event.message.metrics
            if metrics["epoch"] >= 1 and metrics["val_accuracy"] >= self.target:
                self.seconds_to = min(self.seconds_to, self.clock.now)
        return [event]

    def answer(self, job_id: str, answer: Any) -> None:
        """Lets a trial go on to its next report or to its end."""
        self._go_on(job_id, answer)

    def process_id(self, job_id: str) -> None:
        """Nothing runs."""

    def stop(self, job_id: str) -> None:
        """Ends a trial; what it would have reported is gone."""
        self._jobs.pop(job_id, None)
        self._events = [entry for entry in self._events if entry[2].job_id != job_id]
        heapq.heapify(self._events)

    def keep_warm(self, slots: Sequence[Slot]) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Ends all trials."""
        self._jobs.clear()
