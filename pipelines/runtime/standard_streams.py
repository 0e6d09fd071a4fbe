"""Standard streams that may be closed, full, or without a reader: work goes on all the same."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO, cast


def open_closed_streams() -> None:
    """Puts the null device in the place of standard streams that are closed.

    Otherwise the next file that is opened gets their number, and whatever is printed goes into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Gets the lowest number that is free: this one.


def flush_streams() -> None:
    """Writes out what was printed, as far as that is possible."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


class LastingOutput:
    """A standard stream whose loss ends nothing: from then on what is written is dropped.

    Letters that its encoding lacks are written as escapes.

    Attributes:
        problem: why it cannot be written any more; None while it can.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.problem: OSError | None = None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Writes a text, or drops it."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Writes out what is buffered, or drops it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        self.problem = self.problem or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def use_lasting_streams() -> None:
    """Makes standard output and standard error of this process last."""
    open_closed_streams()
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        setattr(sys, name, cast("TextIO", LastingOutput(stream)))


def lost_output() -> OSError | None:
    """Why standard output could not be written to its end; None where it was, or nobody reads it.

    A reader that has gone (`| head`) has what it wanted.
    """
    problem = getattr(sys.stdout, "problem", None)
    return None if isinstance(problem, BrokenPipeError) else problem
