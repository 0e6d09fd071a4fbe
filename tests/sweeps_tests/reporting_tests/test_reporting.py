"""What a person reads: durations, curves, the live screen, plain lines, the final table."""

from __future__ import annotations

import io
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.objectives import OBJECTIVES
from pipelines.training.trial import Schedule
from search_spaces.errors import InputError
from search_spaces.registry import get_space
from sweeps.driver.board.board import Board
from sweeps.driver.board.leaderboard import leaderboard_columns
from sweeps.driver.board.row import TrialRow
from sweeps.driver.ends import AHEAD, OUTRANKED, WAITED
from sweeps.engines.base import TrialState
from sweeps.engines.pruners.rungs import Rungs
from sweeps.formatting import (
    count,
    duration,
    error_text,
    in_work_dir,
    param_text,
    sparkline,
)
from sweeps.reporting.console import console
from sweeps.reporting.descriptions import left_text
from sweeps.reporting.leaderboard import print_next_steps, print_summary
from sweeps.reporting.progress import (
    LiveView,
    PlainView,
    fitting_screen,
    live_screen,
    progress_text,
)
from sweeps.reporting.trial_end import end_text
from sweeps.reporting.views import make_view
from sweeps.settings import Budget, SweepSettings
from tracking.stores import ui_command


@pytest.fixture
def board():
    board = Board("mine: cnn on digits", OBJECTIVES["val_accuracy"], 5, 1, 900.0)
    params = get_space("cnn").complete({})
    more = Schedule(4), get_space("cnn")
    complete, failed = TrialState.COMPLETE, TrialState.FAILED
    rows = [
        TrialRow(
            0,
            "trial 0 (cnn3)",
            params,
            1,
            *more,
            baseline="cnn3",
            state=complete,
            value=0.95,
            best_epoch=3,
            curve={1: 0.5, 2: 0.95},
        ),
        TrialRow(
            1,
            "trial 1",
            params,
            2,
            *more,
            state=complete,
            value=0.97,
            best_epoch=4,
            curve={1: 0.6, 2: 0.97},
        ),
        TrialRow(
            2, "trial 2", params, 3, *more, state=failed, reason="ValueError: [/job:x] [bold]"
        ),
        TrialRow(3, "trial 3", params, 4, *more, curve={1: 0.1, 2: 0.4}),
    ]
    for row in rows:
        row.num_parameters, row.seconds = 93_322, 12.0
        board.rows[row.number] = row
    return board


def test_the_final_table_ranks_marks_baselines_and_survives_any_text(board, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "")
    print_summary(board, "all trials ended")
    out = capsys.readouterr().out
    assert out.index("trial 1 ") < out.index("* trial 0 (cnn3)")
    assert "1 trial FAILED (2): ValueError: [/job:x] [bold]" in out
    assert "Best: trial 1, val_accuracy 0.9700" in out
    assert "\ndefaults\n" in out
    assert "Total compute 48.0 s" in out


def test_before_a_trial_is_complete_the_best_so_far_is_shown(board, capsys):
    for row in board.rows.values():
        row.value = None
    board.rows[0].curve, board.rows[1].curve = {1: 0.3}, {1: 0.35}
    assert "best so far 0.4000 (trial 3 at epoch 2/4)" in progress_text(board)
    print_summary(board, "interrupted")
    out = capsys.readouterr().out
    assert "interrupted; no trial completed.\nBest so far 0.4000 (trial 3 at epoch 2/4).\n" in out
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(live_screen(board))
    assert "best so far 0.4000 (trial 3 at epoch 2/4)" in console.export_text()


@pytest.mark.parametrize(("columns", "lines"), [("80", 2), ("120", 2)])
def test_a_trial_is_one_line_of_the_table(board, capsys, monkeypatch, columns, lines):
    monkeypatch.setenv("COLUMNS", columns)
    print_summary(board, "all trials ended")
    out = capsys.readouterr().out
    table = out.partition("─ \n")[2].partition("complete")[0].splitlines()
    assert len([line for line in table if line.strip()]) == lines + 1  # With the count below.
    assert "…" not in out and ("optimizer" in out.partition("─ \n")[0]) == (columns == "120")
    for row in board.rows.values():
        row.params.pop("optimizer", None)
    print_summary(board, "all trials ended")
    assert "optimizer" not in capsys.readouterr().out.partition("─ \n")[0]


