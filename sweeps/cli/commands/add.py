"""`add`: a point of one's own into a running sweep."""

from __future__ import annotations

import argparse

from search_spaces.errors import InputError
from search_spaces.hyperparameters.narrowing import merged_rules
from sweeps.cli.exit_codes import DONE, FAILED
from sweeps.cli.shared_options import add_name, add_work_dir, running_sweep, trial_number
from sweeps.reporting.console import say, warn
from sweeps.state.requests import leave_request, wait_for_answer

DESCRIPTION = "Have a running sweep try a point of your own next."
EXAMPLES = """
examples:
  {prog} nightly --fix optimizer=sgd --fix learning_rate=0.1
  {prog} nightly --like 3 --fix filters=64
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `add`."""
    add_name(parser)
    add_work_dir(parser)
    parser.add_argument(
        "--fix", action="append", default=[], metavar="NAME=VALUE",
        help="a parameter's value; all others have their default; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--like", type=trial_number, metavar="N",
        help="take the other values from this trial instead of the defaults",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    if not arguments.fix and arguments.like is None:
        raise InputError("add needs --fix NAME=VALUE, once for each value that is not the default.")
    fixed = list(merged_rules(arguments.fix, "--fix"))
    paths = running_sweep(arguments)
    request = leave_request(paths, "add", fix=fixed, like=arguments.like)
    answer = wait_for_answer(request)
    if answer is None:
        request.unlink(missing_ok=True)
        warn(f"{paths.name} did not answer within half a minute, so nothing was added")
        return FAILED
    say(answer)
    return DONE
