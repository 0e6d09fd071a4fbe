"""`open`: a sweep's page, where MLflow runs already."""

from __future__ import annotations

import argparse

from search_spaces.errors import InputError
from sweeps.cli.exit_codes import DONE
from sweeps.cli.shared_options import add_name, add_work_dir, check_work_dir
from sweeps.formatting import in_work_dir
from sweeps.history.pages import open_in_browser, sweep_page
from sweeps.history.recorded_sweep import read_sweep
from sweeps.reporting.console import say
from sweeps.state.sweep_file import find_sweep, with_passwords
from tracking.stores import DEFAULT_UI, is_server, resolve_uri

DESCRIPTION = "Open a sweep's page in the browser, and print its address."
EXAMPLES = """
examples:
  {prog}
  {prog} nightly
  {prog} nightly --address http://127.0.0.1:5001
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `open`."""
    add_name(parser)
    add_work_dir(parser)
    parser.add_argument(
        "--address", metavar="URL",
        help=f"where MLflow runs (default: the sweep's server, or {DEFAULT_UI})",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    sweep = read_sweep(find_sweep(check_work_dir(arguments), arguments.name, finished=True))
    uri = resolve_uri(with_passwords(sweep.file.settings).tracking_uri)
    address = arguments.address or (uri if is_server(uri) else DEFAULT_UI)
    try:
        page = sweep_page(address, sweep)
    except InputError:
        if arguments.address or is_server(uri) or not sweep.run_id:
            raise
        raise InputError(
            f"No MLflow with sweep '{sweep.name}' answers on {address}. Start one: `keras-sweeps "
            f"ui {sweep.name}{in_work_dir(arguments.work_dir)}`, or say where it runs: --address."
        ) from None
    say(page)
    open_in_browser(page)
    return DONE
