"""Pictures of trials, drawn beside the next trial by processes that yield to it."""

from __future__ import annotations

from pipelines.data.prepared import PreparedData
from pipelines.training.checkpoints import PREDICTIONS_FILE
from sweeps.driver.recorder import Recorder
from sweeps.driver.status import TrialRow
from sweeps.executors.base import Event, Executor, Raised, Slot
from sweeps.state.paths import SweepPaths
from sweeps.workers.jobs import figures_job

PREFIX = "figures-"


class Pictures:
    """What is being drawn; `event` is the loop's to call, and answers whose pictures are done."""

    def __init__(
        self, executor: Executor, recorder: Recorder, paths: SweepPaths, data: PreparedData
    ) -> None:
        self._executor, self._recorder = executor, recorder
        self._paths, self._data = paths, data
        self._drawing: dict[int, int] = {}  # Trial -> the epoch that is being drawn.

    def __contains__(self, number: int) -> bool:
        return number in self._drawing

    def __len__(self) -> int:
        return len(self._drawing)

    def are_missing(self, number: int) -> bool:
        """Whether a kill came before the pictures of a trial of an earlier session."""
        return (self._paths.trial(number) / PREDICTIONS_FILE).exists()

    def draw(self, row: TrialRow) -> None:
        """Starts drawing a trial as it stands."""
        self._drawing[row.number] = len(row.curve)
        argument = (str(self._paths.trial(row.number)), self._data)
        log_path = str(self._paths.trial_log(row.number))
        slot = Slot(row.slot, 1)
        try:
            self._executor.start(f"{PREFIX}{row.number}", figures_job, argument, slot, log_path)
        except (OSError, EOFError) as error:
            self._done(row.number, str(error))

    def overtake(self, number: int) -> None:
        """The trial goes on: it leaves newer pictures when it stops the next time."""
        if number in self._drawing:
            self._executor.stop(f"{PREFIX}{number}")
            del self._drawing[number]

    def event(self, event: Event) -> int:
        """A drawing process ended; answers the trial's number."""
        number = int(event.job_id.removeprefix(PREFIX))
        self._done(number, event.reason if isinstance(event, Raised) else "")
        return number

    def give_up(self, number: int, reason: str) -> None:
        """Ends a drawing that is not waited for; what is there is uploaded."""
        self._executor.stop(f"{PREFIX}{number}")
        self._done(number, reason)

    def numbers(self) -> list[int]:
        """The trials whose pictures are being drawn."""
        return list(self._drawing)

    def _done(self, number: int, failure: str) -> None:
        """Uploads what was drawn; a picture that failed leaves the trial as it is, and is said."""
        self._recorder.figures_drawn(number, self._drawing.pop(number), failure)
        # Only now: until then a resumed sweep would draw them again.
        (self._paths.trial(number) / PREDICTIONS_FILE).unlink(missing_ok=True)
