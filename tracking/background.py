"""Runs a tracker's calls in order in one thread, so that training never waits for them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

_Call = tuple[Callable[..., Any], tuple[Any, ...]]


class BackgroundCalls:
    """A queue of calls with one worker thread. A call that raises is remembered, the rest goes on.

    `failures` holds one line per failed call.
    """

    def __init__(self) -> None:
        self._queue: queue.Queue[_Call] = queue.Queue()
        self.failures: list[str] = []
        # A daemon: a server that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._work, daemon=True, name="tracking")
        self._thread.start()

    def put(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Adds a call; returns at once."""
        self._queue.put((call, arguments))

    def drain(self, timeout_seconds: float, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Waits until all calls so far are done or `give_up` says so; answers whether they are."""
        deadline = time.monotonic() + timeout_seconds
        while self._queue.unfinished_tasks:
            if time.monotonic() > deadline or give_up():
                return False
            time.sleep(0.02)
        return True

    @property
    def num_waiting(self) -> int:
        """Calls that were put and are not done."""
        return self._queue.unfinished_tasks

    def _work(self) -> None:
        while True:
            call, arguments = self._queue.get()
            try:
                call(*arguments)
            except Exception as error:  # Whatever a store raises; the sweep goes on, and says so.
                first_line = (str(error).strip().splitlines() or [""])[0][:300]
                name = getattr(call, "__name__", str(call))
                self.failures.append(f"{name}: {type(error).__name__}: {first_line}")
            finally:
                self._queue.task_done()
