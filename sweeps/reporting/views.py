"""The view of a sweep that fits where its output goes."""

from __future__ import annotations

from sweeps.driver.board.views import QuietView, View
from sweeps.reporting.jupyter import is_cell_command, is_kernel
from sweeps.reporting.notebook import BriefView, NotebookView
from sweeps.reporting.progress import LiveView, PlainView, can_redraw


def make_view(quiet: bool) -> View:
    """The view for a notebook, a cell's command, a terminal, or anything else."""
    if quiet:
        return QuietView()
    if is_kernel():
        return NotebookView()
    if is_cell_command():
        return BriefView()
    return LiveView() if can_redraw() else PlainView()
