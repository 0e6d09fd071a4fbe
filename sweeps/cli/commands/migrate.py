"""`migrate`: a local store is copied into a server and compared with it."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING

from search_spaces.errors import InputError
from sweeps.cli.exit_codes import DONE, FAILED
from tracking.addresses import redacted
from tracking.stores import (
    DEFAULT_URI,
    check_existing_store,
    check_store,
    is_server,
    sqlite_path,
)

if TYPE_CHECKING:
    from tracking.migration.contents import Counts

DESCRIPTION = "Copy every run, artifact, logged model and registered version into a server."
EXAMPLES = """
examples:
  {prog} --to http://127.0.0.1:5000
  {prog} --from sqlite:////srv/old/mlflow.db --to http://mlflow.example.org:5000

The server must run (`keras-sweeps server`). A user and password are read from
MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. The old store is only read. A second run adds
only what is new since, and keeps what was changed on the server: aliases, descriptions, names.
"""
MOST_SHOWN = 20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `migrate`."""
    parser.add_argument("--from", dest="source", default=DEFAULT_URI, metavar="URI",
        help="store to copy (default: %(default)s)")  # fmt: skip
    parser.add_argument("--to", dest="target", required=True, metavar="URI",
        help="server to copy to, such as http://127.0.0.1:5000")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Copies, compares, and returns the exit status: 1 where anything differs."""
    source, target = arguments.source, arguments.target
    _check(source, target)
    from filelock import FileLock, Timeout

    from tracking.errors import store_errors

    path = sqlite_path(source)
    assert path is not None
    lock = FileLock(f"{path}.migrate-lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"Another process is copying {path} already. Wait until it has ended."
        ) from None
    try:
        with store_errors(target, "sign in as admin"):
            return _migrate(source, target)
    finally:
        lock.release()


def _migrate(source: str, target: str) -> int:
    from tracking.migration.migration import Migration
    from tracking.migration.verification import proof

    print(f"copying   {redacted(source)} to {redacted(target)}", flush=True)
    migration = Migration(source, target, lambda line: print(line, flush=True))
    migration.check()
    migration.run()
    print(f"added     {migration.added.text()}")
    print("comparing every run, point, file, model, version and alias", flush=True)
    found = proof(migration)
    _print_counts(found.here, found.there)
    for line in found.differences[:MOST_SHOWN]:
        print(f"DIFFERS   {line}")
    for line in found.kept[:MOST_SHOWN]:
        print(f"kept      as it is on the server: {line}")
    if len(found.kept) > MOST_SHOWN:
        print(f"kept      {len(found.kept) - MOST_SHOWN} more")
    if found.differences:
        num = len(found.differences)
        print(f"{num} differences; run it again, or see what writes to the stores")
        return FAILED
    print("the same  by count and content" + (", but for what was kept" if found.kept else ""))
    return DONE


def _print_counts(here: Counts, there: Counts) -> None:
    for one in fields(here):
        label = one.name.replace("_", " ")
        print(f"  {label:<18}{getattr(here, one.name):>9,} there {getattr(there, one.name):>9,}")


def _check(source: str, target: str) -> None:
    """Raises InputError unless a file can be copied to a server."""
    if sqlite_path(source) is None:
        raise InputError(
            "--from must be a local store, a SQLite file such as sqlite:///mlflow.db. Received: "
            f"{redacted(source)}. A PostgreSQL database moves with pg_dump."
        )
    if not is_server(target):
        raise InputError(
            f"--to must be a running MLflow server. Received: {redacted(target)}. Start one with "
            "`keras-sweeps server`, and give its address: http://127.0.0.1:5000."
        )
    check_existing_store(source, "--from")
    check_store(target, "--to")
    from tracking.migration.migration import check_schema

    check_schema(source)
