"""`watch`: the live view of a sweep that runs elsewhere."""

from __future__ import annotations

import argparse

from sweeps.cli.exit_codes import DONE
from sweeps.cli.shared_options import add_name, add_work_dir, check_work_dir
from sweeps.reporting.console import say
from sweeps.reporting.leaderboard import print_summary
from sweeps.reporting.recorded import board_of, follow
from sweeps.state.sweep_file import find_sweep

DESCRIPTION = "Watch a sweep that runs in another terminal, until it ends; Ctrl-C only ends this."
EXAMPLES = """
examples:
  {prog}
  {prog} nightly
  {prog} nightly --once
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `watch`."""
    add_name(parser)
    add_work_dir(parser)
    parser.add_argument("--once", action="store_true", help="show how it stands now, and end")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    paths = find_sweep(check_work_dir(arguments), arguments.name, finished=True)
    sweep = follow(paths, once=arguments.once)
    if sweep.state != "running":
        print_summary(board_of(sweep), sweep.stopped_by or sweep.state)
    elif not arguments.once:
        say(f"{sweep.name} goes on")
    return DONE
