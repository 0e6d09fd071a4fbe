"""How a trial ended, in a phrase: its value and rank, and why it did not go on."""

from __future__ import annotations

import math

from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.ends import AHEAD, OUTRANKED, WAITED
from sweeps.engines.base import TrialState
from sweeps.formatting import duration

AGAIN = "proposed again when the sweep is resumed"
"""What becomes of a trial that Ctrl-C has stopped."""
_PARTS = {2: "half", 3: "third", 4: "quarter", 5: "fifth"}


def end_text(board: Board, row: TrialRow) -> str:
    """How a trial ended, or that it waits."""
    took = duration(row.seconds)
    if row.duplicate_of is not None:
        return f"not trained: {row.reason}"
    if row.value is not None:
        return f"{board.objective.metric} {row.value:.4f} at epoch {row.best_epoch:.3g} in {took}"
    if row.state is TrialState.COMPLETE:
        return f"complete after epoch {row.epochs_text} in {took}"
    if row.state in (TrialState.PAUSED, TrialState.PRUNED) and not math.isnan(row.last_value):
        reached = f"at epoch {row.epochs_text}: {row.last_value:.4f}{_rank_text(board, row)}"
        waits = row.state is TrialState.PAUSED
        return f"paused {reached}" if waits else f"stopped {reached}; {why_stopped(board, row)}"
    if row.state in (TrialState.KILLED, TrialState.PRUNED):
        reason = AGAIN if row.state is TrialState.KILLED else row.reason
        why = reason.removeprefix("stopped ")  # Said once.
        return f"stopped after {took}{': ' if why == reason else ' '}{why}"
    return f"{row.state.value.lower()} after {took}: {row.reason}"


def why_stopped(board: Board, row: TrialRow) -> str:
    """Why a trial was stopped, beside the epoch at which it was."""
    at, reason = row.epochs_text, row.reason
    short = f"pruned at epoch {at}"
    if reason == WAITED.format(at) and board.rungs and row.step not in board.rungs:
        return "made way for a better trial, and the sweep ended before it went on"
    if reason in (short, OUTRANKED.format(at), WAITED.format(at)):
        part = _PARTS.get(board.reduction_factor or 0, f"1/{board.reduction_factor}")
        return f"the best {part} goes on" if board.reduction_factor else "others are better there"
    if reason == AHEAD.format(at):
        return "ahead of the winner there, but the sweep ended"
    return reason.removeprefix(f"{short}: ").removeprefix("stopped ")


def _rank_text(board: Board, row: TrialRow) -> str:
    """`, rank 9 of 12`: among all that were measured at its last step."""
    key = board.objective.sort_key
    there = sorted(
        key(other.curve[row.step])
        for other in board.rows.values()
        if other.duplicate_of is None and not math.isnan(other.curve.get(row.step, math.nan))
    )
    if len(there) < 2 or math.isnan(row.last_value):
        return ""
    return f", rank {there.index(key(row.last_value)) + 1} of {len(there)}"
