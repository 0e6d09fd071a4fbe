"""`sync`: send what a sweep has recorded and MLflow does not have yet."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from sweeps.cli.exit_codes import DONE, FAILED, INTERRUPTED
from sweeps.cli.shared_options import add_sweep_options, sweep_named_by
from sweeps.finalists.selection import finalists_paths, sweep_run_id
from sweeps.formatting import count
from sweeps.interrupts import Interrupts
from sweeps.setup.stores import connect_tracker
from sweeps.state.lock import driving
from sweeps.state.sweep_file import (
    StoredSweep,
    check_same_store,
    read_sweep_file,
    write_sweep_file,
)
from tracking.addresses import redacted, scrubbed
from tracking.stores import check_store

if TYPE_CHECKING:
    from tracking.runs.tracker import MlflowTracker
    from tracking.spool.spool import Spool

DESCRIPTION = "Send what a sweep has recorded and MLflow does not have yet."
EXAMPLES = """
examples:
  {prog}
  {prog} nightly
  {prog} nightly --tracking-uri http://127.0.0.1:5000
"""
PATIENCE_SECONDS = 60.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `sync`."""
    add_sweep_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    sweep = sweep_named_by(arguments)
    check_store(sweep.uri)
    from tracking.spool.spool import Spool

    with driving(sweep.paths), Interrupts() as interrupts:
        spool = Spool(sweep.paths.spool)
        stored = read_sweep_file(sweep.paths.state)
        check_same_store(stored, sweep.uri, sent=bool(spool.answers()))
        settings = replace(stored.settings, tracking_uri=sweep.uri)
        write_sweep_file(sweep.paths.state, replace(stored, settings=settings))
        waiting = spool.num_waiting
        print(f"sending {count(waiting, 'record')} of {sweep.paths.name} to {redacted(sweep.uri)}")
        tracker = connect_tracker(sweep.file.settings, sweep.file.data_name, spool)
        status = _send(sweep, spool, tracker, interrupts)
        final = finalists_paths(sweep.paths).spool
        if status == DONE and final.exists():
            spool = Spool(final)
            print(f"sending {count(spool.num_waiting, 'record')} of its finalists")
            tracker = connect_tracker(
                sweep.file.settings, sweep.file.data_name, spool, sweep_run_id(sweep.paths)
            )
            status = _send(sweep, spool, tracker, interrupts)
    return status


def _send(sweep: StoredSweep, spool: Spool, tracker: MlflowTracker, interrupts: Interrupts) -> int:
    from tracking.spool.sender import Sender

    waiting = spool.num_waiting
    sender = Sender(spool, lambda: tracker)
    sent = sender.drain(PATIENCE_SECONDS, lambda: interrupts.received)
    sender.close()
    left, rejected = spool.num_waiting, spool.rejections()
    print(f"sent {waiting - left}, {left} left")
    for line in rejected:
        print(f"WARNING: refused by MLflow: {scrubbed(line, sweep.uri)}", file=sys.stderr)
    if interrupts.received:
        return INTERRUPTED
    if not sent:
        print(f"error: {scrubbed(sender.problem, sweep.uri)}", file=sys.stderr)
    return DONE if sent and not rejected else FAILED
