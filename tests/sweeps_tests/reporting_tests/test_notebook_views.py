"""What a notebook shows: few lines, one display, and tables as plain text."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pipelines.objectives import OBJECTIVES
from pipelines.training.trial import Schedule
from search_spaces.errors import InputError
from search_spaces.registry import get_space
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.engines.base import TrialState
from sweeps.reporting import jupyter, notebook
from sweeps.reporting.leaderboard import print_summary
from sweeps.reporting.notebook import BriefView, NotebookView, display_text
from sweeps.reporting.progress import LiveView, PlainView
from sweeps.reporting.views import make_view


class FakeFrontEnd:
    """Displays as a front end has them: the latest content of each, and how often it changed."""

    def __init__(self) -> None:
        self.contents: list[str] = []
        self.num_updates = 0

    def display(self, data, *, raw, display_id):
        assert raw and display_id
        self.contents.append(data["text/plain"])
        return SimpleNamespace(update=self.update)

    def update(self, data, *, raw):
        self.contents[-1] = data["text/plain"]
        self.num_updates += 1


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(notebook.time, "monotonic", lambda: now.seconds)
    return now


@pytest.fixture
def board(clock):
    board = Board("mine", OBJECTIVES["val_accuracy"], 5, 2, 900.0, clock=lambda: clock.seconds)
    board.final_phase_from = 700.0
    fixed = {}, 1, Schedule(8), get_space("mlp")
    rows = [
        TrialRow(0, "trial 0", *fixed, state=TrialState.COMPLETE, value=0.95, best_epoch=7.0,
                 curve={8: 0.95}, seconds=12.0, num_parameters=9),
        TrialRow(1, "trial 1", *fixed, state=TrialState.PRUNED, curve={2: 0.5}, seconds=3.0,
                 reason="pruned at epoch 2"),
        TrialRow(2, "trial 2", *fixed, state=TrialState.FAILED, reason="ValueError: no",
                 seconds=3.0),
        TrialRow(3, "trial 3", *fixed, curve={3: 0.875}, started=1000.0),
        TrialRow(4, "trial 4", *fixed, started=1000.0),
    ]  # fmt: skip
    board.rows.update((row.number, row) for row in rows)
    return board


@pytest.fixture
def front_end(monkeypatch):
    """A kernel, as far as a view sees one."""
    front_end = FakeFrontEnd()
    monkeypatch.setitem(
        sys.modules,
        "IPython",
        SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object())),
    )
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=front_end.display))
    return front_end


def no_kernel(monkeypatch):
    for name in jupyter.COMMANDS_HAVE:
        monkeypatch.delenv(name, raising=False)


def test_a_kernel_has_one_display_and_lines_for_ends_that_matter(board, clock, front_end, capsys):
    view = make_view(quiet=False)
    assert isinstance(view, NotebookView)
    for seconds in range(10):
        clock.seconds = 1000.0 + seconds / 4
        view.update(board)
    for row in board.rows.values():
        view.started(board, row)
        view.reported(board, row)
    for row in list(board.rows.values())[:3]:
        view.ended(board, row)
    view.retried(board, board.rows[3], "Hang: no report")
    assert front_end.num_updates <= 3
    (shown,) = front_end.contents
    assert shown.splitlines() == [
        "█" * 18
        + "░" * 12
        + "  2 of 5 trials done (1 trained, 1 pruned), 2 running, 1 failed, about "
        "5.2 s left, new points until 11:40 min, elapsed 2.2 s",
        "best: trial 0, val_accuracy 0.9500",
        "running: trial 3 epoch 3/8: 0.8750, trial 4 epoch 0/8",
    ]
    assert capsys.readouterr().out.splitlines() == [
        "trial 0 val_accuracy 0.9500 at epoch 7 in 12.0 s",
        "trial 2 failed after 3.0 s: ValueError: no",
        "trial 3 is tried again from its last checkpoint: Hang: no report",
    ]
    for row in board.rows.values():
        row.state = row.state if row.state.is_end else TrialState.PRUNED
    view.close()
    assert front_end.contents == [
        f"{'█' * 30}  4 of 5 trials done (1 trained, 2 pruned), 0 running, 1 failed, elapsed 2.2 s\n"
        "best: trial 0, val_accuracy 0.9500"
    ]


def test_a_bar_without_a_limit_of_points_shows_the_time(board, clock):
    board.num_trials = None
    clock.seconds += 450
    shown = display_text(board)
    assert shown.startswith(
        "█" * 15 + "░" * 15 + "  7:30 of 15:00 min, 2 done (1 trained, 1 pruned)"
    )
    assert ", 7:30 min left" in shown and "about" not in shown and "elapsed" not in shown


def test_a_cells_command_prints_few_lines(board, clock, monkeypatch, capsys):
    no_kernel(monkeypatch)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    terminal = make_view(quiet=False)
    assert isinstance(terminal, LiveView)
    terminal.close()
    capsys.readouterr()
    for name in jupyter.COMMANDS_HAVE:
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            view = make_view(quiet=False)
            assert isinstance(view, BriefView)
    for seconds in range(100):
        clock.seconds = 1000.0 + seconds
        view.started(board, board.rows[3])
        view.reported(board, board.rows[3])
        view.update(board)
    view.ended(board, board.rows[0])
    view.ended(board, board.rows[1])
    assert capsys.readouterr().out.splitlines() == [
        "trial 3 epoch 3/8: 0.8750, trial 4 epoch 0/8  [2 of 5 trials done (1 trained, 1 pruned), 2 "
        "running, 1 failed, best 0.9500 (trial 0), about 0.0 s left, new points until 11:40 min]",
        "trial 0 val_accuracy 0.9500 at epoch 7 in 12.0 s  [2 of 5 trials done (1 trained, 1 pruned), 2 running, "
        "1 failed, best 0.9500 (trial 0), about 0.0 s left]",
    ]


def test_without_a_notebook_the_output_decides(monkeypatch):
    no_kernel(monkeypatch)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert isinstance(make_view(quiet=False), PlainView)


def test_bad_input_is_one_line_in_ipython():
    assert InputError("x must be y.")._render_traceback_() == ["InputError: x must be y."]


def test_tables_in_a_kernel_are_plain_text(board, front_end, capsys, monkeypatch):
    """Also where FORCE_COLOR is set, as kernels do; rich's own way is a display for each line."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_summary(board, "all trials ended")
    out = capsys.readouterr().out
    assert "Best: trial 0, val_accuracy 0.9500" in out and "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 100 and not front_end.contents
