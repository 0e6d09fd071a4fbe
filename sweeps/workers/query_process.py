"""A process beside the trials that waits for questions: on a user's space, to an oracle.

The driver imports neither Keras nor a user's code; a process that does answers for it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeps.executors.base import Event, Executor, Job, Reported, Slot

WAIT_SECONDS = 0.5


class AskedProcess:
    """One job that reports, and is answered, for as long as somebody has questions.

    Args:
        job_id: what the executor, and the log while it starts, call it.
        make_executor: what runs it; its server is the one that trials are forked from.
        answer_seconds: how long an answer may take before the process counts as stuck.
    """

    def __init__(
        self, job_id: str, make_executor: Callable[[], Executor], answer_seconds: float
    ) -> None:
        self._job_id, self._make_executor = job_id, make_executor
        self._answer_seconds = answer_seconds
        self._executor: Executor | None = None
        self.is_running = False

    def start(self, job: Job, argument: Any) -> Event:
        """Starts the job; answers its first report, or how it ended instead.

        Raises:
            TimeoutError: It does neither in time, and was ended.
        """
        if self._executor is None:
            self._executor = self._make_executor()
        handle, log = tempfile.mkstemp(prefix=f"keras-sweeps-{self._job_id}-")
        os.close(handle)
        try:
            self._executor.start(self._job_id, job, argument, Slot(0, 1), log)
            self.is_running = True
            return self._event(self._executor)
        finally:
            with contextlib.suppress(OSError):
                Path(log).unlink()  # The process has it open.

    def ask(self, question: Any) -> Event:
        """Answers the job's latest report with a question; its next report, or how it ended.

        Raises:
            TimeoutError: It does neither in time, and was ended.
        """
        assert self._executor is not None
        self._executor.answer(self._job_id, question)
        return self._event(self._executor)

    def stop(self) -> None:
        """Ends the job; it can be started again."""
        if self._executor is not None and self.is_running:
            self._executor.stop(self._job_id)
        self.is_running = False

    def close(self) -> None:
        """Ends the job and frees what runs it."""
        if self._executor is not None:
            self._executor.close()
        self.is_running = False

    def _event(self, executor: Executor) -> Event:
        deadline = time.monotonic() + self._answer_seconds
        while time.monotonic() < deadline:
            for event in executor.events(WAIT_SECONDS):
                self.is_running = isinstance(event, Reported)
                return event
        self.stop()
        raise TimeoutError(f"no answer within {self._answer_seconds:g} seconds")
