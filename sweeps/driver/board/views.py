"""Views: what one is, and those that no person sees: nothing, several, the log, a program's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.board.trial import Trial, trial_of_row
from sweeps.engines.base import TrialState
from sweeps.formatting import params_text
from sweeps.state.log import sweep_log

TrialCallback = Callable[[Trial], object]


class View(Protocol):
    """Receives every change of a sweep."""

    def started(self, board: Board, row: TrialRow, *, again: bool = False) -> None:
        """A trial started, or goes on."""

    def retried(self, board: Board, row: TrialRow, reason: str) -> None:
        """A trial failed and will be tried again."""

    def reported(self, board: Board, row: TrialRow) -> None:
        """A trial reported an epoch."""

    def ended(self, board: Board, row: TrialRow) -> None:
        """A trial ended, or paused."""

    def update(self, board: Board) -> None:
        """Time has passed."""

    def close(self) -> None:
        """The sweep has ended."""


class CallbackError(RuntimeError):
    """A function of the user's raised; its exception is the cause."""


class QuietView:
    """Shows nothing."""

    def started(self, board: Board, row: TrialRow, *, again: bool = False) -> None:
        """Says nothing."""

    def retried(self, board: Board, row: TrialRow, reason: str) -> None:
        """Says nothing."""

    def reported(self, board: Board, row: TrialRow) -> None:
        """Says nothing."""

    def ended(self, board: Board, row: TrialRow) -> None:
        """Says nothing."""

    def update(self, board: Board) -> None:
        """Says nothing."""

    def close(self) -> None:
        """Does nothing."""


@dataclass(frozen=True)
class Views(QuietView):
    """Several views as one, told in their order."""

    views: Sequence[View]

    def started(self, board: Board, row: TrialRow, *, again: bool = False) -> None:
        """A trial started, or goes on."""
        for view in self.views:
            view.started(board, row, again=again)

    def retried(self, board: Board, row: TrialRow, reason: str) -> None:
        """A trial failed and will be tried again."""
        for view in self.views:
            view.retried(board, row, reason)

    def reported(self, board: Board, row: TrialRow) -> None:
        """A trial reported an epoch."""
        for view in self.views:
            view.reported(board, row)

    def ended(self, board: Board, row: TrialRow) -> None:
        """A trial ended, or paused."""
        for view in self.views:
            view.ended(board, row)

    def update(self, board: Board) -> None:
        """Time has passed."""
        for view in self.views:
            view.update(board)

    def close(self) -> None:
        """The sweep has ended."""
        for view in self.views:
            view.close()


class LogView(QuietView):
    """Writes each trial's begin, pause, promotion, retry and end into the sweep's log."""

    def started(self, board: Board, row: TrialRow, *, again: bool = False) -> None:
        """A trial started, or goes on."""
        if again:
            sweep_log.info(
                "%s continues after epoch %s, %s", row.name, row.epochs_text, _place(row)
            )
        else:
            drawn = f" ({row.proposed_by})" if row.proposed_by else ""
            point = params_text(row.params)
            sweep_log.info("%s%s starts, %s: %s", row.name, drawn, _place(row), point)

    def retried(self, board: Board, row: TrialRow, reason: str) -> None:
        """A trial failed and will be tried again."""
        sweep_log.warning(
            "%s is tried again from epoch %s (try %d): %s",
            row.name, row.epochs_text, row.num_tries, reason,
        )  # fmt: skip

    def ended(self, board: Board, row: TrialRow) -> None:
        """A trial ended, or paused."""
        failed = row.state is TrialState.FAILED
        write = sweep_log.error if failed else sweep_log.info
        metric = board.metric(row)
        reached = row.value if row.value is not None else row.last_value
        value = f", {metric} {reached:.6g}" if row.curve or row.value is not None else ""
        reason = f": {row.reason}" if row.reason else ""
        write(
            "%s %s at epoch %s after %.1f s%s%s",
            row.name, row.state.value, row.epochs_text, row.seconds, value, reason,
        )  # fmt: skip
        if failed and row.details:
            sweep_log.error("%s", row.details.rstrip())


def _place(row: TrialRow) -> str:
    return f"slot {row.slot}" + (f" on node {row.node}" if row.node else "")


@dataclass(frozen=True)
class TrialCallbacks(QuietView):
    """Calls functions of the user's with each trial that ends, in the driver's process.

    Raises:
        CallbackError: One of them raised; the sweep breaks off and can be resumed.
    """

    functions: Sequence[TrialCallback]

    def ended(self, board: Board, row: TrialRow) -> None:
        """A trial ended, or paused."""
        if not row.state.is_end:
            return
        trial = trial_of_row(row)
        for function in self.functions:
            try:
                function(trial)
            except Exception as error:  # Whatever it raises, the sweep must end in order.
                name = type(error).__name__
                raise CallbackError(
                    f"on_trial_end raised {name} after trial {trial.number}: {error}"
                ) from error