def test_the_final_table_lists_what_was_better_than_the_best_after_as_many_epochs(board, capsys):
    row = board.rows[3]
    row.state, row.curve = TrialState.PRUNED, {1: 0.7}
    print_summary(board, "the time limit was reached")
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if "trial 3" in line)
    assert line.split()[:8] == ["-", "trial", "3", "0.7000", "1/4", "93,322", "12.0", "s"]
    assert "- ahead of the best after as many epochs, but not trained to the end" in out
    row.breaks_limit = "latency_ms 3 > 2"
    print_summary(board, "the time limit was reached")
    assert "ahead of the best" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limit", "spent", "has_ended", "text"),
    [
        (None, 50.0, False, ""),
        (600.0, 0.0, True, "the sweep had ended, so it has new time: 10:00 min"),
        (600.0, 360.0, False, "4:00 min of 10:00 min are left; sessions before took the rest"),
        (600.0, 360.0, True, "4:00 min of 10:00 min are left; sessions before took the rest"),
        (600.0, 700.0, False, "0.0 s of 10:00 min are left; sessions before took the rest. More "
         "with --timeout"),
    ],
)  # fmt: skip
def test_a_resumed_sweep_says_what_is_left_of_its_time(limit, spent, has_ended, text):
    budget = Budget(4, limit, None, Rungs((1, 4)))
    assert left_text(budget, spent, has_ended=has_ended) == text


def test_an_error_is_told_by_what_it_started_with():
    wrapped = RuntimeError("invalid data in the commit, e.g. exceeding max length")
    wrapped.__cause__ = OSError("attempt to write\na readonly database")
    assert error_text(wrapped) == "OSError: attempt to write a readonly database"
    ours = InputError("--storage must be a database")
    ours.__cause__ = wrapped
    assert error_text(ours) == "InputError: --storage must be a database"


def test_printed_commands_are_quoted_for_the_shell(board, capsys):
    settings = SweepSettings(
        "cnn", name="s", work_dir="my work $HOME", tracking_uri="sqlite:///a b.db"
    )
    print_next_steps(settings, board, None, unfinished=True)
    commands = [
        line.partition("  #")[0] for line in capsys.readouterr().out.split("\n")[2:] if line
    ]
    assert [shlex.split(command)[-2:] for command in commands] == [
        ["--work-dir", "my work $HOME"]
    ] * 2
    assert shlex.split(ui_command("sqlite:///a b.db"))[-1] == "sqlite:///a b.db"
    assert in_work_dir(".sweeps") == in_work_dir(Path.cwd() / ".sweeps") == ""


class Sent:
    """What the end of a sweep asks of a tracker."""

    experiment_id, uid = "7", "0123456789abcdef"

    def model_id(self, number: int) -> str:
        return "m-1"


def test_where_a_sweep_is_seen_and_at_most_three_commands_are_printed(board, capsys):
    settings = SweepSettings("cnn", name="s", tracking_uri="http://h:5000")
    print_next_steps(settings, board, Sent(), unfinished=False)
    text = capsys.readouterr().out
    assert "table   http://h:5000/#/experiments/7/runs?workflowType=machine_learning" in text
    assert "charts  http://h:5000/#/experiments/7/runs" in text
    print_next_steps(replace(settings, tracking_uri=None), board, Sent(), unfinished=False)
    commands = re.findall(r"  keras-sweeps (\w+) s", capsys.readouterr().out)
    assert commands == ["ui", "finalize", "promote"]
    print_next_steps(replace(settings, num_finalists=2), board, Sent(), unfinished=False)
    assert "Next:" not in capsys.readouterr().out


def test_what_ctrl_c_has_stopped_is_told_to_come_again(board, capsys):
    row = board.rows[3]
    row.state, row.reason = TrialState.KILLED, "the sweep was stopped"
    text = "proposed again when the sweep is resumed"
    assert end_text(board, row) == f"stopped after 12.0 s: {text}"
    print_summary(board, "interrupted")
    out = capsys.readouterr().out
    assert f"1 trial stopped (3): {text}" in out and "KILLED" not in out
    row.past = True
    print_summary(board, "all trials ended")
    assert "1 trial stopped (3): proposed again since" in capsys.readouterr().out


def test_an_empty_sweep_has_a_summary_too(capsys):
    empty = Board("mine", OBJECTIVES["val_loss"], 5, 1, None)
    print_summary(empty, "interrupted")
    assert "interrupted; no trial completed" in capsys.readouterr().out
    assert empty.seconds_left() is None


