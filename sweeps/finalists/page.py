"""The sweep's own page and note, made anew once its finalists are compared."""

from __future__ import annotations

import logging

from sweeps.driver.records.report import write_report
from sweeps.driver.session import DRAIN_SECONDS
from sweeps.formatting import error_text, in_work_dir
from sweeps.interrupts import Interrupts
from sweeps.setup.stores import Destination
from sweeps.state.sweep_file import StoredSweep
from tracking.addresses import scrubbed
from tracking.tags import Tag

log = logging.getLogger(__name__)


def show_finalists(sweep: StoredSweep, data_name: str, interrupts: Interrupts) -> list[str]:
    """Writes the page with its finalists, and sends it to the sweep's run in MLflow.

    The sweep's lock must be held. Nothing of it can fail the comparison, which has ended.

    Returns:
        One line for each problem.
    """
    from tracking.spool.records import SweepTagsRecord
    from tracking.spool.sender import Sender
    from tracking.spool.spool import Spool

    try:
        report = write_report(sweep.paths, is_over=True)
        spool = Spool(sweep.paths.spool)
        spool.put(SweepTagsRecord({Tag.RUN_NOTE: report.note}, texts=report.texts))
    except Exception as problem:  # A page must not cost a comparison its end.
        log.warning("no report: %s", error_text(problem))
        return []
    try:
        if sweep.file.settings.offline:
            return []
        sender = Sender(spool, Destination(sweep.file.settings, data_name, spool))
        is_sent = sender.drain(DRAIN_SECONDS, lambda: interrupts.urgent)
        sender.close()
        if is_sent:
            return []
        name = f"{sweep.paths.name}{in_work_dir(sweep.paths.work_dir)}"
        why = scrubbed(sender.problem, sweep.uri) or "too slow"
        return [
            f"the report with the finalists is not in MLflow yet ({why}); `keras-sweeps sync "
            f"{name}` sends it."
        ]
    finally:
        spool.close()
