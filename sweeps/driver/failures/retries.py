"""What decides that a trial which failed is tried again, and which trial has failed."""

from __future__ import annotations

import logging

from search_spaces.errors import SearchEndedError, SourceChangedError
from sweeps.driver.board.row import TrialRow
from sweeps.driver.failures.doubts import NUM_SAME_FAILURES, Doubt, Doubts
from sweeps.driver.figures import Figures
from sweeps.driver.plan import MOST_MOVES, STOPPED, StopReason
from sweeps.driver.trials import Trials, trial_number
from sweeps.engines.base import TrialState
from sweeps.executors.base import Raised
from sweeps.executors.failures import Failure, FailureKind, classify, hang, lost
from sweeps.interrupts import Interrupts
from sweeps.state.log import sweep_log

log = logging.getLogger(__name__)
GRACE_SECONDS = 120.0
"""What an epoch may take beyond the time limit: a whole epoch is worth waiting for, an hour not."""
STALL_SECONDS = 600.0
STALL_EPOCHS = 20
"""Without a limit of the user's, a trial hangs when it reports nothing for the longer of the two:
ten minutes, and twenty times the longest epoch that this sweep has seen."""
FIRST_EPOCH_SECONDS = 6 * 3600.0
"""Before any epoch nobody knows how long one takes; longer ones need `--trial-timeout`."""


