"""What a notebook shows while a sweep runs: a display that is updated and a few lines that last."""

from __future__ import annotations

import time
from typing import Any

from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.board.views import QuietView
from sweeps.engines.base import TrialState
from sweeps.formatting import duration
from sweeps.reporting.console import say
from sweeps.reporting.progress import part_text, progress_text
from sweeps.reporting.trial_end import end_text

REDRAW_SECONDS = 1.0
SILENT_SECONDS = 60.0
"""After so long without a line one says how the sweep stands."""
BAR_CELLS = 30


class BriefView(QuietView):
    """A line for each trial that completes or fails, and one a minute without any."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def retried(self, board: Board, row: TrialRow, reason: str) -> None:
        """Says what failed and that it is tried again."""
        self._say(f"{row.name} is tried again from its last checkpoint: {reason}")

    def ended(self, board: Board, row: TrialRow) -> None:
        """Says how a trial ended, and how the sweep stands."""
        if is_lasting(row):
            self._say(
                f"{row.name} {end_text(board, row)}  [{progress_text(board, with_plan=False)}]"
            )

    def update(self, board: Board) -> None:
        """Says how the sweep stands, where nothing was said for long."""
        if time.monotonic() - self._said >= SILENT_SECONDS and board.running():
            self._say(f"{running_text(board)}  [{progress_text(board)}]")

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        say(text)


class NotebookView(QuietView):
    """A display of the kernel that is updated in place, and a line for each of those trials.

    It is plain text, which every front end shows, and which a stored notebook keeps as it ended.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._board: Board | None = None
        self._drawn, self._text = 0.0, ""

    def retried(self, board: Board, row: TrialRow, reason: str) -> None:
        """Says what failed and that it is tried again."""
        self._draw(board)  # Above the first line.
        say(f"{row.name} is tried again from its last checkpoint: {reason}")

    def ended(self, board: Board, row: TrialRow) -> None:
        """Says how a trial ended, and redraws."""
        self._draw(board)
        if is_lasting(row):
            say(f"{row.name} {end_text(board, row)}")

    def update(self, board: Board) -> None:
        """Redraws, where the last time is long enough ago."""
        if time.monotonic() - self._drawn >= REDRAW_SECONDS:
            self._draw(board)

    def close(self) -> None:
        """Leaves how the sweep ended."""
        if self._board is not None:
            self._draw(self._board)

    def _draw(self, board: Board) -> None:
        from IPython.display import display

        self._board, self._drawn = board, time.monotonic()
        text = display_text(board)
        if text == self._text:
            return
        self._text = text
        if self._handle is None:
            self._handle = display({"text/plain": text}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update({"text/plain": text}, raw=True)


def is_lasting(row: TrialRow) -> bool:
    """Whether a trial's end is worth a line in a cell: most are pruned or wait, and are counted."""
    return row.state in (TrialState.COMPLETE, TrialState.FAILED) and row.duplicate_of is None


def running_text(board: Board) -> str:
    """`trial 3 epoch 2/8: 0.9731, trial 4 epoch 0/8`."""
    parts = []
    for row in board.running():
        value = f": {row.last_value:.4f}" if row.curve else ""
        parts.append(f"{row.name} epoch {row.epochs_text}/{row.schedule.end_epoch}{value}")
    return ", ".join(parts)


def display_text(board: Board) -> str:
    """A bar, how the sweep stands, the best trial, and what runs."""
    done = board.progress()
    filled = round(BAR_CELLS * done.share) if done.total else BAR_CELLS
    bar = "█" * filled + "░" * (BAR_CELLS - filled)
    running = bool(board.running())
    stands = progress_text(board, with_best=False, with_plan=running)
    elapsed = "" if done.unit == "seconds" else f", elapsed {duration(board.elapsed_seconds())}"
    lines = [f"{bar}  {stands}{elapsed}"]
    leader = board.leader()
    if leader is not None and board.competes:
        part = "" if leader.value is not None else f" at {part_text(leader)}"
        value = leader.last_value if leader.value is None else leader.value
        lines.append(f"best: {leader.name}{part}, {board.objective.metric} {value:.4f}")
    if running:
        lines.append(f"running: {running_text(board)}")
    return "\n".join(lines)
