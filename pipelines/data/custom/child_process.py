"""A process that runs somebody else's code and never outlives the one that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

TICK_SECONDS = 1.0


def run_bound(arguments: Sequence[str], log: Path, tick: Callable[[], None]) -> int:
    """Runs a command to its end and answers its status; its output goes into a file.

    The command must call `end_with_starter` first. It leads a group of its own, so that whatever
    it starts ends with it, too.

    Args:
        tick: called every second while it runs.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    # Its standard input stays open as long as this process lives, however that ends.
    try:
        while True:
            try:
                return process.wait(TICK_SECONDS)
            except subprocess.TimeoutExpired:
                tick()
    finally:
        if process.returncode is None:
            _kill_group(process.pid)
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def end_with_starter() -> None:
    """Ends this process and its group as soon as the one that started it with `run_bound` ends."""
    watched = os.dup(0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # The code that runs here may want to read.

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(watched, 1):
                pass
        _kill_group(0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch-starter").start()


def _kill_group(group: int) -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(group, signal.SIGKILL)
        elif group:
            os.kill(group, signal.SIGTERM)
