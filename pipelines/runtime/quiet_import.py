"""Keeps what TensorFlow's C++ prints while it starts off the terminal of a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextmanager
def quiet_start() -> Iterator[None]:
    """Hides standard error while TensorFlow is imported and first used; nothing afterwards.

    Its first lines (no GPU found, no driver) are printed before it minds any level, straight to
    the descriptor. Exceptions pass as ever. Who sets TF_CPP_MIN_LOG_LEVEL sees everything.
    """
    if LEVEL in os.environ or "tensorflow" in sys.modules:
        yield
        return
    os.environ[LEVEL] = "2"
    try:
        kept = os.dup(2)
    except OSError:  # Standard error is closed: nothing to hide.
        yield
        return
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
