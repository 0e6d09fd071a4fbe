"""`sync`: send what a sweep has recorded and MLflow does not have yet."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from search_spaces.errors import redacted, scrubbed
from sweeps.cli import DONE, FAILED, INTERRUPTED
from sweeps.formatting import count
from sweeps.interrupts import Interrupts
from sweeps.opening import connect_tracker
from sweeps.stored_sweep import add_sweep_options, stored_sweep
from sweeps.sweep_file import check_same_store, driving, read_sweep_file, write_sweep_file
from tracking.stores import check_store

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
    sweep = stored_sweep(arguments)
    check_store(sweep.uri)
    from tracking.sender import Sender
    from tracking.spool import Spool

    with driving(sweep.paths), Interrupts() as interrupts:
        spool = Spool(sweep.paths.spool)
        stored = read_sweep_file(sweep.paths.state)
        check_same_store(stored, sweep.uri, sent=bool(spool.answers()))
        settings = replace(stored.settings, tracking_uri=sweep.uri)
        write_sweep_file(sweep.paths.state, replace(stored, settings=settings))
        waiting = spool.num_waiting
        tracker = connect_tracker(sweep.file.settings, sweep.file.data_name, spool)
        sender = Sender(spool, lambda: tracker)
        print(f"sending {count(waiting, 'record')} of {sweep.paths.name} to {redacted(sweep.uri)}")
        sent = sender.drain(PATIENCE_SECONDS, lambda: interrupts.received)
        sender.close()
        left = spool.num_waiting
        rejected = spool.rejections()
    print(f"sent {waiting - left}, {left} left")
    for line in rejected:
        print(f"WARNING: refused by MLflow: {scrubbed(line, sweep.uri)}", file=sys.stderr)
    if interrupts.received:
        return INTERRUPTED
    if not sent:
        print(f"error: {scrubbed(sender.problem, sweep.uri)}", file=sys.stderr)
    return DONE if sent and not rejected else FAILED
