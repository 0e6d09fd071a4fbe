"""The Matplotlib backend of our own processes, which draw into files."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

VARIABLE = "MPLBACKEND"
FILES_ONLY = "agg"


def draw_into_files(environment: MutableMapping[str, str] = os.environ) -> None:
    """Chooses the backend that needs neither a screen nor a notebook, before anything is imported.

    A Jupyter kernel names its own backend to all that it starts. Matplotlib refuses to be imported
    where that backend is not installed, and Keras imports it.
    """
    environment[VARIABLE] = FILES_ONLY
