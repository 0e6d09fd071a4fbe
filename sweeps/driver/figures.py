"""Figures of trials, drawn beside the next trial by processes that yield to it; and their files."""

from __future__ import annotations

import time

from pipelines.training.checkpoints import PREDICTIONS_FILE
from sweeps.driver.status import TrialRow
from sweeps.driver.trials import Trials
from sweeps.engines.base import TrialState
from sweeps.executors.base import Event, Raised, Slot
from sweeps.workers.jobs import figures_job

PREFIX = "figures-"
FIGURES_SECONDS = 120.0


class Figures:
    """What is being drawn; `event` is the loop's to call.

    A trial's files stay until its figures are in the spool.
    """

    def __init__(self, trials: Trials) -> None:
        self._executor, self._recorder = trials.executor, trials.recorder
        self._plan, self._paths = trials.plan, trials.plan.paths
        self._drawing: dict[int, int] = {}  # Trial -> the step that is being drawn.

    def take_over(self, row: TrialRow) -> None:
        """Draws what a kill left undrawn of a trial of an earlier session."""
        if (self._paths.trial(row.number) / PREDICTIONS_FILE).exists() and not row.waiting:
            self.draw(row)
        else:
            self.forget(row)

    def draw(self, row: TrialRow) -> None:
        """Starts drawing a trial as it stands."""
        self._drawing[row.number] = row.step
        argument = (str(self._paths.trial(row.number)), self._plan.data)
        log_path = str(self._paths.trial_log(row.number))
        slot = Slot(row.slot, 1)
        try:
            self._executor.start(f"{PREFIX}{row.number}", figures_job, argument, slot, log_path)
        except (OSError, EOFError) as error:
            self._done(row.number, str(error))
        self.forget(row)  # Where they could not be drawn, nothing keeps the trial's files.

    def overtake(self, number: int) -> None:
        """The trial goes on: it leaves newer figures when it stops the next time."""
        if number in self._drawing:
            self._executor.stop(f"{PREFIX}{number}")
            del self._drawing[number]

    def event(self, event: Event) -> int:
        """A drawing process ended; returns the trial's number."""
        number = int(event.job_id.removeprefix(PREFIX))
        self._done(number, event.reason if isinstance(event, Raised) else "")
        return number

    def give_up(self, number: int, reason: str) -> None:
        """Ends a drawing that is not waited for; what is there is uploaded."""
        self._executor.stop(f"{PREFIX}{number}")
        self._done(number, reason)

    def numbers(self) -> list[int]:
        """The trials whose figures are being drawn."""
        return list(self._drawing)

    def deadline(self) -> float:
        """Until when (`time.monotonic`) the last figures are waited for."""
        return time.monotonic() + FIGURES_SECONDS

    def forget(self, row: TrialRow) -> None:
        """Removes the files of a trial that has ended, once nobody needs them."""
        audited = self._plan.num_audited and row.state is TrialState.PRUNED
        if row.state.is_end and row.number not in self._drawing and not audited:
            self._recorder.forget(row.number)

    def _done(self, number: int, failure: str) -> None:
        """Uploads what was drawn; a figure that failed leaves the trial as it is, and is said."""
        self._recorder.figures_drawn(number, self._drawing.pop(number), failure)
        # Only now: until then a resumed sweep would draw them again.
        (self._paths.trial(number) / PREDICTIONS_FILE).unlink(missing_ok=True)
