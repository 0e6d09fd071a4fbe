"""The pages of MLflow's UI that show a sweep."""

from __future__ import annotations

import os
import sys
import webbrowser

from search_spaces.errors import InputError
from sweeps.history.recorded_sweep import RecordedSweep
from tracking.rest import experiment_of_run, experiment_tags
from tracking.stores import public_address
from tracking.views.links import VIEW_PREFIX, charts_link, plain_link, trials_view


def sweep_page(address: str, sweep: RecordedSweep) -> str:
    """The page of a sweep in the MLflow at an address: its saved view, else its runs.

    Raises:
        InputError: That MLflow does not answer, or does not know the sweep.
    """
    if not sweep.run_id:
        raise InputError(
            f"Sweep '{sweep.name}' has nothing in MLflow yet. Send it: `keras-sweeps sync "
            f"{sweep.name}`."
        )
    experiment_id, public = experiment_of_run(address, sweep.run_id), public_address(address)
    view_id = trials_view(sweep.file.uid)
    if f"{VIEW_PREFIX}{view_id}" in experiment_tags(address, experiment_id):
        return charts_link(public, experiment_id, view_id)
    return plain_link(public, experiment_id, sweep.file.uid)


def open_in_browser(page: str) -> None:
    """Opens a page where there is a screen; elsewhere nothing happens, and nothing is printed."""
    has_screen = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if has_screen:
        webbrowser.open(page)
