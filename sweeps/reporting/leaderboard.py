"""The table at the end of a sweep, for the terminal and for MLflow."""

from __future__ import annotations

import os
import shutil
import sys

from search_spaces.space import DEFAULT_NAME
from sweeps.driver.status import Board, TrialRow
from sweeps.engines.base import TrialState
from sweeps.formatting import count, duration, param_text, params_text

NUM_SHOWN = 10
PLAIN_WIDTH = 120


def print_summary(board: Board, reason: str) -> None:
    """The leaderboard, what failed, the best params and the total compute."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=_width(), markup=False)
    ranking = board.ranking()
    metric = board.objective.metric
    table = Table(
        "#", "trial", metric, "best epoch", "parameters", "time", "optimizer", "rate", "batch",
        box=box.SIMPLE_HEAD, title=f"{board.title}: {reason}", title_justify="left",
    )  # fmt: skip
    for rank, row in enumerate(ranking[:NUM_SHOWN], start=1):
        table.add_row(
            str(rank),
            f"* {row.name}" if row.baseline else f"  {row.name}",
            f"{row.value:.4f}",
            f"{row.best_epoch}/{row.schedule.num_epochs}",
            f"{row.num_parameters:,}",
            duration(row.seconds),
            *_fitting(row),
        )
    if ranking:
        console.print(table)
        notes = [f"{len(ranking)} complete"]
        if len(ranking) > NUM_SHOWN:
            notes[0] += f", the best {NUM_SHOWN} are shown"
        if any(row.baseline for row in ranking[:NUM_SHOWN]):
            ours = any(row.baseline == DEFAULT_NAME for row in ranking[:NUM_SHOWN])
            notes.append("* the space's defaults" if ours else "* published baseline")
        console.print("; ".join(notes), highlight=False)
    else:
        console.print(f"{board.title}: {reason}; no trial completed.", highlight=False)
    for state in (TrialState.PRUNED, TrialState.PAUSED, TrialState.FAILED, TrialState.KILLED):
        _print_lost(console, board.in_state(state), state)
    _print_lost(console, [row for row in board.ended() if row.duplicate_of is not None], None)
    _print_audit(console, board)
    best = board.best()
    if best is not None:
        console.print(f"\nBest: {best.name}, {metric} {best.value:.4f}", style="bold")
        console.print(params_text(best.params), highlight=False)
    console.print(
        f"\nTotal compute {duration(board.compute_seconds())} in "
        f"{duration(board.elapsed_seconds())} of wall time.",
        highlight=False,
    )


def _print_audit(console: object, board: Board) -> None:
    """How many of the audited pruned trials would have been among the best."""
    for number, reason in board.failed_audits.items():
        console.print(f"Audit: trial {number} could not be trained to the end: {reason}")  # type: ignore[attr-defined]
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
    console.print(text, highlight=False)  # type: ignore[attr-defined]


def _print_lost(console: object, rows: list[TrialRow], state: TrialState | None) -> None:
    causes: dict[str, list[int]] = {}
    for row in rows:
        if state is TrialState.PRUNED and row.duplicate_of is not None:
            continue
        causes.setdefault(row.reason, []).append(row.number)
    for cause, numbers in causes.items():
        names = ", ".join(map(str, numbers))
        what = "not trained" if state is None else state.value
        text = f"{count(len(numbers), 'trial')} {what} ({names}): {cause}"
        console.print(text, style="red" if state is TrialState.FAILED else "", highlight=False)  # type: ignore[attr-defined]


def _fitting(row: TrialRow) -> tuple[str, str, str]:
    """What people compare first: optimizer, learning rate, batch size."""
    params = row.params
    rate = params.get("learning_rate", params.get("sgd_learning_rate", ""))
    return str(params.get("optimizer", "")), param_text(rate), str(params.get("batch_size", ""))


def _width() -> int:
    if sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() and int(columns) > 0 else PLAIN_WIDTH
