"""`export`: a sweep's trials, or their learning curves, as a table for other programs."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path

from pipelines.runtime.filesystem import check_output, replaced_atomically
from search_spaces.errors import InputError
from sweeps.cli.exit_codes import DONE
from sweeps.cli.shared_options import (
    add_name,
    add_place_options,
    argument_type,
    recorded_sweep,
)
from sweeps.formatting import count
from sweeps.history.export import Row, report_rows, trial_rows
from sweeps.option_values import path
from sweeps.reporting.console import say

DESCRIPTION = "Write a sweep's trials, or their learning curves, as CSV, JSON or Parquet."
EXAMPLES = """
examples:
  {prog} nightly > trials.csv
  {prog} nightly --format json
  {prog} nightly --reports --format parquet --output curves.parquet
"""
FORMATS = ("csv", "json", "parquet")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `export`."""
    add_name(parser)
    add_place_options(parser)
    parser.add_argument(
        "--format", choices=FORMATS, default="csv", help="of the table (default: %(default)s)"
    )
    parser.add_argument(
        "--reports", action="store_true", help="one row for each report instead of each trial"
    )
    parser.add_argument(
        "--output",
        type=argument_type(path),
        metavar="FILE",
        help="file to write (default: standard output)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    output = Path(arguments.output) if arguments.output else None
    if arguments.format == "parquet" and output is None:
        raise InputError("--format parquet is no text: name a file with --output FILE.")
    if output is not None:
        check_output(output, overwrite=arguments.overwrite)
    sweep = recorded_sweep(arguments)
    rows = report_rows(sweep) if arguments.reports else trial_rows(sweep)
    content = _content(rows, arguments.format)
    if output is None:
        sys.stdout.write(content.decode())
    else:
        with replaced_atomically(output) as file:
            file.write(content)
        say(f"{output}: {count(len(rows), 'row')} of {sweep.name}")
    return DONE


def _content(rows: list[Row], kind: str) -> bytes:
    if kind == "json":
        return (json.dumps(rows, indent=1) + "\n").encode()
    if kind == "parquet":
        import pandas

        found = io.BytesIO()
        # A parameter may be a number in one trial and a word in another.
        frame = pandas.DataFrame(rows)
        mixed = [name for name in frame if frame[name].dropna().map(type).nunique() > 1]
        frame.astype(dict.fromkeys(mixed, "string")).to_parquet(found, index=False)
        return found.getvalue()
    text = io.StringIO()
    if rows:
        table = csv.DictWriter(text, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return text.getvalue().encode()
