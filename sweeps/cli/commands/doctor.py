"""`doctor`: hold study, spool and MLflow against each other, and repair what differs."""

from __future__ import annotations

import argparse
import sys

from sweeps.cli.exit_codes import DONE, FAILED
from sweeps.cli.shared_options import add_sweep_options, sweep_named_by
from sweeps.formatting import count
from sweeps.state.lock import driving, is_driven
from sweeps.state.sweep_file import BASELINES
from tracking.addresses import redacted
from tracking.stores import check_store

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
    parser.add_argument(
        "--repair",
        action="store_true",
        help="send what MLflow lacks, remove duplicate runs, and end runs that nothing drives",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    sweep = sweep_named_by(arguments)
    check_store(sweep.uri)
    from sweeps.integrity.checks import Checkup
    from sweeps.integrity.repair import repair

    if is_driven(sweep.paths):
        if arguments.repair:
            with driving(sweep.paths):  # Raises, and says who drives it.
                pass
        print(f"{sweep.paths.name} is running: records that are not sent yet may show as missing")
    study = f"study in {redacted(sweep.file.settings.storage)}, "
    if sweep.file.kind == BASELINES:
        study = "published models, "
    print(f"{sweep.paths.name}: {study}runs in {redacted(sweep.uri)}")
    checkup = Checkup(sweep)
    found = checkup.examine()
    if arguments.repair and found:
        for problem in found:
            print(f"  {problem}")
        with driving(sweep.paths):
            repair(sweep)
            print(f"repaired {count(len(found), 'problem')}; checking again")
        checkup = Checkup(sweep)
        found = checkup.examine()
    for problem in found:
        print(f"  {problem}")
    if found:
        print(f"error: {count(len(found), 'problem')}; `keras-sweeps doctor {sweep.paths.name} "
              "--repair` restores MLflow from the local records, `keras-sweeps run --resume "
              f"--name {sweep.paths.name}` continues paused trials",
              file=sys.stderr)  # fmt: skip
        return FAILED
    print(f"  {checkup.summary()}")
    return DONE
