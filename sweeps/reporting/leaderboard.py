"""The end of a sweep: its table, for the terminal and for MLflow, and the commands that follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.space import DEFAULT_NAME
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.engines.base import TrialState
from sweeps.formatting import count, duration, in_work_dir, param_text
from sweeps.reporting.console import table_console
from sweeps.reporting.progress import best_text, point_text
from sweeps.reporting.trial_end import AGAIN, why_stopped
from sweeps.settings import SweepSettings
from tracking.addresses import redacted
from tracking.stores import is_server, public_address, resolve_uri
from tracking.views.links import charts_link, table_link, trials_view

if TYPE_CHECKING:
    from rich.console import Console

    from tracking.runs.tracker import MlflowTracker

NUM_SHOWN = 10
MIN_WIDTH = 116
"""Columns from which on optimizer, learning rate and batch size have room in the table."""
NUM_AHEAD = 3
"""Rows of trials that were better than the best one after as much training."""


def print_summary(board: Board, reason: str) -> None:
    """The leaderboard, what failed, the best params and the total compute."""
    from rich import box
    from rich.table import Column, Table

    console = table_console(heeds_columns=True)
    ranking = board.ranking()
    metric = board.objective.metric
    shown = ranking[:NUM_SHOWN]
    fitting = ("optimizer", "rate", "batch")
    # Of what people compare first only what all have, and where there is room.
    is_wide = console.width >= MIN_WIDTH and all(all(_fitting(row)) for row in shown)
    table = Table(
        "#", Column("  trial", overflow="fold"), metric, "best epoch", "parameters", "time",
        *(fitting if is_wide else ()),
        box=box.SIMPLE_HEAD, title=f"{board.title}: {reason}", title_justify="left",
    )  # fmt: skip
    for rank, row in enumerate(shown, start=1):
        table.add_row(
            str(rank),
            f"* {row.name}" if row.baseline else f"  {row.name}",
            f"{row.value:.4f}",
            f"{row.best_epoch:.3g}/{row.schedule.num_epochs}",
            f"{row.num_parameters:,}",
            duration(row.seconds),
            *(_fitting(row) if is_wide else ()),
        )
    ahead = board.ahead()
    for row in ahead[:NUM_AHEAD]:
        table.add_row(
            "-",
            f"  {row.name}",
            f"{board.reached(row, row.step):.4f}",
            f"{row.epochs_text}/{row.schedule.num_epochs}",
            f"{row.num_parameters:,}" if row.num_parameters else "",
            duration(row.seconds),
            *(_fitting(row) if is_wide else ()),
        )
    if ranking:
        console.print(table)
        notes = [f"{len(ranking)} complete"]
        if len(ranking) > NUM_SHOWN:
            notes[0] += f", the best {NUM_SHOWN} are shown"
        if any(row.baseline for row in shown):
            ours = any(row.baseline == DEFAULT_NAME for row in shown)
            notes.append("* the space's defaults" if ours else "* published baseline")
        console.print("; ".join(notes), highlight=False)
        if ahead:
            of = "" if len(ahead) <= NUM_AHEAD else f" (the first {NUM_AHEAD} of {len(ahead)})"
            text = f"- ahead of the best after as many epochs, but not trained to the end{of}"
            console.print(text, highlight=False)
    else:
        console.print(f"{board.title}: {reason}; no trial completed.", highlight=False)
        if so_far := best_text(board):
            console.print(f"{so_far[0].upper()}{so_far[1:]}.", highlight=False)
    for state in (TrialState.PRUNED, TrialState.PAUSED, TrialState.FAILED, TrialState.KILLED):
        _print_lost(console, board, board.in_state(state), state)
    repeated = [row for row in board.ended() if row.duplicate_of is not None]
    _print_lost(console, board, repeated, None)
    _print_audit(console, board)
    best = board.best()
    if best is not None:
        console.print(
            f"\nBest: {best.name}, {metric} {best.value:.4f}", style="bold", highlight=False
        )
        console.print(point_text(best), highlight=False)
    console.print(
        f"\nTotal compute {duration(board.compute_seconds())} in "
        f"{duration(board.elapsed_seconds())} of wall time.",
        highlight=False,
    )


def _print_audit(console: Console, board: Board) -> None:
    """How many of the audited pruned trials would have been among the best."""
    for number, reason in board.failed_audits.items():
        console.print(f"Audit: trial {number} could not be trained to the end: {reason}")
    if not board.audits:
        return
    top = board.audit_top()
    bar = board.ranking()[top - 1].value if top else None
    missed = [
        number
        for number, value in board.audits.items()
        if bar is None or board.objective.beats(value, bar)
    ]
    names = f" ({', '.join(map(str, missed))})" if missed else ""
    text = (
        f"Audit: {len(missed)} of {count(len(board.audits), 'pruned trial')} trained to the end "
        f"would have been among the best {max(top, 1)}{names}."
    )
    console.print(text, highlight=False)


def _print_lost(
    console: Console, board: Board, rows: list[TrialRow], state: TrialState | None
) -> None:
    causes: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if state is TrialState.PRUNED and row.duplicate_of is not None:
            continue
        what, cause = "not trained" if state is None else state.value, row.reason
        if state is TrialState.KILLED:
            what, cause = "stopped", "proposed again since" if row.past else AGAIN
        elif state is TrialState.PRUNED and row.curve:
            what, cause = f"stopped at epoch {row.epochs_text}", why_stopped(board, row)
        causes.setdefault((what, cause), []).append(row.number)
    for (what, cause), numbers in causes.items():
        names = ", ".join(map(str, numbers))
        text = f"{count(len(numbers), 'trial')} {what} ({names}): {cause}"
        console.print(text, style="red" if state is TrialState.FAILED else "", highlight=False)


def _fitting(row: TrialRow) -> tuple[str, str, str]:
    """What people compare first: optimizer, learning rate, batch size."""
    params = row.params
    rate = params.get("learning_rate", params.get("sgd_learning_rate", ""))
    return str(params.get("optimizer", "")), param_text(rate), str(params.get("batch_size", ""))


def print_next_steps(
    settings: SweepSettings, board: Board, tracker: MlflowTracker | None, *, unfinished: bool
) -> None:
    """Prints where the sweep is seen in MLflow, and at most three commands that come next.

    Nothing is printed where nothing can follow.

    Args:
        tracker: the store; None where nothing was sent.
        unfinished: whether the sweep can be resumed.
    """
    best = board.best()
    if not unfinished and best is None:
        return
    uri = resolve_uri(settings.tracking_uri)
    where = in_work_dir(settings.work_dir)
    name = f"{settings.name}{where}"
    steps = []
    if unfinished:
        steps.append((f"run --resume --name {name}", "continue"))
    if tracker is None:
        steps.append((f"sync {name}", f"send it all to {redacted(uri)}"))
    elif is_server(uri):
        address, place = public_address(uri), (tracker.experiment_id, trials_view(tracker.uid))
        print(f"\nIn MLflow:\n  table   {table_link(address, *place)}")
        print(f"  charts  {charts_link(address, *place)}")
    elif best is not None:
        steps.append((f"ui {name}", "its table and charts in MLflow"))
    if tracker is not None and best is not None and not (unfinished or settings.num_finalists):
        steps.append((f"finalize {name}", "the best of them on fresh seeds"))
        if tracker.model_id(best.number):
            steps.append((f"promote {name}", "register the best model"))
    if not steps:
        return
    print("\nNext:")
    width = max(len(command) for command, _ in steps)
    for command, why in steps:
        print(f"  keras-sweeps {command:<{width}}  # {why}")