def test_the_recorded_table_holds_every_trial(board):
    columns = leaderboard_columns(board)
    assert columns["trial"] == [1, 0, 2, 3]
    assert columns["rank"] == [1, 2, None, None]
    assert columns["state"] == ["COMPLETE", "COMPLETE", "FAILED", "RUNNING"]
    assert {len(column) for column in columns.values()} == {4}


def test_the_live_screen_shows_what_runs_and_what_is_best(board):
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(live_screen(board))
    text = console.export_text()
    for part in ("best 0.9700 (trial 1)", "2/4", "0.4000", "▁█", "1 failed", "left"):
        assert part in text


def test_plain_lines_say_start_epoch_and_end(board, capsys):
    view = PlainView()
    view.started(board, board.rows[0])
    view.started(board, board.rows[1])
    view.reported(board, board.rows[3])
    view.ended(board, board.rows[1])
    first, second, third, fourth = capsys.readouterr().out.splitlines()
    assert first == "trial 0 (cnn3) started: published baseline"
    assert second.startswith("trial 1 started: defaults")
    assert third == "trial 3 epoch 2/4: val_accuracy 0.4000"
    assert (
        "val_accuracy 0.9700 at epoch 4 in 12.0 s" in fourth
        and "2 of 5 trials done (2 trained)" in fourth
    )


def test_what_is_said_of_a_stopped_trial_has_its_value_its_rank_and_why(board):
    row, at = board.rows[2], "1"
    row.state, row.reason, row.curve = TrialState.PRUNED, OUTRANKED.format(at), {1: 0.3}
    for number, value in ((0, 0.5), (1, 0.2), (3, 0.9)):
        board.rows[number].curve = {1: value}
    assert (
        end_text(board, row) == "stopped at epoch 1: 0.3000, rank 3 of 4; others are better there"
    )
    board.reduction_factor = 3
    said = "stopped at epoch 1: 0.3000, rank 3 of 4; the best third goes on"
    for reason in (OUTRANKED, WAITED, "pruned at epoch {}"):
        row.reason = reason.format(at)
        assert end_text(board, row) == said
    board.rungs, row.reason = (2, 4), WAITED.format(at)
    assert end_text(board, row).endswith(
        "; made way for a better trial, and the sweep ended before it went on"
    )
    for reason, why in (
        (AHEAD.format(at), "ahead of the winner there, but the sweep ended"),
        ("pruned at epoch 1: it cannot end in time", "it cannot end in time"),
        ("stopped by hand at epoch 1", "by hand at epoch 1"),
        ("latency_ms 41 > 30", "latency_ms 41 > 30"),
    ):
        row.reason = reason
        assert end_text(board, row) == f"stopped at epoch 1: 0.3000, rank 3 of 4; {why}"
    row.curve, row.reason = {}, "stopped because the time limit was reached"
    assert end_text(board, row) == "stopped after 12.0 s because the time limit was reached"
    row.state, row.curve = TrialState.PAUSED, {1: 0.3}
    assert end_text(board, row) == "paused at epoch 1: 0.3000, rank 3 of 4"


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"num_trials": 5, "timeout_seconds": None}, "2 of 5 trials done (2 trained)"),
        ({"num_trials": 5, "timeout_seconds": 900.0}, "2 of 5 trials done (2 trained)"),
        ({"num_trials": 500, "timeout_seconds": 900.0}, "8:20 of 15:00 min, 2 done (2 trained)"),
        ({"num_trials": 30, "timeout_seconds": 900.0}, "2 of 30 trials done (2 trained)"),
        ({"num_trials": None, "max_epochs": 12, "timeout_seconds": None},
         "6 of 12 epochs, 2 done (2 trained)"),
        ({"num_trials": None, "timeout_seconds": None}, "2 done (2 trained)"),
    ],
)  # fmt: skip
def test_how_far_a_sweep_is_is_said_in_the_unit_that_ends_it(board, limits, said):
    board.rows[3].started = board.clock()
    board.earlier_seconds = 500.0 if limits.get("num_trials") != 5 else 1.0
    for name, value in limits.items():
        setattr(board, name, value)
    assert progress_text(board).startswith(said)
    left = board.seconds_left()
    assert (left is None) == (said == "2 done (2 trained)")
    if left is not None:
        assert ("about" in progress_text(board)) == ("min," not in said)
        assert left == pytest.approx(400.0, abs=1.0) or "min," not in said


