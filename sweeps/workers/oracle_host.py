"""Asks Keras Tuner's oracles for the driver, in the process that has Keras Tuner."""

from __future__ import annotations

from collections.abc import Callable

from sweeps.engines.keras_tuner_oracles.protocol import OracleAnswer, OracleQuestion
from sweeps.executors.base import Executor, Raised, Reported
from sweeps.workers.jobs import oracle_job
from sweeps.workers.query_process import AskedProcess

JOB_ID = "oracle"
ANSWER_SECONDS = 600.0
"""How long one proposal may take: the Bayesian oracle's takes seconds, more with more trials."""
NUM_TRIES = 3


class OracleHost:
    """Answers questions from a process of its own, started when it is first needed.

    Every question holds all that its answer follows from, so a process that died is made anew.

    Args:
        make_executor: what runs the process; its server is the one that trials are forked from.
    """

    def __init__(self, make_executor: Callable[[], Executor]) -> None:
        self._process = AskedProcess(JOB_ID, make_executor, ANSWER_SECONDS)

    def propose(self, question: OracleQuestion) -> OracleAnswer:
        """The oracle's answer.

        Raises:
            RuntimeError: Its process died again and again.
            TimeoutError: It does not answer.
        """
        for _ in range(NUM_TRIES):
            if not self._process.is_running:
                event = self._process.start(oracle_job, None)
                if isinstance(event, Raised):
                    raise _unusable(question, event)
            event = self._process.ask(question)
            if isinstance(event, Reported):
                assert isinstance(event.message, OracleAnswer)
                return event.message
        assert isinstance(event, Raised)
        raise _unusable(question, event)

    def close(self) -> None:
        """Ends the process."""
        self._process.close()


def _unusable(question: OracleQuestion, event: Raised) -> RuntimeError:
    return RuntimeError(
        f"the process of the oracle '{question.oracle}' ended: {event.reason}\n{event.details}"
    )
