"""The loop: ask the engine, start on a free slot, receive reports, tell, track."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np

from pipelines.prepared import PreparedData
from pipelines.trial import EpochReport, TrialResult, TrialTask
from pipelines.trial_files import PREDICTIONS_FILE
from search_spaces.space import Space
from sweeps.board import Board, TrialRow
from sweeps.engines.base import Engine, Proposal, TrialState
from sweeps.executors.base import Executor, Job, Raised, Reported, Returned, Slot
from sweeps.interrupts import Interrupts
from sweeps.jobs import figures_job, train_job
from sweeps.recorder import Recorder
from sweeps.settings import SweepPaths
from sweeps.views import View

WAIT_SECONDS = 0.5
NUM_SAME_FAILURES = 3
"""So many first trials failing for one reason mean that the next would, too."""
FIGURES_SECONDS = 120.0
GRACE_SECONDS = 120.0
"""What an epoch may take beyond the time limit: a whole epoch is worth waiting for, an hour not."""
_FIGURES = "figures-"
_TIME_LIMIT = "stopped at the sweep's time limit"
_STOPPED = "the sweep was stopped"


class StopReason(StrEnum):
    """Why a sweep ended."""

    TRIALS = "all trials ended"
    EXHAUSTED = "the space is exhausted"
    TIMEOUT = "the time limit was reached"
    INTERRUPTED = "interrupted"
    FAILING = "the first trials all failed for one reason"


@dataclass(frozen=True)
class Plan:
    """What the loop needs to know about its trials; `job` is what trains one."""

    space: Space
    data: PreparedData
    num_trials: int
    num_epochs: int
    timeout_seconds: float | None
    patience: int | None
    seed: int
    slots: tuple[Slot, ...]
    paths: SweepPaths
    job: Job = train_job


def trial_seed(sweep_seed: int, number: int) -> int:
    """The seed of a trial: it follows from the sweep's seed and the trial's number."""
    return int(np.random.SeedSequence([sweep_seed, number]).generate_state(1)[0])


class Sweep:
    """One sweep; `run` returns why it ended, and `board` holds what it found."""

    def __init__(
        self,
        plan: Plan,
        board: Board,
        engine: Engine,
        executor: Executor,
        recorder: Recorder,
        view: View,
    ) -> None:
        self.board = board
        self._plan = plan
        self._engine = engine
        self._executor = executor
        self._recorder = recorder
        self._view = view
        self._free = list(plan.slots)
        self._exhausted = False
        self._figures: set[int] = set()
        self._interrupts = Interrupts()

    def run(
        self, interrupts: Interrupts, meanwhile: Callable[[], None] = lambda: None
    ) -> StopReason:
        """Runs trials until a stop rule holds; leaves no trial running, however it ends.

        Args:
            meanwhile: called after the last trial, while its pictures are drawn beside.
        """
        self._interrupts = interrupts
        try:
            while (stop := self._stop(interrupts)) is None:
                self._fill_slots()
                self._handle_events(WAIT_SECONDS)
                self._end_overdue()
                self._view.update(self.board)
            if stop is not StopReason.INTERRUPTED:
                meanwhile()
                self._draw_remaining(interrupts)
            return stop
        finally:
            self._end_running()
            self._executor.close()

    def _stop(self, interrupts: Interrupts) -> StopReason | None:
        if interrupts.received:
            return StopReason.INTERRUPTED
        if self._all_failed_alike():
            return StopReason.FAILING
        if self.board.running():
            return None
        if self._time_is_up():
            return StopReason.TIMEOUT
        if self._exhausted:
            return StopReason.EXHAUSTED
        return StopReason.TRIALS if len(self.board.rows) >= self._plan.num_trials else None

    def _time_is_up(self) -> bool:
        limit = self._plan.timeout_seconds
        return limit is not None and self.board.elapsed_seconds() >= limit

    def _end_overdue(self) -> None:
        """Ends trials whose epoch does not end within `GRACE_SECONDS` after the time limit."""
        limit = self._plan.timeout_seconds
        if limit is None or self.board.elapsed_seconds() < limit + GRACE_SECONDS:
            return
        for row in self.board.running():
            self._executor.stop(_job_id(row.number))
            row.reason = _TIME_LIMIT
            self._end(row, TrialState.PRUNED)
            self._recorder.trial_lost(row)

    def _all_failed_alike(self) -> bool:
        ended = self.board.ended()
        if len(ended) < min(NUM_SAME_FAILURES, self._plan.num_trials):
            return False
        # Messages often name the trial's number or folder: digits do not make another cause.
        causes = {(row.state, re.sub(r"\d+", "#", row.reason)) for row in ended}
        return len(causes) == 1 and ended[0].state is TrialState.FAILED

    def _fill_slots(self) -> None:
        while (
            self._free
            and not self._exhausted
            and len(self.board.rows) < self._plan.num_trials
            and not self._time_is_up()
            and not self._interrupts.received
        ):
            proposal = self._engine.ask()
            if proposal is None:
                self._exhausted = True
                return
            self._start(proposal, self._free.pop(0))

    def _start(self, proposal: Proposal, slot: Slot) -> None:
        plan, number = self._plan, proposal.number
        seed = trial_seed(plan.seed, number)
        baseline = (proposal.baseline or "").partition(",")[0]
        name = f"trial {number} ({baseline})" if baseline else f"trial {number}"
        row = TrialRow(number, name, proposal.params, seed, slot.index, proposal.baseline)
        # From here on the trial has an end, whatever happens: row, study and run know it.
        self.board.rows[number] = row
        self._recorder.trial_started(row, plan.num_epochs, slot)
        self._view.started(self.board, row)
        folder = plan.paths.trial(number)
        task = TrialTask(
            number=number,
            space=plan.space.name,
            params=proposal.params,
            data=plan.data,
            num_epochs=plan.num_epochs,
            seed=seed,
            objective=self.board.objective,
            folder=str(folder),
            patience=plan.patience,
        )
        try:
            folder.mkdir(parents=True)
            log_path = str(plan.paths.trial_log(number))
            self._executor.start(_job_id(number), plan.job, task, slot, log_path)
        except (OSError, EOFError) as error:
            details = "".join(traceback.format_exception(error))
            self._lost(row, type(error).__name__, str(error), details)

    def _handle_events(self, timeout_seconds: float) -> None:
        for event in self._executor.events(timeout_seconds):
            if event.job_id.startswith(_FIGURES):
                reason = event.reason if isinstance(event, Raised) else ""
                self._figures_ended(int(event.job_id.removeprefix(_FIGURES)), reason)
            elif isinstance(event, Reported):
                self._reported(event.message)
            elif isinstance(event, Returned):
                self._returned(event.value)
            else:
                self._raised(event)

    def _reported(self, report: EpochReport) -> None:
        row = self.board.rows[report.number]
        value = self.board.objective.value(report.metrics)
        row.curve.append(value)
        go_on = self._engine.report(report.number, report.epoch, value)
        if go_on and self._time_is_up() and report.epoch < self._plan.num_epochs:
            go_on = False
            row.reason = _TIME_LIMIT
        self._executor.answer(_job_id(report.number), go_on)
        self._recorder.epoch_reported(report)
        self._view.reported(self.board, row)

    def _returned(self, result: TrialResult) -> None:
        row = self.board.rows[result.number]
        state = TrialState.PRUNED if result.stopped_by == "driver" else TrialState.COMPLETE
        row.best_epoch = result.best_epoch
        row.num_parameters = result.num_parameters
        self._end(row, state, result.value if state is TrialState.COMPLETE else None)
        self._recorder.trial_completed(row, result, state)
        self._recorder.progress(self.board)
        self._figures.add(row.number)
        folder = str(self._plan.paths.trial(row.number))
        # Drawn beside the next trial by a process that yields to it, so the slot is free already.
        try:
            self._executor.start(
                f"{_FIGURES}{row.number}", figures_job, (folder, self._plan.data),
                Slot(row.slot, 1), str(self._plan.paths.trial_log(row.number)),
            )  # fmt: skip
        except (OSError, EOFError) as error:
            self._figures_ended(row.number, str(error))

    def _raised(self, event: Raised) -> None:
        row = self.board.rows[int(event.job_id.removeprefix("trial-"))]
        if event.kind == "Died":
            self._lost(row, event.kind, event.reason, event.details)
        else:
            self._fail(row, event.kind, event.reason, event.details)

    def _lost(self, row: TrialRow, kind: str, reason: str, details: str) -> None:
        """A process that died or could not be started: by itself, or with the whole sweep."""
        if not self._interrupts.received:
            self._fail(row, kind, reason, details)
            return
        # What ended the sweep ended its processes, too: service managers signal whole groups.
        row.reason = _STOPPED
        self._end(row, TrialState.KILLED)
        self._recorder.trial_lost(row)

    def _fail(self, row: TrialRow, kind: str, reason: str, details: str) -> None:
        row.reason, row.details = f"{kind}: {reason}", details
        self._end(row, TrialState.FAILED)
        self._recorder.trial_lost(row)
        self._recorder.progress(self.board)

    def _end(self, row: TrialRow, state: TrialState, value: float | None = None) -> None:
        row.seconds = time.monotonic() - row.started
        # Told first: until the study has it, the trial counts as running and will be ended again.
        self._engine.tell(row.number, state, value, row.reason)
        row.state, row.value = state, value
        self._free.append(next(slot for slot in self._plan.slots if slot.index == row.slot))
        self._free.sort(key=lambda slot: slot.index)
        self._view.ended(self.board, row)

    def _figures_ended(self, number: int, failure: str) -> None:
        """Uploads what was drawn; a picture that failed leaves the trial as it is, and is said."""
        if number in self._figures:
            self._figures.discard(number)
            (self._plan.paths.trial(number) / PREDICTIONS_FILE).unlink(missing_ok=True)
            self._recorder.figures_drawn(number, failure)

    def _draw_remaining(self, interrupts: Interrupts) -> None:
        deadline = time.monotonic() + FIGURES_SECONDS
        while self._figures and time.monotonic() < deadline and not interrupts.received:
            self._handle_events(WAIT_SECONDS)
            self._view.update(self.board)

    def _end_running(self) -> None:
        for row in self.board.running():
            self._attempt(partial(self._executor.stop, _job_id(row.number)))
            row.reason = row.reason or _STOPPED
            self._attempt(partial(self._end, row, TrialState.KILLED))
            row.state = TrialState.KILLED
            self._recorder.trial_lost(row)
        for number in list(self._figures):
            self._attempt(partial(self._executor.stop, f"{_FIGURES}{number}"))
            self._figures_ended(number, _STOPPED)

    @staticmethod
    def _attempt(step: Callable[[], None]) -> None:
        """One step of an orderly end; the next ones must happen even if this one fails."""
        try:
            step()
        except Exception:  # Whatever a full disk or a lost database raises, the rest must end.
            return


def _job_id(number: int) -> str:
    return f"trial-{number}"