class Retries:
    """Takes failures of trials, notices those that hang, and gives another try where it can help.

    Attributes:
        source_changed: what of a user's space is not as it was, where that ended a trial.
        trouble: what the machine does to every trial, where that ended several in a row.
        search_ended: by what a user's space ended the sweep on purpose.
        longest_epoch: seconds of the longest epoch that the sweep has seen.
    """

    def __init__(self, trials: Trials, figures: Figures, interrupts: Interrupts) -> None:
        self._trials, self._figures, self._interrupts = trials, figures, interrupts
        self._board, self._plan = trials.board, trials.plan
        self.source_changed = self.search_ended = self.trouble = ""
        self._doubts = Doubts(self._plan.pool)
        self._suspects: set[str] = set()
        self.longest_epoch = 0.0
        self._one_trained = False

    def raised(self, event: Raised) -> None:
        """A trial's job raised, or its process died."""
        row = self._board.rows[trial_number(event.job_id)]
        if event.here:
            row.node = ""
        if event.kind == SourceChangedError.__name__:
            self.source_changed = event.reason
        if event.kind == SearchEndedError.__name__:
            self.search_ended = event.reason
        ended = event.died or event.lost
        if self.source_changed or (ended and self._interrupts.received):
            # What ended the sweep ended its processes, too: service managers signal whole groups.
            # And a trial that was to be built from other code than those before it can wait.
            row.reason = STOPPED
            self._trials.release(row)
            row.waiting = True
            return
        if event.lost and row.moved_in_a_row < MOST_MOVES:
            self._move(row, event.reason)
            return
        if event.lost:
            self._failed(row, lost(event, row.moved_in_a_row))
            return
        self.broken(row, event)

    def _move(self, row: TrialRow, reason: str) -> None:
        """The node of a trial is lost, which is no failure: it goes on as soon as it can."""
        row.num_moved += 1
        row.moved_in_a_row += 1
        row.lost_seconds += self._board.clock() - self._trials.last_report[row.number]
        self._trials.release(row)
        row.waiting = True
        self._trials.recorder.trial_moved(row, reason)
        self._trials.view.retried(self._board, row, reason)

    def broken(self, row: TrialRow, event: Raised) -> None:
        """A trial failed by this event; another try, or its end."""
        short = self._trials.memory_ran_out(row, event)
        self._failed(row, classify(event, memory_ran_out=short))

    def end_overdue(self) -> None:
        """Ends trials whose epoch does not end within `GRACE_SECONDS` after the time limit.

        What was the best so far at its last report waits, to end with that.
        """
        limit = self._plan.rules.timeout_seconds
        if limit is None or self._board.limited_seconds() < limit + GRACE_SECONDS:
            return
        for row in self._board.running():
            if self._board.clock() - row.started < GRACE_SECONDS:
                continue  # It started after the limit, to end with what it has.
            self._trials.stop(row)
            row.reason = f"stopped because {StopReason.TIMEOUT.value}"
            self._trials.release(row)
            if self._board.would_win(row):
                row.state = TrialState.PAUSED
                self._trials.recorder.trial_suspended(row)
                self._trials.engine.pause(row.number)
                continue
            self._trials.end_without_result(row, TrialState.PRUNED)
            self._figures.forget(row)

    def end_stalled(self) -> None:
        """Ends trials that report nothing any more; another try may help."""
        limit, now = self.stall_limit(), self._board.clock()
        for row in self._board.running():
            if now - self._trials.last_report[row.number] > limit:
                self._trials.stop(row)
                self._failed(row, hang(limit))

    def stall_limit(self) -> float:
        """Seconds without a report after which a trial hangs."""
        if self._plan.stall_seconds is not None:
            return self._plan.stall_seconds
        if not self.longest_epoch:
            return FIRST_EPOCH_SECONDS
        return max(STALL_SECONDS, STALL_EPOCHS * self.longest_epoch)

    def broken_off(self) -> StopReason | None:
        """Why no further trial is to be started; None where nothing speaks against it."""
        if self.source_changed:
            return StopReason.CHANGED
        if self.search_ended:
            return StopReason.FATAL
        if self.trouble:
            return StopReason.TROUBLE
        return StopReason.FAILING if self.all_failed_alike() else None

    def all_failed_alike(self) -> bool:
        """Whether the first trials of a search all failed in this session, for one reason."""
        if self._plan.is_fixed or self._one_trained:
            return False
        ended = [row for row in self._board.ended() if not row.past and not row.is_untrained]
        if len(ended) < min(NUM_SAME_FAILURES, self._plan.num_trials or NUM_SAME_FAILURES):
            return False
        self._one_trained = any(row.state is not TrialState.FAILED for row in ended)
        return not self._one_trained and len({row.failure_cause for row in ended}) == 1

    def _failed(self, row: TrialRow, failure: Failure) -> None:
        """Another try where it can help and is left, else the end."""
        slot = self._trials.release(row)
        short = failure.kind is FailureKind.OUT_OF_MEMORY
        packer = self._trials.packer
        change = packer.ran_out_of_memory(slot) if short and slot is not None else None
        if change is not None:
            # That it shared the GPU is not the trial's fault, so `--retries` does not count it.
            row.num_repacked += 1
            self._board.num_slots = packer.num_slots
            self._try_again(row, f"{failure.reason} ({change})", failure.kind)
            return
        if failure.can_retry and row.num_retries < self._plan.num_retries:
            row.num_retries += 1
            row.ran_out_of_memory |= short
            self._try_again(row, failure.reason, failure.kind)
            return
        if failure.is_machines:
            self._doubt(row, failure)
        else:
            self._end_failed(row, failure)

    def _doubt(self, row: TrialRow, failure: Failure) -> None:
        """A failure that may be the machine's: others show whether it is."""
        sweep_log.warning("%s failed, by what may be the machine's: %s", row.name, failure.reason)
        if self._doubts.failed(row, failure, self._board.clock()):
            self._go_on_elsewhere(row, failure)
        self.trouble = self.trouble or self._doubts.trouble()
        self._spare_suspects()

    def _spare_suspects(self) -> None:
        """Nodes that fail every trial get no more, until it shows that the trials did."""
        suspects = self._doubts.suspects()
        if self._plan.pool is None or suspects == self._suspects:
            return
        for machine in sorted(suspects - self._suspects):
            text = "node %s gets no more trials: %d in a row failed there by what may be its fault"
            log.warning(text, machine, NUM_SAME_FAILURES)
        for machine in sorted(self._suspects - suspects):
            sweep_log.info("node %s gets trials again: they failed by themselves", machine)
        self._suspects = suspects
        self._plan.pool.spare(suspects)

    def reported(self, row: TrialRow) -> None:
        """A trial has reported: what failed there before it was started was not the machine's."""
        self._end_doubts(self._doubts.reported(row))
        self._spare_suspects()

    def nodes_changed(self) -> None:
        """What failed on every node goes on on one that has come; to be called again and again."""
        for doubt in self._doubts.elsewhere():
            self._go_on_elsewhere(doubt.row, doubt.failure)

    def _go_on_elsewhere(self, row: TrialRow, failure: Failure) -> None:
        row.num_elsewhere += 1
        self._try_again(row, f"{failure.reason}, on node {row.node}", failure.kind)

    def end_doubts(self) -> None:
        """What has failed has failed."""
        self._end_doubts(self._doubts.all())

    def _end_doubts(self, doubts: list[Doubt]) -> None:
        for doubt in doubts:
            self._end_failed(doubt.row, doubt.failure)

    def _end_failed(self, row: TrialRow, failure: Failure) -> None:
        tries = f" (after {row.num_tries} tries)" if row.num_tries > 1 else ""
        row.reason, row.details = failure.reason + tries, failure.details
        row.failure_cause = failure.cause
        self._doubts.forget(row)
        self._trials.end_without_result(row, TrialState.FAILED)
        self._trials.recorder.progress(self._board)
        self._figures.forget(row)

    def _try_again(self, row: TrialRow, reason: str, kind: FailureKind) -> None:
        row.waiting = True
        self._trials.recorder.trial_retried(row, reason, kind.value)
        self._trials.view.retried(self._board, row, reason)
