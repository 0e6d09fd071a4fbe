"""`list`: the sweeps of a work folder, or of an MLflow server."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from sweeps.cli.exit_codes import DONE
from sweeps.cli.shared_options import add_place_options, check_work_dir
from sweeps.formatting import duration, moment
from sweeps.history.listing import Summary, list_sweeps, summarized
from sweeps.reporting.console import say, table_console, warn

MIN_WIDTH = 110
"""Columns from which on the table has room for when a sweep began."""
LEAST_WIDTH = 80
"""Columns from which on the best value has room beside its name."""
DESCRIPTION = "List sweeps with their state, best trial, number of trials and time, newest first."
EXAMPLES = """
examples:
  {prog}
  {prog} --json
  {prog} --tracking-uri http://127.0.0.1:5000
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `list`."""
    add_place_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    if arguments.tracking_uri is not None:
        from sweeps.history.server import listed_on_server

        found = listed_on_server(arguments.tracking_uri)
        place, problems = arguments.tracking_uri, []
    else:
        folder = check_work_dir(arguments)
        listed = list_sweeps(folder)
        found = [summarized(one.sweep) for one in listed if one.sweep]
        place, problems = f"{folder / 'sweeps'}", [one for one in listed if not one.sweep]
    for one in problems:
        warn(f"{one.name}: {one.problem}")
    if arguments.json:
        print(json.dumps([asdict(summary) for summary in found], indent=1))
    elif found:
        _print_table(found)
    elif not problems:
        say(f"There is no sweep in {place}. Start one: keras-sweeps run --space cnn")
    return DONE


def _print_table(found: list[Summary]) -> None:
    from rich import box
    from rich.table import Table

    console = table_console(heeds_columns=True)
    columns = ["sweep", "state", "task", "best", "trials", "took", "began"]
    columns = columns if console.width >= MIN_WIDTH else columns[:-1]
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0) if console.width < MIN_WIDTH else (0, 1)
    )
    # A usual name is whole where there is room, to be copied; else it is wrapped. Nothing is cut.
    longest = max(len(one.name) for one in found)
    for name in columns:
        is_short = name in ("state", "took", "began")
        is_whole = is_short or (name == "best" and console.width >= LEAST_WIDTH)
        is_whole = is_whole or (name == "sweep" and longest <= console.width // 4)
        table.add_column(name, overflow="fold", no_wrap=is_whole)
    for one in found:
        cells = [
            one.name, one.state, one.task, _best_text(one), one.trials_text,
            duration(one.seconds), moment(one.begun_ms),
        ]  # fmt: skip
        table.add_row(*cells[: len(columns)])
    console.print(table)


def _best_text(one: Summary) -> str:
    if one.best_value is None:
        return "-"
    so_far = "" if one.best_is_complete else " so far"
    return f"{one.objective} {one.best_value:.4f}{so_far}"
