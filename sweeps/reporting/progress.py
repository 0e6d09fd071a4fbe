"""What a person sees while a sweep runs: a live screen, or plain lines."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from search_spaces.space import DEFAULT_NAME
from sweeps.driver.board.board import Board, Progress
from sweeps.driver.board.row import TrialRow
from sweeps.driver.board.views import QuietView
from sweeps.engines.base import TrialState
from sweeps.formatting import count, difference_text, duration, sparkline
from sweeps.reporting.console import console, say
from sweeps.reporting.trial_end import end_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

NUM_RECENT = 6
NUM_RUNNING = 8
NUM_BARS = 12
"""Of a curve's bars the last ones, so that its column stays narrow."""
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
        self._console = console()
        self._live, self._size = self._started(), self._console.size
        self._drawn = 0.0

    def _started(self) -> Live:
        from rich.live import Live

        # Refreshed by `update` alone: a thread of its own would take time from the trials.
        live = Live(console=self._console, auto_refresh=False, transient=True)
        live.start()
        return live

    def update(self, board: Board) -> None:
        """Redraws, where the last time is long enough ago."""
        if time.monotonic() - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = time.monotonic()
        if self._console.size != self._size:
            # A terminal that was resized has wrapped the old frame to lines that nobody can count.
            self._live.stop()
            self._console.clear()
            self._live, self._size = self._started(), self._console.size
        self._live.update(fitting_screen(board, self._console), refresh=True)

    def close(self) -> None:
        """Clears the screen's own lines."""
        self._live.stop()


def can_redraw() -> bool:
    """Whether standard output is a terminal whose lines may be drawn anew, in colours."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout is not None and sys.stdout.isatty() and not is_plain


def progress_text(board: Board, *, with_best: bool = True, with_plan: bool = True) -> str:
    """`5 of 16 trials done (2 trained, 3 pruned), 1 running, 0 failed, about 4:10 min left`.

    Args:
        with_plan: whether to say until when new points are tried.
    """
    done = board.progress()
    failed, paused = board.in_state(TrialState.FAILED), board.in_state(TrialState.PAUSED)
    parts = [
        f"{_done_text(board, done)}{_ends_text(board)}",
        f"{len(board.running())} running",
        *([f"{len(paused)} paused"] if paused else []),
        f"{len(failed)} failed",
    ]
    if with_best and (best := best_text(board)):
        parts.append(best)
    left = board.seconds_left()
    if left is not None and board.running():
        about = "" if done.unit == "seconds" else "about "
        parts.append(f"{about}{duration(left)} left")
    if with_plan and board.final_phase_from is not None:
        is_final = board.limited_seconds() >= board.final_phase_from
        until = f"new points until {duration(board.final_phase_from)}"
        parts.append("the best are trained in full" if is_final else until)
    return ", ".join(parts)


def _done_text(board: Board, done: Progress) -> str:
    """`3:07 of 15:00 min, 9 done`, `9 of 24 trials done`: first the unit of what ends the sweep."""
    num_done = board.num_tried() - len(board.in_state(TrialState.FAILED))
    if done.unit == "trials" and done.total:
        return f"{num_done} of {done.total:.0f} trials done"
    tried = f"{num_done} done"
    if not done.total:
        return tried
    if done.unit == "seconds":
        passed, total = duration(done.done), duration(done.total)
        unit = total[total.index(" ") :]
        return f"{passed.removesuffix(unit)} of {total}, {tried}"
    return f"{done.done:.3g} of {done.total:.0f} epochs, {tried}"


def _ends_text(board: Board) -> str:
    """` (2 trained, 7 pruned)`; empty before any."""
    pruned = sum(bool(row.curve) for row in board.in_state(TrialState.PRUNED))
    complete = len([row for row in board.in_state(TrialState.COMPLETE) if not row.is_untrained])
    parts = [f"{complete} trained", *([f"{pruned} pruned"] if pruned else [])]
    return f" ({', '.join(parts)})" if complete or pruned else ""


def rungs_text(board: Board) -> str:
    """`24 trials came to epoch 0.33 (13 wait there), 9 to 1, 3 to 8`; empty without rungs."""
    parts = []
    for epoch, (reached, waiting) in board.rung_counts().items():
        wait = f" ({waiting} waiting)" if waiting else ""
        parts.append(f"{reached} at epoch {epoch}{wait}")
    return f"rungs: {', '.join(parts)}" if parts else ""


def best_text(board: Board, *, with_time: bool = False) -> str:
    """`best 0.9912 (trial 3)`; before a trial is complete, how far it has come; empty for none.

    Args:
        with_time: whether to say since when, where that is known.
    """
    row = board.leader()
    if row is None or not board.competes:
        return ""
    since = ""
    if with_time and row.measured_at is not None:
        since = f", {duration(max(0.0, board.elapsed_seconds() - row.measured_at))} ago"
    if row.value is not None:
        return f"best {row.value:.4f} ({row.name}{since})"
    return f"best so far {row.last_value:.4f} ({row.name} at {part_text(row)}{since})"


def point_text(row: TrialRow) -> str:
    """A trial's point by how it differs from the defaults or the nearest published model."""
    return difference_text(row.params, row.space.known_points)


