"""`ui`: MLflow's own pages over the store of a sweep, opened at that sweep."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from search_spaces.errors import InputError
from sweeps.cli.exit_codes import DONE
from sweeps.cli.shared_options import add_name, add_work_dir, check_work_dir
from sweeps.history.pages import open_in_browser, sweep_page
from sweeps.history.recorded_sweep import RecordedSweep, read_sweep
from sweeps.reporting.console import say
from sweeps.settings import DEFAULT_STORAGE, STORAGE_VARIABLE
from sweeps.state.sweep_file import find_sweep, sweep_files, with_passwords
from tracking.addresses import redacted
from tracking.mlflow_server.options import LOOPBACK, free_port, port_number, ui_plan
from tracking.stores import check_existing_store, is_server, resolve_uri

DESCRIPTION = "Show sweeps in MLflow's own pages, on loopback, and open the latest; Ctrl-C ends it."
EXAMPLES = """
examples:
  {prog}
  {prog} nightly
  {prog} --optuna
  {prog} --no-browser --port 5001
"""
DASHBOARD_PORT = 8080
START_SECONDS = 60.0
_DASHBOARD = f"""
import os, sys
from optuna_dashboard import run_server
run_server(os.environ.pop({STORAGE_VARIABLE!r}), host=sys.argv[1], port=int(sys.argv[2]))
"""
"""The package's own command takes the storage as an argument, and everybody sees those."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `ui`."""
    add_name(parser)
    add_work_dir(parser)
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow server or database (default: the sweep's own)"
    )
    parser.add_argument(
        "--port", type=port_number, metavar="N", help="port (default: 5000, or a free one)"
    )
    parser.add_argument(
        "--optuna", action="store_true", help="start optuna-dashboard over the study, too"
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the addresses, open nothing"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serves until Ctrl-C; returns the exit status."""
    sweep = _sweep(arguments)
    own = None if sweep is None else with_passwords(sweep.file.settings)
    uri = arguments.tracking_uri or resolve_uri(own.tracking_uri if own else None)
    check_existing_store(uri)
    storage = own.storage if own else DEFAULT_STORAGE
    if arguments.optuna and _dashboard_is_missing():
        raise InputError(
            "--optuna needs optuna-dashboard, which is not installed. In the clone: pip install -c "
            "constraints.txt -e '.[server]'"
        )
    if is_server(uri):
        _show(uri, sweep, browser=not arguments.no_browser)
        return DONE
    plan = ui_plan(uri, arguments.port)
    from tracking.mlflow_server.process import MlflowServer

    with MlflowServer(plan) as server, _dashboard(storage if arguments.optuna else ""):
        say(f"starting  MLflow at {plan.address} over {redacted(uri)}")
        server.start()
        if not server.stopping:
            _show(plan.address, sweep, browser=not arguments.no_browser)
            say("stop      Ctrl-C")
        return server.wait()


def _sweep(arguments: argparse.Namespace) -> RecordedSweep | None:
    """The sweep whose page is opened; None where there is none and none was named."""
    folder = check_work_dir(arguments)
    if arguments.name is None and not any(sweep_files(folder)):
        return None
    return read_sweep(find_sweep(folder, arguments.name, finished=True))


def _show(address: str, sweep: RecordedSweep | None, *, browser: bool) -> None:
    page = address if sweep is None or not sweep.run_id else sweep_page(address, sweep)
    say(f"{'all' if sweep is None else sweep.name:<9} {page}")
    if browser:
        open_in_browser(page)


def _dashboard_is_missing() -> bool:
    return not (Path(sys.executable).parent / "optuna-dashboard").exists()


@contextlib.contextmanager
def _dashboard(storage: str) -> Iterator[None]:
    """Runs optuna-dashboard over a storage in the block; nothing where that is empty."""
    if not storage:
        yield
        return
    port = free_port(DASHBOARD_PORT)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _DASHBOARD, LOOPBACK, str(port)],
        env={**os.environ, STORAGE_VARIABLE: storage},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        address = f"http://{LOOPBACK}:{port}/dashboard"
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                if requests.get(address, timeout=2).ok:
                    say(f"study     {address}")
                    break
            time.sleep(0.2)
        else:
            raise OSError(f"optuna-dashboard did not start over {redacted(storage)}")
        yield
    finally:
        process.terminate()
        process.wait()
