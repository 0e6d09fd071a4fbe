"""The audit of a pruner: some pruned trials are trained to the end, to see what was missed.

They stay pruned: study, ranking and winner do not change.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from pipelines.training.checkpoints import CHECKPOINT_FILE, MODEL_FILE
from pipelines.training.trial import Decision
from sweeps.driver.plan import MOST_MOVES
from sweeps.driver.trials import Trials
from sweeps.engines.base import TrialState
from sweeps.executors.base import Event, Raised, Reported, Returned, Slot
from sweeps.executors.failures import hang

PREFIX = "audit-"


class Audit:
    """Trains pruned trials on free slots; `fill`, `event` and `end_stalled` are the loop's to call.

    Which ones follows from the plan's seed; they are among those with a checkpoint.
    """

    def __init__(self, trials: Trials) -> None:
        plan, board = trials.plan, trials.board
        self._trials, self._board, self._executor = trials, board, trials.executor
        self._paths, self._free = plan.paths, trials.packer.slots
        self._pruned = [
            row
            for row in board.in_state(TrialState.PRUNED)
            if not row.breaks_limit and (plan.paths.trial(row.number) / CHECKPOINT_FILE).exists()
        ]
        order = np.random.default_rng([plan.seed, len(board.rows)]).permutation(len(self._pruned))
        self._waiting = [self._pruned[index] for index in order[: plan.num_audited]]
        self._slots: dict[int, Slot] = {}
        self._last_report_at = trials.last_report
        self._moves: Counter[int] = Counter()

    @property
    def is_done(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._waiting and not self._slots

    def fill(self) -> None:
        """Starts what waits on the free slots."""
        while self._waiting and self._free.has_room:
            row, slot = self._waiting.pop(0), self._free.take()
            number, job_id = row.number, f"{PREFIX}{row.number}"
            self._slots[number], self._last_report_at[number] = slot, self._board.clock()
            log_path = str(self._paths.trial_log(number))
            try:
                self._executor.start(
                    job_id, self._trials.plan.job, self._trials.task(row), slot, log_path
                )
            except (OSError, EOFError) as error:
                self.event(Raised(job_id, type(error).__name__, str(error), ""))

    def event(self, event: Event) -> None:
        """Takes a report, a result or a failure of an audited trial."""
        number = int(event.job_id.removeprefix(PREFIX))
        if isinstance(event, Reported):
            self._last_report_at[number] = self._board.clock()
            self._executor.answer(event.job_id, Decision.GO_ON)
            return
        self._free.give_back(self._slots.pop(number))
        taken_away = isinstance(event, Raised) and (event.lost or event.signal)
        if taken_away and self._moves[number] < MOST_MOVES:
            self._moves[number] += 1
            self._waiting.append(self._board.rows[number])
            return
        if isinstance(event, Returned):
            self._board.audits[number] = event.value.value
            self._trials.recorder.audited(number, event.value.value)
        else:
            self._board.failed_audits[number] = f"{event.kind}: {event.reason}"
        (self._paths.trial(number) / MODEL_FILE).unlink(missing_ok=True)

    def end_stalled(self, limit_seconds: float) -> None:
        """Ends what has reported nothing for so long."""
        for number in list(self._slots):
            if self._board.clock() - self._last_report_at[number] > limit_seconds:
                self._executor.stop(f"{PREFIX}{number}")
                reason = hang(limit_seconds).reason
                self.event(Raised(f"{PREFIX}{number}", "Hang", reason, ""))

    def close(self) -> None:
        """Ends what still runs."""
        for number in list(self._slots):
            self._executor.stop(f"{PREFIX}{number}")
            self._free.give_back(self._slots.pop(number))
