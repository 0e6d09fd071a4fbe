"""How trials end that do not end by themselves: pruned, killed with the sweep, or left to go on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sweeps.driver.board.row import TrialRow
from sweeps.driver.figures import Figures
from sweeps.driver.plan import STOPPED
from sweeps.driver.trials import Trials
from sweeps.engines.base import TrialState

OUTRANKED = "pruned at epoch {}: too many trials are better there"
WAITED = "paused at epoch {} and not promoted before the sweep ended"
NO_TIME = "waits with its checkpoint: no trial goes on any more"
AHEAD = "paused at epoch {}, ahead of the winner there; the sweep ended before it could go on"


class Ends:
    """Ends what is paused, what runs, and what waits."""

    def __init__(self, trials: Trials, figures: Figures) -> None:
        self._trials, self._figures = trials, figures
        self._board, self._plan = trials.board, trials.plan

    def prune_unpromotable(self) -> None:
        """Ends paused trials that can never be promoted, so that their checkpoints can go.

        Not those that are ahead of the winner, which go on before the sweep ends.
        """
        if self._board.best() is None:
            return
        most = self._plan.most_trials(len(self._board.rows))
        for number in self._trials.engine.unpromotable(most):
            row = self._board.rows[number]
            if self._board.is_ahead(row):
                continue
            row.reason = OUTRANKED.format(row.epochs_text)
            self.end_one_paused(row)

    def pause_waiting(self) -> None:
        """What has reported and was to go on waits at its last report: there is no time for it."""
        for row in self._board.rows.waiting():
            if row.curve and not row.in_doubt:
                row.waiting, row.state, row.reason = False, TrialState.PAUSED, NO_TIME
                self._trials.recorder.trial_suspended(row)
                self._trials.engine.pause(row.number)

    def end_paused(self) -> None:
        """When no slot will be free again for them, paused trials have been pruned."""
        for row in self._board.in_state(TrialState.PAUSED):
            reason = AHEAD if self._board.is_ahead(row) else WAITED
            row.reason = reason.format(row.epochs_text)
            self.end_one_paused(row)
        for row in self._board.rows.waiting():  # A stop rule came before their turn.
            row.reason = STOPPED
            self._trials.end_without_result(row, TrialState.PRUNED)
            self._figures.forget(row)

    def end_one_paused(self, row: TrialRow) -> None:
        """A trial that waits at its rung will not go on; it ends with what it reached."""
        self._trials.recorder.paused_trial_ended(row, TrialState.PRUNED)
        self._trials.end(row, TrialState.PRUNED)
        self._figures.draw(row)

    def kill_running(self) -> None:
        """Ends everything that runs or is to run, as far as possible: each step for itself.

        What is paused stays so: a sweep that is resumed may promote it.
        """
        self._stop_running()
        for row in self._board.rows.waiting():
            row.reason = STOPPED
            _attempt(partial(self._trials.recorder.trial_lost, row, TrialState.KILLED))
            _attempt(partial(self._trials.end, row, TrialState.KILLED))
            self._figures.forget(row)

    def suspend_running(self) -> None:
        """Leaves what still runs to be resumed: its last epoch is in its checkpoint."""
        self._stop_running()
        for row in self._board.rows.waiting():
            row.state, row.reason = TrialState.PAUSED, "waits for the sweep to be resumed"
            _attempt(partial(self._trials.recorder.trial_suspended, row))
        for number in self._figures.numbers():
            _attempt(partial(self._figures.give_up, number, STOPPED))
            self._figures.forget(self._board.rows[number])

    def _stop_running(self) -> None:
        for row in self._board.running():
            _attempt(partial(self._trials.stop, row))
            self._trials.release(row)
            row.waiting = True


def _attempt(step: Callable[[], object]) -> None:
    """One step of an orderly end; the next ones must happen even if this one fails."""
    try:
        step()
    except Exception:  # Whatever a full disk or a lost database raises, the rest must end.
        return
