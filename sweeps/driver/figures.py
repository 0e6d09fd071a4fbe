"""Figures of trials, drawn beside the next trial by processes that yield to it; and their files."""

from __future__ import annotations

import logging

from pipelines.training.checkpoints import HISTORY_FILE, PREDICTIONS_FILE
from sweeps.driver.board.row import TrialRow
from sweeps.driver.trials import Trials
from sweeps.engines.base import TrialState
from sweeps.executors.base import Event, Raised, Slot
from sweeps.workers.jobs import figures_job

log = logging.getLogger(__name__)
PREFIX = "figures-"
FIGURES_SECONDS = 120.0
"""At the end of a sweep the last ones are waited for so long."""
MAX_DRAWING = 2
"""At the end of a sweep many trials end at once; each drawing is a process."""


class Figures:
    """What is being drawn, of trials that have ended; `event` is the loop's to call.

    Every trial that trained gets its learning curves; one that validated whole epochs to its end
    also gets its confusion matrix and its mistakes. Its files stay until they are in the spool.
    """

    def __init__(self, trials: Trials) -> None:
        self._executor, self._recorder = trials.executor, trials.recorder
        self._plan, self._paths = trials.plan, trials.plan.paths
        self._drawing: dict[int, int] = {}  # Trial -> the step that is being drawn.
        self._queue: list[TrialRow] = []
        self._failures: set[str] = set()
        self.audit_is_open = self._plan.num_audited > 0
        """Whether pruned trials keep their files, because they may be audited."""

    def draw(self, row: TrialRow) -> None:
        """Has a trial that has ended drawn; where it left nothing to draw, its files go.

        Also one of an earlier session: a kill may have left it undrawn.
        """
        if row.state.is_end and (self._paths.trial(row.number) / HISTORY_FILE).exists():
            self._queue.append(row)
            self._start_some()
        else:
            self.forget(row)

    def _start_some(self) -> None:
        while self._queue and len(self._drawing) < MAX_DRAWING:
            self._start(self._queue.pop(0))

    def _start(self, row: TrialRow) -> None:
        self._drawing[row.number] = row.step
        if row.state is not TrialState.COMPLETE:
            (self._paths.trial(row.number) / PREDICTIONS_FILE).unlink(missing_ok=True)
        argument = (str(self._paths.trial(row.number)), self._plan.data)
        log_path = str(self._paths.trial_log(row.number))
        slot = Slot(row.slot, 1)
        try:
            self._executor.start(f"{PREFIX}{row.number}", figures_job, argument, slot, log_path)
        except (OSError, EOFError) as error:
            self._done(row.number, str(error))
            self.forget(row)  # Nothing keeps the trial's files.

    def event(self, event: Event) -> int:
        """A drawing process ended; returns the trial's number."""
        number = int(event.job_id.removeprefix(PREFIX))
        failure = event.reason if isinstance(event, Raised) else ""
        if failure not in {"", *self._failures}:  # What fails once fails for many trials.
            self._failures.add(failure)
            log.warning("figures of trial %d, and maybe more, are missing: %s", number, failure)
        self._done(number, failure)
        self._start_some()
        return number

    def give_up(self, number: int, reason: str) -> None:
        """Ends a drawing that is not waited for; what is there is uploaded."""
        if number in self._drawing:
            self._executor.stop(f"{PREFIX}{number}")
        else:
            row = next(row for row in self._queue if row.number == number)
            self._queue.remove(row)
            self._drawing[number] = row.step
        self._done(number, reason)

    def numbers(self) -> list[int]:
        """The trials whose figures are being drawn, or wait for that."""
        return [*self._drawing, *(row.number for row in self._queue)]

    def forget(self, row: TrialRow) -> None:
        """Removes the files of a trial that has ended, once nobody needs them."""
        audited = self.audit_is_open and row.state is TrialState.PRUNED
        if row.state.is_end and row.number not in self.numbers() and not audited:
            self._recorder.forget(row.number)

    def _done(self, number: int, failure: str) -> None:
        """Uploads what was drawn; a figure that failed leaves the trial as it is, and is said."""
        self._recorder.figures_drawn(number, self._drawing.pop(number), failure)
        # Only now: until then a resumed sweep would draw them again.
        folder = self._paths.trial(number)
        for name in (PREDICTIONS_FILE, HISTORY_FILE):
            (folder / name).unlink(missing_ok=True)
