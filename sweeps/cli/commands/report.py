"""`report`: one page about a sweep, or about several."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.runtime.filesystem import check_output, replaced_atomically
from sweeps.cli.exit_codes import DONE
from sweeps.cli.shared_options import add_place_options, argument_type, recorded_named
from sweeps.formatting import size_text
from sweeps.history.recorded_sweep import RecordedSweep
from sweeps.option_values import path
from sweeps.reporting.console import say

DESCRIPTION = "Write one HTML page about a sweep: what won, how sure that is, what next."
EXAMPLES = """
examples:
  {prog}
  {prog} nightly --output nightly.html
  {prog} monday tuesday
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `report`."""
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="one sweep or more (default: the latest)"
    )
    add_place_options(parser)
    parser.add_argument(
        "--output", type=argument_type(path), metavar="FILE",
        help="file to write (default: NAME.html here; of one sweep report.html in its folder)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    names = list(dict.fromkeys(arguments.names)) or [None]
    sweeps = [recorded_named(arguments, name) for name in names]
    output = _output(arguments, sweeps)
    from sweeps.html_report.page import report_page

    with replaced_atomically(output) as file:
        file.write(report_page(sweeps).encode())
    say(f"{output} ({size_text(output.stat().st_size)})")
    return DONE


def _output(arguments: argparse.Namespace, sweeps: list[RecordedSweep]) -> Path:
    """Where the page goes; a sweep's own page in its folder is made anew each time.

    Raises:
        InputError: It is a file that exists, or its folder does not.
    """
    folder = sweeps[0].paths.sweep
    if arguments.output is None and len(sweeps) == 1 and folder.is_dir():
        return sweeps[0].paths.report
    name = "-".join(sweep.name for sweep in sweeps)
    output = Path(arguments.output or f"{name}.html")
    check_output(output, overwrite=arguments.overwrite)
    return output
