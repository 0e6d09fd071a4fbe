"""Whether what is printed appears in a notebook."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

COMMANDS_HAVE = ("JPY_PARENT_PID", "PYDEVD_IPYTHON_COMPATIBLE_DEBUGGING")
"""What kernels pass on to commands in their cells: those of Jupyter, and those of VS Code."""


def is_kernel() -> bool:
    """Whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def is_cell_command(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a kernel started this process, as for `!keras-sweeps run`.

    Its output is a terminal to `isatty`, of 80 columns, but the cell cannot move the cursor up.
    """
    return not is_kernel() and any(name in environment for name in COMMANDS_HAVE)
