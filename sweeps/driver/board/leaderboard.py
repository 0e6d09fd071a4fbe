"""The whole table of a sweep by columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sweeps.driver.board.board import Board
from sweeps.formatting import params_text


def leaderboard_columns(board: Board) -> dict[str, list[object]]:
    """The whole table by columns, best first, then the trials without a value."""
    ranking = board.ranking()
    contenders = board.contenders()
    rows = contenders + [row for row in board.rows.values() if row not in contenders]
    metric = board.objective.metric
    return {
        "rank": [k + 1 if k < len(ranking) else None for k in range(len(rows))],
        "trial": [row.number for row in rows],
        "baseline": [row.baseline or "" for row in rows],
        "state": [row.state.value for row in rows],
        metric: [row.value for row in rows],
        f"last_{metric}": [row.last_value if row.curve else None for row in rows],
        "best_epoch": [row.best_epoch for row in rows],
        "num_parameters": [row.num_parameters for row in rows],
        "seconds": [round(row.seconds, 1) for row in rows],
        "params": [params_text(row.params) for row in rows],
        "num_epochs": [row.epochs for row in rows],
        "audit_value": [board.audits.get(row.number) for row in rows],
        "reason": [row.reason for row in rows],
        **param_columns([row.params for row in rows]),
    }


def param_columns(points: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    """A column `params_NAME` for each parameter, as exports have it; None where it is inactive."""
    names = dict.fromkeys(name for point in points for name in point)
    return {f"params_{name}": [point.get(name) for point in points] for name in names}