def nodes_text(board: Board) -> str:
    """`2 nodes; 1 trial moved, 31.0 s of training lost`."""
    moved = [row for row in board.rows.values() if row.num_moved]
    lost = duration(sum(row.lost_seconds for row in moved))
    text = f"; {count(len(moved), 'trial')} moved, {lost} of training lost" if moved else ""
    return f"{count(len(board.nodes), 'node')}{text}"


def part_text(row: TrialRow) -> str:
    """How much of its training a trial has: `epoch 1/8`."""
    return f"epoch {row.epochs_text}/{row.schedule.end_epoch}"


def fitting_screen(board: Board, console: Console) -> RenderableType:
    """As much of the screen as the terminal has lines for: what is higher could not be redrawn."""
    sizes = [(NUM_RUNNING, ended) for ended in range(NUM_RECENT, -1, -1)]
    sizes += [(running, 0) for running in range(NUM_RUNNING - 1, -1, -1)]
    for running, ended in sizes:
        screen = live_screen(board, num_running=running, num_ended=ended)
        if len(console.render_lines(screen, pad=False)) <= console.height:
            break
    return screen


def live_screen(
    board: Board, *, num_running: int = NUM_RUNNING, num_ended: int = NUM_RECENT
) -> RenderableType:
    """The whole screen: progress, best so far, running trials with their curves, latest ends.

    Args:
        num_running, num_ended: at most so many trials are shown.
    """
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    done = board.progress()
    bar = Table.grid()
    bar.add_row(ProgressBar(total=done.total or 1.0, completed=done.done, width=60))
    stands = progress_text(board, with_best=False)
    if done.unit != "seconds":
        stands += f", elapsed {duration(board.elapsed_seconds())}"
    lines: list[RenderableType] = [bar, Text(stands)]
    if rungs := rungs_text(board):
        lines.append(Text(rungs))
    if board.nodes:
        lines.append(Text(nodes_text(board)))
    if best := best_text(board, with_time=True):
        leader = board.leader()
        assert leader is not None
        lines.append(Text(best, style="bold green"))
        lines.append(Text(point_text(leader), style="green"))
    on_nodes = any(row.node for row in board.running())
    running = Table(
        "running", "epoch", board.objective.metric, "curve", "time",
        *(["node"] if on_nodes else []), box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    points: list[RenderableType] = []
    for row in board.running()[:num_running]:
        now = f"{row.last_value:.4f}" if row.curve else "training"
        passed = duration(board.clock() - row.started)
        epochs = f"{row.epochs_text}/{row.schedule.end_epoch}"
        curve = sparkline(list(row.curve.values())[-NUM_BARS:])
        node = [row.node] if on_nodes else []
        running.add_row(row.name, epochs, now, curve, passed, *node)
        points.append(Text(f"{row.name}: {point_text(row)}"))
    lines += [running, *points] if points else []
    if (more := len(board.running()) - num_running) > 0:
        lines.append(Text(f"and {count(more, 'more trial')} running"))
    recent = Table("ended", "", "curve", box=box.SIMPLE_HEAD, pad_edge=False)
    ended = sorted(board.ended(), key=lambda row: -1 if row.end_order is None else row.end_order)
    for row in ended[len(ended) - min(num_ended, len(ended)) :]:
        style = "red" if row.state is TrialState.FAILED else ""
        curve = sparkline(list(row.curve.values())[-NUM_BARS:])
        recent.add_row(row.name, Text(end_text(board, row), style=style), curve)
    if recent.row_count:
        lines.append(recent)
    slots = count(board.num_slots, "slot")
    return Panel(
        Group(*lines), title=f"{board.title} on {slots}", title_align="left", padding=(0, 1)
    )
