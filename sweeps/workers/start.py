"""A command's workers: starts the server that they are forked from, and runs one job on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.runtime.compiled_programs import compiled_variables
from pipelines.runtime.compute import choose_backend
from sweeps.executors.base import Executor, Job, Raised, Reported, Returned, Slot
from sweeps.executors.credentials import passed
from sweeps.interrupts import Interrupts

if TYPE_CHECKING:
    from sweeps.executors.processes import ProcessExecutor, StartMethod

_served: list[str] = []
"""The backend of this process' server of workers: there is one server, for good."""
JOB_ID = "job"
WAIT_SECONDS = 0.5
"""How soon an interrupt is noticed."""


def start_workers(
    server_log: Path,
    backend: str = "tensorflow",
    warm_up: Callable[[Slot], None] | None = None,
    compiled: Path | None = None,
    pass_env: Collection[str] = (),
) -> ProcessExecutor:
    """An executor whose processes have Keras on that backend.

    Its server is shared by all executors of this process. A second backend, which a command needs
    that compares models of two, gets processes that import for themselves: seconds each.

    Args:
        warm_up: starts the device of a slot, in a spare process, before a trial needs it.
        compiled: the folder in which processes share what the backend compiles; None where each
            compiles for itself.
        pass_env: names of variables that the processes get although they are secrets.

    Raises:
        InputError: There is no such backend here.
    """
    from sweeps.executors.processes import ProcessExecutor

    choose_backend(backend)  # What is started from now on inherits it.
    if not _served:
        _served.append(backend)
    method: StartMethod | None = None if _served[0] == backend else "spawn"
    environment = {} if compiled is None else compiled_variables(compiled, backend)
    environment |= passed(pass_env)
    return ProcessExecutor(
        "sweeps.workers.preload", server_log, method, warm_up=warm_up, environment=environment
    )


SILENT_SECONDS = 6 * 3600.0
"""What one epoch, or the measurement of a model, may take."""


class JobFailedError(RuntimeError):
    """A job raised, or its process died.

    Attributes:
        event: how it ended; its kind, reason and details are those of the error.
    """

    def __init__(self, event: Raised) -> None:
        super().__init__(f"{event.kind}: {event.reason}")
        self.event = event
        self.kind, self.reason, self.details = event.kind, event.reason, event.details


def run_job(
    executor: Executor,
    job: Job,
    task: Any,
    slot: Slot,
    log_path: str,
    on_report: Callable[[Any], Any],
    interrupts: Interrupts,
    limit_seconds: float | None = None,
) -> Any:
    """Runs one job from start to end on an executor that has nothing else to do.

    A job that is silent for `SILENT_SECONDS` hangs, and is ended.

    Args:
        on_report: takes each of the job's messages and returns the answer.
        limit_seconds: how long it may take; None for as long as it does.

    Returns:
        The job's value; None where an interrupt or the limit came first, after which nothing runs
        any more.

    Raises:
        JobFailedError: The job did not return.
    """
    executor.start(JOB_ID, job, task, slot, log_path)
    last_report = time.monotonic()
    deadline = None if limit_seconds is None else last_report + limit_seconds
    while not interrupts.received and (deadline is None or time.monotonic() < deadline):
        if time.monotonic() - last_report > SILENT_SECONDS:
            executor.stop(JOB_ID)
            reason = f"no report within {SILENT_SECONDS:.0f} seconds"
            raise JobFailedError(Raised(JOB_ID, "Hang", reason, ""))
        for event in executor.events(WAIT_SECONDS):
            last_report = time.monotonic()
            match event:
                case Reported(message=message):
                    executor.answer(JOB_ID, on_report(message))
                case Returned(value=value):
                    return value
                case Raised() as raised:
                    if raised.died and interrupts.received:
                        return None  # What interrupts a service may end its processes, too.
                    raise JobFailedError(raised)
    executor.stop(JOB_ID)
    return None
