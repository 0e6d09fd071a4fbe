"""What is kept of the rows is what a search of all of them would find."""

from __future__ import annotations

import random

import pytest

from pipelines.objectives import OBJECTIVES
from pipelines.training.trial import Schedule
from search_spaces.registry import get_space
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.engines.base import TrialState

CHANGES = {
    "state": list(TrialState), "waiting": [False, True], "value": [None, 0.1, 0.2, 0.3],
    "duplicate_of": [None, None, 0], "breaks_limit": ["", "", "parameters 3k > 2k"],
}  # fmt: skip


def searched(board: Board) -> list[object]:
    """All that is asked of a board, by looking at every row."""
    rows = list(board.rows.values())
    left_out = [] if board.counts_untrained else [row for row in rows if row.is_untrained]
    tried = [row for row in rows if row.state is not TrialState.KILLED and row not in left_out]
    complete = [row for row in rows if row.value is not None and row.duplicate_of is None]
    key = board.objective.sort_key
    ranking = sorted(complete, key=lambda row: (key(row.value or 0.0), row.number))
    return [
        [row for row in rows if row.state is TrialState.RUNNING and not row.waiting],
        [row for row in rows if row.waiting],
        *([row for row in rows if row.state is state] for state in TrialState),
        ranking, ranking[0] if ranking else None,
        sum(row.state.is_end for row in rows), len(tried), sum(row.state.is_end for row in tried),
    ]  # fmt: skip


def kept(board: Board) -> list[object]:
    """The same as the board keeps it."""
    return [
        board.running(), board.rows.waiting(), *(board.in_state(state) for state in TrialState),
        board.ranking(), board.best(), board.num_ended(), board.num_proposed(), board.num_tried(),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_whatever_changes_in_rows_the_board_knows_it(seed):
    chance = random.Random(seed)
    objective = OBJECTIVES[chance.choice(["val_accuracy", "val_loss"])]
    board = Board("s", objective, 9, 1, None, counts_untrained=chance.random() < 0.3)
    for number in range(6):
        board.rows[number] = TrialRow(number, "t", {}, 0, Schedule(9), get_space("mlp"))
    for _ in range(40):
        name = chance.choice(list(CHANGES))
        setattr(board.rows[chance.choice(list(board.rows))], name, chance.choice(CHANGES[name]))
        assert kept(board) == searched(board)
    gone = board.rows.pop(3)
    gone.value, gone.state = 0.99, TrialState.COMPLETE
    old, board.rows[2] = board.rows[2], TrialRow(2, "t", {}, 0, Schedule(9), get_space("mlp"))
    old.state = TrialState.FAILED
    assert kept(board) == searched(board), "rows that are taken out or replaced tell nothing"
