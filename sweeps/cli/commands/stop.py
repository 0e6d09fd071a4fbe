"""`stop`: end a sweep that runs, so that it can be resumed; or one of its trials."""

from __future__ import annotations

import argparse

from sweeps.cli.exit_codes import DONE, FAILED
from sweeps.cli.shared_options import add_name, add_work_dir, running_sweep, trial_number
from sweeps.reporting.console import say, warn
from sweeps.state.requests import leave_request, wait_for_answer

DESCRIPTION = "Stop a running sweep, as a SIGTERM would: it can be resumed. Or end one trial of it."
EXAMPLES = """
examples:
  {prog}
  {prog} nightly
  {prog} nightly --trial 7
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `stop`."""
    add_name(parser)
    add_work_dir(parser)
    parser.add_argument(
        "--trial", type=trial_number, metavar="N", help="end this trial, and let the sweep go on"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    paths = running_sweep(arguments)
    if arguments.trial is None:
        request = leave_request(paths, "stop")
    else:
        request = leave_request(paths, "stop trial", trial=arguments.trial)
    answer = wait_for_answer(request)
    if answer is None:
        request.unlink(missing_ok=True)
        warn(f"{paths.name} did not answer within half a minute, so nothing was stopped")
        return FAILED
    say(answer)
    return DONE
