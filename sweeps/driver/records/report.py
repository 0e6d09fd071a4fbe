"""The sweep's page, `report.html` in its folder: refreshed while it runs, and made at its end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.runtime.filesystem import replaced_atomically
from sweeps.driver.board.board import Board
from sweeps.driver.board.views import QuietView
from sweeps.history.recorded_sweep import RecordedSweep, read_sweep
from sweeps.html_report.curve_picture import curve_picture
from sweeps.html_report.figures import curves_frame
from sweeps.html_report.findings import ParameterFinding, parameter_findings
from sweeps.html_report.note import CURVE_FILE, run_note
from sweeps.html_report.page import report_page
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import FINISHED, INTERRUPTED
from tracking.spool.records import now_ms

log = logging.getLogger(__name__)
REFRESH_SECONDS = 120.0
"""A page of a large sweep takes seconds of one core, and megabytes."""


@dataclass(frozen=True)
class Report:
    """What is told of a sweep.

    Attributes:
        texts: files of its run in MLflow: the page, and the picture in the note.
        note: Markdown, for its run in MLflow.
        telling: the parameters that differ between trials, the most important first.
        frame: what curves show of the objective, from and to; None for all of it.
    """

    texts: Mapping[str, str]
    note: str
    telling: tuple[str, ...]
    frame: Sequence[float] | None = None


def write_report(paths: SweepPaths, ended: str = "", *, is_over: bool = False) -> Report:
    """Writes the page, and returns all of the report.

    Args:
        ended: why the sweep ends, which its records do not say yet; empty while it runs.
        is_over: whether it is over as its records say, although this process holds its lock.

    Raises:
        OSError: There is no room.
        InputError: The records are damaged.
    """
    sweep = read_sweep(paths)
    if ended:
        sweep.state, sweep.stopped_by = FINISHED, ended
    elif is_over:
        sweep.state = FINISHED if sweep.file.is_finished else INTERRUPTED
    page, findings = report_page([sweep]), parameter_findings(sweep)
    with replaced_atomically(sweep.paths.report) as file:
        file.write(page.encode())
    texts = {sweep.paths.report.name: page}
    try:
        curve = curve_picture(sweep)
    except Exception as problem:  # Fonts, folders: a picture must not cost the page.
        log.warning("no picture: %s: %s", type(problem).__name__, problem)
        curve = ""
    if curve:
        texts[CURVE_FILE] = curve
    note = run_note(sweep, findings, now_ms(), has_curve=bool(curve))
    return Report(texts, note, _telling(sweep, findings), curves_frame(sweep))


def _telling(sweep: RecordedSweep, findings: Sequence[ParameterFinding]) -> tuple[str, ...]:
    """Those whose importance nobody can say follow, by how many values they took."""

    def num_values(name: str) -> int:
        return len({repr(trial.params.get(name)) for trial in sweep.trained})

    others = sorted(sweep.varying, key=num_values, reverse=True)
    return tuple(dict.fromkeys([*(finding.name for finding in findings), *others]))


class ReportView(QuietView):
    """Refreshes the page now and then, in a thread: the trials do not wait for it."""

    def __init__(self, paths: SweepPaths) -> None:
        self._paths = paths
        self._thread: threading.Thread | None = None
        self._written = 0.0

    def update(self, board: Board) -> None:
        """Begins to write the page, where the last time is long enough ago."""
        now = board.clock()
        self._written = self._written or now
        is_busy = self._thread is not None and self._thread.is_alive()
        if is_busy or now - self._written < REFRESH_SECONDS:
            return
        self._written = now
        self._thread = threading.Thread(target=self._write, daemon=True, name="report")
        self._thread.start()

    def close(self) -> None:
        """Waits for a page that is being written."""
        if self._thread is not None:
            self._thread.join()

    def _write(self) -> None:
        try:
            write_report(self._paths)
        except Exception as problem:  # A page must not cost a sweep anything.
            log.warning("no report: %s: %s", type(problem).__name__, problem)
