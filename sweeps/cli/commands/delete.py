"""`delete`: a sweep with its study, its runs and its files."""

from __future__ import annotations

import argparse
from pathlib import Path

from sweeps.cli.exit_codes import DONE, REFUSED
from sweeps.cli.shared_options import add_work_dir, check_work_dir
from sweeps.reporting.console import confirmed, say
from sweeps.state.sweep_file import stored_sweep

DESCRIPTION = "Delete a sweep: its study, its runs and models in MLflow, and its files."
EXAMPLES = """
examples:
  {prog} nightly
  {prog} nightly --yes
  {prog} nightly --dry-run

A sweep that runs, or whose models are registered, is refused. Prepared data stay:
`keras-sweeps clean` removes them.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `delete`."""
    parser.add_argument("name", metavar="NAME", help="the sweep")
    add_work_dir(parser)
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow server or database (default: the sweep's own)"
    )
    parser.add_argument(
        "--storage", metavar="URL", help="Optuna storage (default: the sweep's own)"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be deleted")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    check_work_dir(arguments)
    sweep = stored_sweep(
        Path(arguments.work_dir), arguments.name, tracking_uri=arguments.tracking_uri,
        storage=arguments.storage, needed=("tracking_uri", "storage"),
    )  # fmt: skip
    from sweeps.removal.deletion import delete_sweep, find_deletion

    deletion = find_deletion(sweep)
    say(f"{sweep.paths.name}:")
    for line in deletion.lines:
        say(f"  {line}")
    if arguments.dry_run:
        return DONE
    if not confirmed("Delete all of this?", yes=arguments.yes):
        say("nothing was deleted")
        return REFUSED
    delete_sweep(deletion)
    say("deleted")
    return DONE
