"""A note on a sweep that nothing drives: into its records, and from there into MLflow."""

from __future__ import annotations

from search_spaces.errors import InputError
from sweeps.integrity.sync import SyncResult, sync_sweep
from sweeps.state.lock import driving
from sweeps.state.sweep_file import StoredSweep
from tracking.spool.records import SweepTagsRecord
from tracking.tags import Tag


def keep_note(sweep: StoredSweep, text: str) -> str:
    """Keeps the note, and sends it; returns why MLflow does not have it yet, in one line.

    Raises:
        InputError: A process drives the sweep.
    """
    from tracking.spool.spool import Spool

    with driving(sweep.paths):
        spool = Spool(sweep.paths.spool)
        spool.put(SweepTagsRecord({Tag.NOTE: text}))
        spool.close()
    results: list[SyncResult] = []
    try:
        sync_sweep(sweep, lambda line: None, results.append)
    except InputError as error:  # The server is away, or the sweep was never to be sent.
        return str(error)
    return next((result.problem for result in results if result.problem), "")
