"""What becomes of an error of the program itself: a file for whoever mends it, a line for the user.

No input of a user's should lead here; what does is a bug.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback

from sweeps.formatting import own_version
from sweeps.settings import STORAGE_VARIABLE
from tracking.addresses import scrubbed

_ADDRESSES = ("MLFLOW_TRACKING_URI", STORAGE_VARIABLE)
"""Variables whose passwords a library's message may repeat."""


def crash_line(error: Exception) -> str:
    """Writes the traceback into a new file in the temporary folder; one line that names it.

    Only its owner may read the file. Where none can be made, the traceback goes to standard error.
    """
    what = type(error).__name__
    text = "".join(traceback.format_exception(error))
    for name in _ADDRESSES:
        text = scrubbed(text, os.environ.get(name, ""))
    head = f"keras-sweeps {own_version()}, Python {platform.python_version()} on {sys.platform}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="keras-sweeps-error-", suffix=".txt", delete=False, encoding="utf-8",
            errors="backslashreplace",
        ) as file:  # fmt: skip
            file.write(f"{head}\n\n{text}")
    except OSError:
        print(text, file=sys.stderr)
        return f"keras-sweeps failed ({what}): this is a bug; please report the lines above"
    return (
        f"keras-sweeps failed ({what}): this is a bug. Please report it with what is in {file.name}"
    )