def test_the_trial_in_containers_waits_for_what_is_printed(board, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "docker")
    from try_stack import DONE, NUM_TRIALS

    board.num_trials, board.timeout_seconds = NUM_TRIALS, None
    assert re.findall(DONE, progress_text(board)) == ["2"]


def test_the_screen_says_how_many_came_to_each_rung_and_since_when_one_is_the_best(board):
    board.rungs = (1, 2, 4)
    board.rows[3].state, board.rows[3].curve = TrialState.PAUSED, {1: 0.4}
    board.rows[1].measured_at = board.elapsed_seconds() - 65.0
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(live_screen(board))
    text = console.export_text()
    assert "rungs: 3 at epoch 1 (1 waiting), 2 at epoch 2, 0 at epoch 4" in text
    assert "best 0.9700 (trial 1, 1:05 min ago)" in text


@pytest.mark.parametrize("height", [40, 24, 12])
def test_the_screen_has_no_more_lines_than_the_terminal_and_shows_the_latest_ends(board, height):
    params = {**board.rows[3].params, "learning_rate": 0.003021, "block_dropout": 0.05}
    for number in range(4, 12):
        made = replace(board.rows[3], number=number, name=f"trial {number}", params=params)
        board.rows[number] = made
    board.rows[0].end_order, board.rows[1].end_order, board.rows[2].end_order = 2, 0, 1
    console = Console(width=80, height=height, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(fitting_screen(board, console))
    text = console.export_text()
    assert len(text.splitlines()) <= height and "best 0.9700" in text and "╰" in text
    if height == 40:
        ended = text.partition(" ended")[2]
        assert ended.index("trial 1 ") < ended.index("trial 2 ") < ended.index("trial 0 ")
    else:
        assert "more trials running" in text


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_nothing_on_the_screen_is_cut(board, columns):
    row = board.rows[3]
    row.params = {**row.params, "filters": 52, "num_convs": 2, "learning_rate": 0.003021,
                  "block_dropout": 0.05, "head_dropout": 0.25}  # fmt: skip
    stopped = board.rows[0]
    stopped.state, stopped.value, stopped.reason = TrialState.PRUNED, None, "pruned at epoch 2"
    board.reduction_factor = 3
    console = Console(width=columns, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(live_screen(board))
    text = console.export_text()
    assert "…" not in text and "..." not in text
    words = " ".join(text.replace("│", " ").split())
    for value in ("filters=52", "learning_rate=0.003021", "head_dropout=0.25", "rank 2 of 3;"):
        assert value in words
    assert max(map(len, text.splitlines())) <= columns


@pytest.mark.parametrize(
    ("variables", "is_live"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_no_color_gets_plain_lines_on_a_terminal(monkeypatch, variables, is_live):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    view = make_view(quiet=False)
    assert isinstance(view, LiveView if is_live else PlainView)
    view.close()
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert isinstance(make_view(quiet=False), PlainView)


def test_the_time_left_never_exceeds_the_limit(board):
    board.timeout_seconds = 5.0
    assert 0 <= board.seconds_left() <= 5.0


def test_numbers_are_short():
    assert [duration(s) for s in (4.21, 187, 3729)] == ["4.2 s", "3:07 min", "1:02:09 h"]
    assert sparkline([1, 2, 3]) == "▁▅█" and sparkline([]) == "" and len(sparkline([0.5, 0.5])) == 2
    assert [param_text(v) for v in (True, 0.00123456, "adam", 64)] == [
        "true",
        "0.001235",
        "adam",
        "64",
    ]
    assert [count(1, "trial"), count(3, "trial")] == ["1 trial", "3 trials"]


def test_trials_that_do_not_compete_have_no_best(board):
    assert "best 0.9700" in progress_text(board)
    board.competes = False
    assert "best" not in progress_text(board)


def test_a_table_shows_codes_in_a_name_and_obeys_none(monkeypatch):
    from rich.table import Table
    from rich.text import Text

    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    table = Table("name")
    table.add_row("cat\x1b[31m")
    table.add_row(Text("dog\x1b]0;owned\x07", style="bold"))

    console(file=terminal, force_terminal=True, color_system="standard", width=60).print(table)

    text = terminal.getvalue()
    assert "cat\\x1b[31m" in text and "dog\\x1b]0;" in text
    assert "\x1b[31m" not in text and "\x1b]0" not in text and "\x1b[1m" in text
