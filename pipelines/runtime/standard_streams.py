"""Standard streams that may be closed, full, or without a reader: work goes on all the same."""

from __future__ import annotations

import contextlib
import os
import re
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


_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text without what a terminal obeys: control characters, and turns of the direction."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class LastingOutput:
    """A standard stream whose loss ends nothing: from then on what is written is dropped.

    Letters that its encoding lacks are written as escapes, and so is, on a terminal, what it obeys:
    names of classes, trials and files are other people's.

    Attributes:
        problem: why it cannot be written any more; None while it can.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.problem: OSError | None = None
        self._is_terminal = stream.isatty()
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Writes a text, or drops it; a first carriage return draws a line anew."""
        if self._is_terminal:
            first = text[:1] if text.startswith("\r") else ""
            self._write(first + printable(text.removeprefix("\r")))
        else:
            self._write(text)
        return len(text)

    @property
    def styled(self) -> Styled:
        """The same stream for what draws by a terminal's codes, and checks its texts itself."""
        return Styled(self)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except OSError as error:
            self._lose(error)

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


class Styled:
    """A lasting stream to which a terminal's codes are written as they are."""

    def __init__(self, output: LastingOutput) -> None:
        self._output = output

    def write(self, text: str) -> int:
        """Writes a text, or drops it."""
        self._output._write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output, name)


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
