"""What becomes of an error of the program itself: a file for whoever mends it, a line for the user.

No input of a user's should lead here; what does is a bug.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Mapping

from sweeps.executors.credentials import credentials
from sweeps.formatting import own_version
from tracking.addresses import HIDDEN, redacted, scrubbed

_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>`]+")
_SHORTEST = 4
"""Characters of a variable that is hidden: a shorter one would be found in half of all words."""


def crash_line(error: Exception) -> str:
    """Writes the traceback into a new file in the temporary folder; one line that names it.

    Only its owner may read the file. Where none can be made, the traceback goes to standard error.
    """
    what = type(error).__name__
    text = _without_secrets("".join(traceback.format_exception(error)), os.environ)
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


def _without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """A traceback that can be sent to others: a library's message may repeat what it was given."""
    for value in credentials(environment).values():
        if "://" in value:
            text = scrubbed(text, value)
        elif len(value) >= _SHORTEST:
            text = text.replace(value, HIDDEN)
    # Those of a --config file, which are in no variable.
    return _ADDRESS.sub(lambda found: redacted(found[0]), text)
