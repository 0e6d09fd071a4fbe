"""`finalize`: compare a sweep's best configurations on fresh seeds, and keep the winner's model."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING

from sweeps.cli.exit_codes import EXIT_CODES, FAILED
from sweeps.cli.shared_options import (
    add_finalist_options,
    add_pass_env_option,
    add_sweep_options,
    sweep_named_by,
)
from sweeps.formatting import in_work_dir
from sweeps.interrupts import Interrupts
from sweeps.outcome import Outcome
from sweeps.reporting.console import speaker, warn
from sweeps.reporting.views import make_view
from sweeps.settings import FinalOptions
from sweeps.state.sweep_file import SEARCH, StoredSweep
from tracking.addresses import redacted

if TYPE_CHECKING:
    from sweeps.finalists.session import ComparisonResult, Output

DESCRIPTION = (
    "Train a sweep's best configurations on fresh seeds and choose the winner by their means."
)
EXAMPLES = """
examples:
  {prog} nightly
  {prog} nightly --finalists 5 --finalist-seeds 10
  {prog} nightly --retrain all
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `finalize`."""
    add_sweep_options(parser)
    add_finalist_options(parser, default=None)
    parser.add_argument(
        "--storage", metavar="URL", help="Optuna storage (default: the sweep's own)"
    )
    parser.add_argument(
        "--unfinished", action="store_true", help="compare the best so far of an unfinished sweep"
    )
    add_pass_env_option(parser)
    parser.add_argument("--quiet", action="store_true", help="print the result only")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    sweep = sweep_named_by(arguments, SEARCH)
    options = FinalOptions(arguments.finalists, arguments.finalist_seeds, arguments.retrain)
    from sweeps.finalists.start import finalize_stored

    result = finalize_stored(
        sweep, options, output(quiet=arguments.quiet), Interrupts(), unfinished=arguments.unfinished
    )
    return print_comparison(result, sweep)


def output(*, quiet: bool) -> Output:
    """A comparison's view and lines on this terminal."""
    from sweeps.finalists.session import Output

    return Output(partial(make_view, quiet), speaker(quiet))


def print_comparison(result: ComparisonResult, sweep: StoredSweep) -> int:
    """Prints what a comparison found and what comes next; returns the exit status."""
    if result.report:
        print(result.report)
    for line in result.problems:
        warn(line)
    if not result.ran:
        return EXIT_CODES[result.outcome]
    name, where = sweep.paths.name, in_work_dir(sweep.file.settings.work_dir)
    if result.outcome is Outcome.FAILED:
        print(f"error: {result.error}", file=sys.stderr)
    print("\nNext:")
    if not result.sent:
        print(f"  keras-sweeps sync {name}{where}  # send it all to {redacted(sweep.uri)}")
    if result.outcome is not Outcome.DONE:
        print(f"  keras-sweeps finalize {name}{where}  # continue")
    elif not result.keeps_model:
        print("  Nothing to promote: the model uses custom layers and cannot be saved without "
              "their code.")  # fmt: skip
    elif result.sent:
        print(f"  keras-sweeps promote {name}{where}  # make the winner the champion")
    lost = result.outcome is Outcome.DONE and not result.recorded
    return FAILED if lost else EXIT_CODES[result.outcome]
