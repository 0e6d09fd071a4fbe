"""`doctor`: hold study, spool and MLflow against each other, and repair what differs."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from sweeps.cli.exit_codes import EXIT_CODES
from sweeps.cli.shared_options import add_pass_env_option, add_sweep_options, sweep_named_by
from sweeps.formatting import count, in_work_dir
from sweeps.state.sweep_file import BASELINES, StoredSweep
from tracking.addresses import redacted
from tracking.stores import check_database

if TYPE_CHECKING:
    from sweeps.integrity.repair import CheckResult

DESCRIPTION = "Check that a sweep's Optuna study, local records and MLflow runs agree; repair them."
EXAMPLES = """
examples:
  {prog}
  {prog} nightly
  {prog} nightly --repair
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `doctor`."""
    add_sweep_options(parser)
    parser.add_argument(
        "--storage", metavar="URL", help="Optuna storage (default: the sweep's own)"
    )
    add_pass_env_option(parser)
    parser.add_argument(
        "--repair",
        action="store_true",
        help="send what MLflow lacks, remove duplicate runs, and end runs that nothing drives",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    sweep = sweep_named_by(arguments)
    if arguments.storage is not None and sweep.file.kind != BASELINES:
        check_database(sweep.file.settings.storage, "--storage")  # Before anything heavy.
    from sweeps.integrity.repair import check_sweep

    result = check_sweep(sweep, repairs=arguments.repair, given=arguments.given)
    _print_result(result, sweep)
    return EXIT_CODES[result.outcome]


def _print_result(result: CheckResult, sweep: StoredSweep) -> None:
    name, settings = sweep.paths.name, sweep.file.settings
    if result.is_driven:
        print(f"{name} is running: what it has not sent yet is no problem")
    study = f"study in {redacted(settings.storage)}, "
    if sweep.file.kind == BASELINES:
        study = "published models, "
    print(f"{name}: {study}runs in {redacted(sweep.uri)}")
    for problem in result.repaired:
        print(f"  {problem}")
    if result.repaired:
        print(f"repaired {count(len(result.repaired), 'problem')}; checking again")
    for problem in result.problems:
        print(f"  {problem}")
    if result.is_damaged:
        print(
            f"error: {count(len(result.problems), 'problem')}, each of something that cannot be "
            "read: nothing was compared or repaired. Restore it as it is said above, and ask again",
            file=sys.stderr,
        )
    elif result.problems:
        where = in_work_dir(sweep.paths.work_dir)
        problems = count(len(result.problems), "problem")
        problems += ", to be repaired once it has ended" if result.is_driven else ""
        print(
            f"error: {problems}; `keras-sweeps doctor {name} --repair{where}` restores MLflow from "
            f"the local records, `keras-sweeps run --resume --name {name}{where}` continues paused "
            "trials",
            file=sys.stderr,
        )
    else:
        print(f"  {result.summary}")
