"""Sends what a sweep, and the comparison of its finalists, have recorded and MLflow lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sweeps.finalists.selection import sweep_run_id
from sweeps.formatting import count
from sweeps.interrupts import Interrupts
from sweeps.outcome import Outcome
from sweeps.setup.stores import connect_tracker
from sweeps.state.lock import driving
from sweeps.state.log import sweep_log
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

PATIENCE_SECONDS = 60.0
"""How long not a single record may arrive before sending is given up."""


@dataclass(frozen=True)
class SyncResult:
    """What one spool has sent.

    Attributes:
        outcome: FAILED where records are left, or set aside.
        sent, left: records; those that were set aside earlier and have been sent now count.
        set_aside: what could not be sent, a line each; the next `sync` tries it again.
        problem: why the rest was not sent, one line; empty where nothing is left.
    """

    outcome: Outcome
    sent: int
    left: int
    set_aside: tuple[str, ...] = ()
    problem: str = ""


def sync_sweep(
    sweep: StoredSweep,
    say: Callable[[str], None],
    on_result: Callable[[SyncResult], None] = lambda result: None,
) -> Outcome:
    """Sends a sweep's records, then those of its finalists; takes the sweep's lock.

    From then on the sweep is recorded in the store that it was sent to.

    Args:
        say: tells a person what is being sent, one line a call.
        on_result: called with what each of the two has sent.

    Raises:
        InputError: The store cannot be used, or a part of the sweep is in another one.
    """
    check_store(sweep.uri)
    from tracking.spool.spool import Spool

    with driving(sweep.paths), Interrupts() as interrupts:
        spool = Spool(sweep.paths.spool)
        stored = read_sweep_file(sweep.paths.state)
        check_same_store(stored, sweep.uri, sent=bool(spool.answers()))
        settings = replace(stored.settings, tracking_uri=sweep.uri)
        write_sweep_file(sweep.paths.state, replace(stored, settings=settings))
        waiting = count(spool.num_waiting, "record")
        say(f"sending {waiting} of {sweep.paths.name} to {redacted(sweep.uri)}")
        tracker = connect_tracker(sweep.file.settings, sweep.file.data_name, spool)
        outcome = _send(sweep, spool, tracker, interrupts, on_result)
        final = sweep.paths.finalists.spool
        if outcome is Outcome.DONE and final.exists():
            spool = Spool(final)
            say(f"sending {count(spool.num_waiting, 'record')} of its finalists")
            tracker = connect_tracker(
                sweep.file.settings, sweep.file.data_name, spool, sweep_run_id(sweep.paths)
            )
            outcome = _send(sweep, spool, tracker, interrupts, on_result)
    return outcome


def _send(
    sweep: StoredSweep,
    spool: Spool,
    tracker: MlflowTracker,
    interrupts: Interrupts,
    on_result: Callable[[SyncResult], None],
) -> Outcome:
    from tracking.spool.sender import Sender

    waiting = spool.num_waiting + len(spool.reasons_aside())
    sender = Sender(spool, lambda: tracker)
    is_sent = sender.drain(PATIENCE_SECONDS, lambda: interrupts.received)
    sender.close()
    left = spool.num_waiting
    aside = tuple(scrubbed(line, sweep.uri) for line in spool.aside_lines())
    sent = waiting - left - len(aside)
    problem = "" if is_sent else scrubbed(sender.problem, sweep.uri) or "too slow"
    outcome = Outcome.DONE if is_sent and not aside else Outcome.FAILED
    if interrupts.received:
        outcome, problem = Outcome.INTERRUPTED, ""
    sweep_log.info("sent %d records to MLflow, %d left. %s", sent, left, problem)
    on_result(SyncResult(outcome, sent, left, aside, problem))
    return outcome
