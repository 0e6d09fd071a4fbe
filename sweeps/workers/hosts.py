"""Processes beside the trials that answer the driver's questions, as long as there are any.

The driver imports neither Keras nor a user's code. One process has a user's space and asks the
driver for every value, which relays each question to whoever samples (Optuna, a dict, chance);
another one has Keras Tuner and proposes what its oracle says.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.runtime.compute import DEFAULT_COMPUTE, Compute
from search_spaces.cost import Cost
from search_spaces.errors import InputError
from search_spaces.hyperparameters import GivenHyperParameters, active_values, declare
from search_spaces.hyperparameters.discovery import MAX_SAMPLES as MAX_LOOKS
from search_spaces.hyperparameters.parameter import Parameter, Params, Value
from search_spaces.pixels import AUTO
from search_spaces.space import Shape
from search_spaces.user_spaces.reference import Sources, check_sources, label_of
from sweeps.engines.keras_tuner_oracles.protocol import OracleAnswer, OracleQuestion
from sweeps.executors.base import Event, Executor, Job, Raised, Reported, Slot
from sweeps.workers.jobs import HostTask, Sampled, host_job, oracle_job

WAIT_SECONDS = 0.5
SPACE_JOB_ID = "space"
SPACE_SECONDS = 600.0
"""How long a space may build one model before it counts as stuck."""
MAX_SPACE_SAMPLES = 200
"""Every model that was built leaves something behind in Keras: a new process forgets it."""
ORACLE_JOB_ID = "oracle"
ORACLE_SECONDS = 600.0
"""How long one proposal may take: the Bayesian oracle's takes seconds, more with more trials."""
NUM_TRIES = 3
"""So often a process is made anew that somebody kills (a person, or a system out of memory)."""


