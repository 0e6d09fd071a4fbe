"""What hears of every change of a sweep, to show it; the command line brings one."""

from __future__ import annotations

from typing import Protocol

from sweeps.driver.status import Board, TrialRow


class View(Protocol):
    """Hears of every change of a sweep."""

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
