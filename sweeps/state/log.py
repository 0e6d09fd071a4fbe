"""Each sweep's log, `sweep.log` in its folder: times, levels, and what happened.

Modules log as usual, by loggers of their own names. `sweep_log` is for what only the file has,
because people see it elsewhere: a view shows trials, a command the end. Nothing reaches a terminal
but by handlers that the program has, or `sweeps.reporting.console.warnings_shown`.
"""

from __future__ import annotations

import logging
import logging.handlers
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("sweeps", "pipelines", "tracking", "search_spaces")
SWEEP_LOG = "sweeps.log"
sweep_log = logging.getLogger(SWEEP_LOG)
MAX_BYTES, NUM_OLDER = 5_000_000, 2
"""The log of a sweep takes three times so much at most; a trial takes about 500 bytes."""
_LINE = "%(asctime)s %(levelname)-7s %(message)s"
_TIME = "%Y-%m-%d %H:%M:%S%z"

for _name in PACKAGES:
    logging.getLogger(_name).addHandler(logging.NullHandler())


class _Passed(logging.Handler):
    """Passes on to the program's own handlers what they would have had without the file."""

    def emit(self, record: logging.LogRecord) -> None:
        root = logging.getLogger()
        if root.handlers:
            root.callHandlers(record)


class _Loggers:
    """The packages' loggers while files take what they log: the first opens, the last closes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_open = 0
        self._before: list[tuple[logging.Logger, int, bool, logging.Handler]] = []

    def open(self, file: logging.Handler) -> None:
        with self._lock:
            if not self._num_open:
                for logger in map(logging.getLogger, PACKAGES):
                    passed = _Passed(logger.getEffectiveLevel())
                    self._before.append((logger, logger.level, logger.propagate, passed))
                    logger.addHandler(passed)
                    logger.propagate = False
                    logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
            self._num_open += 1
            for name in PACKAGES:
                logging.getLogger(name).addHandler(file)

    def close(self, file: logging.Handler) -> None:
        with self._lock:
            for name in PACKAGES:
                logging.getLogger(name).removeHandler(file)
            self._num_open -= 1
            while not self._num_open and self._before:
                logger, level, propagate, passed = self._before.pop()
                logger.removeHandler(passed)
                logger.setLevel(level)
                logger.propagate = propagate


_loggers = _Loggers()


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Everything from level INFO on that our packages log goes to a file, too; it is appended to.

    Sweeps that one process drives at once, in threads, see each other's lines.
    """
    file = _QuietFile(path, maxBytes=MAX_BYTES, backupCount=NUM_OLDER, encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter(_LINE, _TIME))
    file.setLevel(logging.INFO)
    _loggers.open(file)
    try:
        yield
    finally:
        _loggers.close(file)
        file.close()


class _QuietFile(logging.handlers.RotatingFileHandler):
    """A file whose disk may be full: then lines are lost, and the sweep goes on."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drops the line."""


def told(say: Callable[[str], None]) -> Callable[[str], None]:
    """Says lines to a person, and writes them into the sweep's log."""

    def both(text: str) -> None:
        sweep_log.info("%s", text)
        say(text)

    return both
