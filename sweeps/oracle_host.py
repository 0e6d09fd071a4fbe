"""The process that has Keras Tuner, and asks its oracles for the driver."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from search_spaces.errors import InputError
from sweeps.engines.oracles import OracleAnswer, OracleQuestion
from sweeps.executors.base import Event, Executor, Raised, Reported, Slot
from sweeps.jobs import oracle_job

JOB_ID = "oracle"
WAIT_SECONDS = 0.5
ANSWER_SECONDS = 600.0
"""How long one proposal may take: the Bayesian oracle's takes seconds, more with more trials."""
NUM_TRIES = 3


class OracleHost:
    """Answers questions in a process of its own, started when it is first needed.

    Every question holds all that its answer follows from, so a process that died is made anew.

    Args:
        make_executor: what runs the process; its server is the one that trials are forked from.
    """

    def __init__(self, make_executor: Callable[[], Executor]) -> None:
        self._make_executor = make_executor
        self._executor: Executor | None = None
        self._is_running = False

    def propose(self, question: OracleQuestion) -> OracleAnswer:
        """The oracle's answer.

        Raises:
            InputError: The oracle cannot search the space.
            RuntimeError: Its process died again and again.
        """
        death: Raised | None = None
        for _ in range(NUM_TRIES):
            executor = self._running()
            executor.answer(JOB_ID, question)
            event = self._event(executor)
            if isinstance(event, Reported):
                assert isinstance(event.message, OracleAnswer)
                return event.message
            assert isinstance(event, Raised)
            death, self._is_running = event, False
            if event.kind == "InputError":
                raise InputError(event.reason)
        assert death is not None
        raise RuntimeError(
            f"the process of the oracle '{question.oracle}' ended: {death.reason}\n{death.details}"
        )

    def close(self) -> None:
        """Ends the process."""
        if self._executor is not None:
            self._executor.close()
        self._is_running = False

    def _running(self) -> Executor:
        """The executor, with the process waiting for a question."""
        if self._executor is None:
            self._executor = self._make_executor()
        if not self._is_running:
            handle, log = tempfile.mkstemp(prefix="keras-sweeps-oracle-")
            os.close(handle)
            try:
                self._executor.start(JOB_ID, oracle_job, None, Slot(0, 1), log)
                event = self._event(self._executor)
            finally:
                with contextlib.suppress(OSError):
                    Path(log).unlink()  # The process has it open.
            if isinstance(event, Raised):
                raise RuntimeError(f"Keras Tuner cannot be used: {event.reason}\n{event.details}")
            self._is_running = True
        return self._executor

    def _event(self, executor: Executor) -> Event:
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            for event in executor.events(WAIT_SECONDS):
                return event
        executor.stop(JOB_ID)
        self._is_running = False
        raise RuntimeError(f"an oracle must answer within {ANSWER_SECONDS:g} seconds, and did not")