class QueryProcess:
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
        """Starts the job; returns its first report, or how it ended instead.

        A process that is killed before it reports is started again.

        Raises:
            TimeoutError: There was none in time, and the process was ended.
        """
        for _ in range(NUM_TRIES):
            event = self._start(job, argument)
            if not _was_killed(event):
                break
        return event

    def _start(self, job: Job, argument: Any) -> Event:
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
        """Sends a question as the answer to the job's latest report; returns its next event.

        Raises:
            TimeoutError: There was none in time, and the process was ended.
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


class SpaceHost:
    """Samples one user's space in a process of its own, started when it is first needed.

    Args:
        make_executor: what runs the process; its server is the one that trials are forked from.
        compute: what its models are trained with.
        pixels: the training option, with which its default model is looked at.
    """

    def __init__(
        self,
        reference: str,
        input_shape: Shape,
        num_classes: int,
        make_executor: Callable[[], Executor],
        compute: Compute = DEFAULT_COMPUTE,
        pixels: str = AUTO,
    ) -> None:
        self._reference, self._label = reference, label_of(reference)
        self._compute = compute
        self._shape, self._num_classes = input_shape, num_classes
        self._process = QueryProcess(SPACE_JOB_ID, make_executor, SPACE_SECONDS)
        self._asked_pixels = pixels
        self._is_checked = False
        self._num_samples = 0
        self._costs: dict[str, Cost | None] = {}
        self.notes: tuple[str, ...] = ()
        self.sources: Sources = ()
        self.drops_class_weights = False
        self.own_metrics: tuple[str, ...] | None = None
        self.looks: list[Params] = []
        self.pixels = ""

    def sample(self, hp: Any) -> Params:
        """The active values of the point that `hp` chooses, as `Space.sample`.

        A space that raises at a point, or ends its process there every time, has asked for all
        that it needs to do so again: the values so far are the point, and its trial fails
        truthfully. A process that was killed is made anew and asked again: a parameter that `hp`
        has a value for keeps it.

        Raises:
            InputError: The space cannot be used at all.
            SourceChangedError: Its files are not what they were.
        """
        for _ in range(NUM_TRIES):
            event = self._asked(hp)
            if not _was_killed(event):
                break
        params = active_values(hp)
        if isinstance(event, Reported):
            self.note(*event.message.notes)
            self._costs[_key(params)] = event.message.cost
        return params

    def _asked(self, hp: Any) -> Event:
        """Has the space ask `hp` for one point; returns `Sampled`, or how its process ended."""
        self._make_ready()
        answer: Value | None = None
        while True:
            event = self._event_in_time(partial(self._process.ask, answer))
            if not isinstance(event, Reported) or isinstance(event.message, Sampled):
                return event
            assert isinstance(event.message, Parameter)
            try:
                answer = declare(hp, event.message)
            except BaseException:
                self._process.stop()  # It waits for an answer that does not come.
                raise

    def cost(self, params: Params, input_shape: Shape, num_classes: int) -> Cost | None:
        """What the model of a point costs, as `Space.cost_of`; None where it does not tell.

        A point that this process has not sampled, as in a resumed sweep, is built once for it.
        """
        del input_shape, num_classes  # It hosts the space for one of each.
        key = _key(params)
        if key not in self._costs:
            self._costs[key] = None  # What cannot be built again has no cost.
            with contextlib.suppress(InputError):
                self.sample(GivenHyperParameters(params))
        return self._costs[key]

    def note(self, *notes: str) -> None:
        """Adds what people should know of the space, once."""
        self.notes = tuple(dict.fromkeys((*self.notes, *notes)))

    def note_limit(self) -> None:
        """Says that the space has more to it than was looked at."""
        self.note(
            f"'{self._label}' has more conditional parameters than {MAX_LOOKS} models showed: "
            "the others are searched and recorded where they appear, but --describe does not list "
            "them, and --set and --fix cannot name them"
        )

    def rest(self) -> None:
        """Ends the process until it is asked again."""
        self._process.stop()

    def close(self) -> None:
        """Ends the process."""
        self._process.close()

    def _make_ready(self) -> None:
        """Has the process wait for work."""
        self._num_samples += 1
        if self._num_samples % MAX_SPACE_SAMPLES == 0:
            self._process.stop()
        if not self._process.is_running:
            self._start()

    def _start(self) -> None:
        check_sources(self.sources)
        task = HostTask(
            self._reference, self._shape, self._num_classes, not self._is_checked, self._compute,
            self._asked_pixels,
        )  # fmt: skip
        event = self._event_in_time(partial(self._process.start, host_job, task))
        if isinstance(event, Raised):
            raise _space_ended(self._label, event)
        assert isinstance(event, Reported) and isinstance(event.message, Sampled)
        if not self._is_checked:
            self.sources, self.pixels = event.message.sources, event.message.pixels
            self.own_metrics = event.message.own_metrics
        self._is_checked = True
        self.note(*event.message.notes)
        self.drops_class_weights |= event.message.drops_class_weights

    def _event_in_time(self, listen: Callable[[], Event]) -> Event:
        """The process' next event; raises InputError where it takes too long."""
        try:
            return listen()
        except TimeoutError as error:
            raise InputError(
                f"The space '{self._label}' did not build a model within {SPACE_SECONDS:g} seconds."
            ) from error


def _was_killed(event: Event) -> bool:
    return isinstance(event, Raised) and bool(event.signal)


def _key(params: Params) -> str:
    return json.dumps(params, sort_keys=True)


def _space_ended(reference: str, event: Raised) -> InputError:
    if event.kind == InputError.__name__:
        return InputError(event.reason)
    said = " ".join(event.details.strip().splitlines()[-1:])
    return InputError(
        f"The space '{reference}' cannot be used, because its process ended: {event.reason}"
        f"{f' ({said})' if said else ''}."
    )


class OracleHost:
    """Asks an oracle in a process of its own, started when it is first needed.

    Every question holds all that its answer follows from, so a process that died is made anew.

    Args:
        make_executor: what runs the process; its server is the one that trials are forked from.
    """

    def __init__(self, make_executor: Callable[[], Executor]) -> None:
        self._process = QueryProcess(ORACLE_JOB_ID, make_executor, ORACLE_SECONDS)

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
                    raise _oracle_ended(question, event)
            event = self._process.ask(question)
            if isinstance(event, Reported):
                assert isinstance(event.message, OracleAnswer)
                return event.message
        assert isinstance(event, Raised)
        raise _oracle_ended(question, event)

    def close(self) -> None:
        """Ends the process."""
        self._process.close()


def _oracle_ended(question: OracleQuestion, event: Raised) -> RuntimeError:
    return RuntimeError(
        f"the process of the oracle '{question.oracle}' ended: {event.reason}\n{event.details}"
    )
