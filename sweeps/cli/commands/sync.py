"""`sync`: send what a sweep has recorded and MLflow does not have yet."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from sweeps.cli.exit_codes import EXIT_CODES
from sweeps.cli.shared_options import add_sweep_options, sweep_named_by
from sweeps.reporting.console import say, warn

if TYPE_CHECKING:
    from sweeps.integrity.sync import SyncResult

DESCRIPTION = "Send what a sweep has recorded and MLflow does not have yet."
EXAMPLES = """
examples:
  {prog}
  {prog} nightly
  {prog} nightly --tracking-uri http://127.0.0.1:5000
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `sync`."""
    add_sweep_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    sweep = sweep_named_by(arguments)
    from sweeps.integrity.sync import sync_sweep

    return EXIT_CODES[sync_sweep(sweep, say, _print_result)]


def _print_result(result: SyncResult) -> None:
    aside = f", {len(result.set_aside)} set aside" if result.set_aside else ""
    say(f"sent {result.sent}, {result.left} left{aside}")
    for line in result.set_aside:
        warn(f"not recorded in MLflow: {line}")
    if result.problem:
        print(f"error: {result.problem}", file=sys.stderr)
