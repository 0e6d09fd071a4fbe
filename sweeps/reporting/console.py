"""Where lines and tables for people go: standard output, readable in a terminal and in a log."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipelines.runtime.standard_streams import printable
from search_spaces.errors import InputError
from sweeps.reporting.jupyter import is_cell_command, is_kernel
from sweeps.state.log import PACKAGES, SWEEP_LOG

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 120
"""Columns of a table where the output is no terminal, such as a log."""
INDENT = " " * 10
"""Of the lines that a long one is wrapped to."""
CELL_WIDTH = 100
"""Columns of a table in a notebook's cell."""


def say(text: str) -> None:
    """Prints a line, at once also where the output is a pipe; a terminal's are wrapped at words."""
    print(_wrapped(printable(text)), flush=True)


def _wrapped(text: str) -> str:
    """As wide as the terminal, further lines indented as what stands beside a line's title."""
    if "\n" in text or sys.stdout is None or not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size((PLAIN_WIDTH, 0)).columns
    return textwrap.fill(
        text, max(width, 2 * len(INDENT)), subsequent_indent=INDENT, break_long_words=False,
        break_on_hyphens=False, replace_whitespace=False,
    )  # fmt: skip


def warn(text: str) -> None:
    """Prints a line that people must not miss, on standard error."""
    print(f"WARNING: {text}", file=sys.stderr, flush=True)


def confirmed(question: str, *, yes: bool) -> bool:
    """Whether a person agrees.

    Args:
        yes: whether that was said by an option already.

    Raises:
        InputError: Nobody can be asked, and it was not said.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InputError("Nobody can be asked here: standard input is no terminal. Add --yes.")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Prints the warnings that our modules log meanwhile, as `warn` does."""
    handler = _Warnings(logging.WARNING)
    loggers = [logging.getLogger(name) for name in PACKAGES]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


class _Warnings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.name != SWEEP_LOG:
            warn(record.getMessage())


def speaker(quiet: bool) -> Callable[[str], None]:
    """What says a command's lines: `say`, or nothing at all."""
    return (lambda text: None) if quiet else say


def table_console(*, heeds_columns: bool = False, **options: Any) -> Console:
    """A console for tables: as wide as the terminal, else of one width; in a notebook plain text.

    Args:
        heeds_columns: whether COLUMNS, where it is set, is the width without a terminal.
        options: further ones of `rich.console.Console`. Text in brackets is never markup.
    """
    options |= {"markup": False, "force_jupyter": False}
    if is_kernel():
        return console(width=CELL_WIDTH, force_terminal=False, **options)
    if is_cell_command():
        return console(width=CELL_WIDTH, **options)
    plain = PLAIN_WIDTH
    if heeds_columns:
        plain = shutil.get_terminal_size((PLAIN_WIDTH, 0)).columns
    if os.environ.get("NO_COLOR"):  # rich keeps what is bold.
        options |= {"color_system": None, "highlight": False}
    return console(width=None if console().is_terminal else plain, **options)


def console(**options: Any) -> Console:
    """A console that writes codes of its own alone: those in a text are made printable.

    Args:
        options: those of `rich.console.Console`.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PlainConsole(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterator[Segment]:
            for found in super().render(renderable, options):
                is_text = not found.control
                text = printable(found.text) if is_text else found.text
                yield Segment(text, found.style, found.control)

    options.setdefault("file", getattr(sys.stdout, "styled", None))
    return PlainConsole(**options)
