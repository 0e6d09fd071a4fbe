"""What a person sees while a sweep runs: a live screen, or plain lines."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING

from search_spaces.space import DEFAULT_NAME
from sweeps.driver.status import Board, TrialRow
from sweeps.driver.views import QuietView
from sweeps.engines.base import TrialState
from sweeps.formatting import count, difference_text, duration, sparkline
from sweeps.reporting.console import say

if TYPE_CHECKING:
    from rich.console import RenderableType

AGAIN = "proposed again when the sweep is resumed"
"""What becomes of a trial that Ctrl-C has stopped."""
NUM_RECENT = 6
REDRAW_SECONDS = 0.5


class PlainView(QuietView):
    """One line per trial's start, epoch and end, for logs and pipes."""

    def started(self, board: Board, row: TrialRow, *, again: bool = False) -> None:
        """Says which trial starts, or goes on."""
        if again:
            say(f"{row.name} continues after epoch {row.epochs_text}{_on_node(row)}")
            return
        is_published = row.baseline not in (None, DEFAULT_NAME)
        what = "published baseline" if is_published else point_text(row)
        drawn = f" ({row.proposed_by})" if row.proposed_by and not is_published else ""
        say(f"{row.name}{drawn} started{_on_node(row)}: {what}")

    def retried(self, board: Board, row: TrialRow, reason: str) -> None:
        """Says what failed and that it is tried again."""
        say(f"{row.name} is tried again from its last checkpoint: {reason}")

    def reported(self, board: Board, row: TrialRow) -> None:
        """Says what an epoch reached."""
        epoch = f"epoch {row.epochs_text}/{row.schedule.end_epoch}"
        say(f"{row.name} {epoch}: {board.metric(row)} {row.last_value:.4f}")

    def ended(self, board: Board, row: TrialRow) -> None:
        """Says how a trial ended, and how the sweep stands."""
        say(f"{row.name} {end_text(board, row)}  [{progress_text(board)}]")


def _on_node(row: TrialRow) -> str:
    return f" on {row.node}" if row.node else ""


class LiveView(QuietView):
    """A screen that is redrawn in place, twice a second at most: drawing takes cores, too."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        # Refreshed by `update` alone: a thread of its own would take time from the trials.
        self._live = Live(console=Console(), auto_refresh=False, transient=True)
        self._live.start()
        self._drawn = 0.0

    def update(self, board: Board) -> None:
        """Redraws, where the last time is long enough ago."""
        if time.monotonic() - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = time.monotonic()
        self._live.update(live_screen(board), refresh=True)

    def close(self) -> None:
        """Clears the screen's own lines."""
        self._live.stop()


def end_text(board: Board, row: TrialRow) -> str:
    """How a trial ended, in a phrase."""
    took = duration(row.seconds)
    if row.duplicate_of is not None:
        return f"not trained: {row.reason}"
    if row.state is TrialState.PAUSED and row.curve:
        return f"paused at epoch {row.epochs_text}: {board.objective.metric} {row.last_value:.4f}"
    if row.state is TrialState.COMPLETE and not row.schedule.validates:
        return f"complete after epoch {row.epochs_text} in {took}"
    if row.value is not None:
        return f"{board.objective.metric} {row.value:.4f} at epoch {row.best_epoch:.3g} in {took}"
    if row.state is TrialState.KILLED:
        state, reason = "stopped", AGAIN
    else:
        state, reason = row.state.value.lower(), row.reason
    ranked = _rank_text(board, row) if row.state is TrialState.PRUNED else ""
    if row.reason.startswith(f"{state} "):  # Said once.
        return f"{state} after {took} {row.reason.removeprefix(f'{state} ')}{ranked}"
    return f"{state} after {took}: {reason}{ranked}"


def _rank_text(board: Board, row: TrialRow) -> str:
    """`; val_accuracy 0.9007, rank 9 of 12 there`: of all that were measured at its last step."""
    if not row.curve or math.isnan(row.last_value):
        return ""
    key = board.objective.sort_key
    there = sorted(
        key(other.curve[row.step])
        for other in board.rows.values()
        if other.duplicate_of is None and not math.isnan(other.curve.get(row.step, math.nan))
    )
    rank = there.index(key(row.last_value)) + 1
    value = f"; {board.metric(row)} {row.last_value:.4f}"
    return f"{value}, rank {rank} of {len(there)} there" if len(there) > 1 else value


