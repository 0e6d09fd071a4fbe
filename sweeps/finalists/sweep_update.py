"""What a comparison of finalists changes on its sweep: the page, and the note of the run."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from sweeps.driver.report import write_report_of
from sweeps.driver.session import DRAIN_SECONDS
from sweeps.history.recorded_sweep import read_sweep
from sweeps.setup.stores import connect_tracker
from sweeps.state.sweep_file import FINISHED, INTERRUPTED, StoredSweep
from tracking.spool.records import SweepTagsRecord
from tracking.tags import Tag

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


def update_sweep(sweep: StoredSweep, *, send: bool, give_up: Callable[[], bool]) -> None:
    """Makes the page and the note of a sweep again, now that its finalists are known.

    The sweep's lock must be held. What cannot be sent now, `sync` sends.

    Args:
        send: whether MLflow is to be told now.
        give_up: asked again and again whether not to wait any longer.
    """
    from tracking.spool.sender import Sender
    from tracking.spool.spool import Spool

    try:
        recorded = read_sweep(sweep.paths)
        # Its lock is held, so it seems to run.
        recorded.state = FINISHED if recorded.file.is_finished else INTERRUPTED
        report = write_report_of(recorded)
        spool = Spool(sweep.paths.spool)
        spool.put(SweepTagsRecord({Tag.RUN_NOTE: report.note}, report.texts))
    except Exception as problem:  # A page must not cost the comparison its end.
        log.warning("no report: %s: %s", type(problem).__name__, problem)
        return
    if send:
        sender = Sender(
            spool, partial(connect_tracker, sweep.file.settings, sweep.file.data_name, spool)
        )
        sender.drain(DRAIN_SECONDS, give_up)
        sender.close()
    spool.close()