def progress_text(board: Board, *, with_best: bool = True, with_plan: bool = True) -> str:
    """`5/16 done, 1 running, 0 failed, best 0.9912 (trial 3), about 4:10 min left`.

    Args:
        with_plan: whether to say until when new points are tried.
    """
    failed = len(board.in_state(TrialState.FAILED))
    paused = board.in_state(TrialState.PAUSED)
    of = f"/{board.num_trials}" if board.num_trials is not None else ""
    parts = [
        f"{board.num_tried() - failed}{of} done{_ends_text(board)}",
        f"{len(board.running())} running",
        *([f"{len(paused)} paused"] if paused else []),
        f"{failed} failed",
    ]
    if with_best and (best := best_text(board)):
        parts.append(best)
    left = board.seconds_left()
    if left is not None and board.running():
        parts.append(f"about {duration(left)} left")
    if with_plan and board.final_phase_from is not None:
        is_final = board.limited_seconds() >= board.final_phase_from
        until = f"new points until {duration(board.final_phase_from)}"
        parts.append("the best are trained in full" if is_final else until)
    return ", ".join(parts)


def _ends_text(board: Board) -> str:
    """` (2 complete, 7 pruned)`; empty where none was pruned."""
    pruned = [row for row in board.in_state(TrialState.PRUNED) if row.curve]
    complete = len(board.in_state(TrialState.COMPLETE))
    return f" ({complete} complete, {len(pruned)} pruned)" if pruned else ""


def best_text(board: Board) -> str:
    """`best 0.9912 (trial 3)`; before a trial is complete, how far it has come; empty for none."""
    row = board.leader()
    if row is None or not board.competes:
        return ""
    if row.value is not None:
        return f"best {row.value:.4f} ({row.name})"
    return f"best so far {row.last_value:.4f} ({row.name} at {part_text(row)})"


def point_text(row: TrialRow) -> str:
    """A trial's point by how it differs from the defaults or the nearest published model."""
    return difference_text(row.params, row.space.known_points)


def _epochs(waiting: tuple[str, int]) -> float:
    return float(waiting[0])


def nodes_text(board: Board) -> str:
    """`2 nodes; 1 trial moved, 31.0 s of training lost`."""
    moved = [row for row in board.rows.values() if row.num_moved]
    lost = duration(sum(row.lost_seconds for row in moved))
    text = f"; {count(len(moved), 'trial')} moved, {lost} of training lost" if moved else ""
    return f"{count(len(board.nodes), 'node')}{text}"


def part_text(row: TrialRow) -> str:
    """How much of its training a trial has: `epoch 1/8`."""
    return f"epoch {row.epochs_text}/{row.schedule.end_epoch}"


def live_screen(board: Board) -> RenderableType:
    """The whole screen: progress, best so far, running trials with their curves, latest ends."""
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    metric = board.objective.metric
    bar = Table.grid()
    total, done = board.progress()
    bar.add_row(ProgressBar(total=total, completed=done, width=60))
    lines: list[RenderableType] = [
        bar,
        Text(
            f"{progress_text(board, with_best=False)}, elapsed {duration(board.elapsed_seconds())}"
        ),
    ]
    waiting = Counter(row.epochs_text for row in board.in_state(TrialState.PAUSED))
    if waiting:
        ordered = sorted(waiting.items(), key=_epochs)
        at = ", ".join(f"{number} at epoch {epochs}" for epochs, number in ordered)
        lines.append(Text(f"waiting at rungs: {at}"))
    if board.nodes:
        lines.append(Text(nodes_text(board)))
    if best := best_text(board):
        leader = board.leader()
        assert leader is not None
        lines.append(Text(best, style="bold green"))
        lines.append(Text(point_text(leader), style="green"))
    on_nodes = any(row.node for row in board.running())
    running = Table(
        "running", "epoch", metric, "curve", "time", *(["node"] if on_nodes else []),
        box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for row in board.running():
        now = f"{row.last_value:.4f}" if row.curve else "training"
        passed = duration(board.clock() - row.started)
        running.add_row(
            row.name,
            f"{row.epochs_text}/{row.schedule.end_epoch}",
            now,
            sparkline(row.curve.values()),
            passed,
            *([row.node] if on_nodes else []),
        )
    lines.append(running)
    recent = Table("ended", "", "curve", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in board.ended()[-NUM_RECENT:]:
        style = "red" if row.state is TrialState.FAILED else ""
        recent.add_row(
            row.name, Text(end_text(board, row), style=style), sparkline(row.curve.values())
        )
    if recent.row_count:
        lines.append(recent)
    slots = count(board.num_slots, "slot")
    return Panel(
        Group(*lines), title=f"{board.title} on {slots}", title_align="left", padding=(0, 1)
    )
