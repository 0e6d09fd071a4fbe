"""The interface of an executor: start jobs on slots, receive their reports and how they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.runtime.device import MemoryShare

Job = Callable[..., Any]
"""`job(argument, report, slot)`; `report(message)` returns the driver's answer."""


@dataclass(frozen=True)
class Slot:
    """A share of the machine that one trial may use: CPU threads and at most one GPU.

    Attributes:
        num_sharing: so many equal shares its GPU is cut into.
        memory: what it may allocate there; None for what it finds.
        gpu_bytes: all memory of its GPU; None without one, or where that does not tell.
        node: the machine of a cluster that it is on; empty for this one.
    """

    index: int
    num_threads: int
    gpu: str | None = None
    num_sharing: int = 1
    memory: MemoryShare | None = None
    gpu_bytes: int | None = None
    node: str = ""


@dataclass(frozen=True)
class Reported:
    """A job sent a message and waits for `Executor.answer`."""

    job_id: str
    message: Any


@dataclass(frozen=True)
class Returned:
    """A job ended with a value."""

    job_id: str
    value: Any


DIED, LOST = "Died", "Lost"
"""The kinds of ends without an exception: the process died, or its machine is gone."""


@dataclass(frozen=True)
class Raised:
    """A job ended with an exception, or its process died.

    Attributes:
        kind: the exception's class name, `DIED` or `LOST`.
        reason: one line for people.
        details: the traceback, or the last lines that the dead process printed.
        signal: the name of the signal that killed the process; empty without one.
        memory_ran_out: whether its machine, which is another one, was short of memory meanwhile.
        here: whether it failed at the driver, on its way to or from another machine.
    """

    job_id: str
    kind: str
    reason: str
    details: str
    signal: str = ""
    memory_ran_out: bool = False
    here: bool = False

    @property
    def died(self) -> bool:
        """Whether the process ended before the job could raise anything."""
        return self.kind == DIED

    @property
    def lost(self) -> bool:
        """Whether the machine that it ran on is gone."""
        return self.kind == LOST


Event = Reported | Returned | Raised


class Executor(Protocol):
    """Runs jobs. Every started job yields exactly one `Returned` or `Raised`, unless stopped."""

    def start(self, job_id: str, job: Job, argument: Any, slot: Slot, log_path: str) -> None:
        """Starts a job; its output goes to `log_path`."""

    def events(self, timeout_seconds: float) -> list[Event]:
        """What has happened; waits at most so long for the first event."""

    def answer(self, job_id: str, answer: Any) -> None:
        """Sends the answer to a job's latest report."""

    def process_id(self, job_id: str) -> int | None:
        """The process of a running job on this machine; None where there is none."""

    def stop(self, job_id: str) -> None:
        """Ends a job at once; no event follows."""

    def keep_warm(self, slots: Sequence[Slot]) -> None:
        """Where it helps, one process waits ready for a job on each of these slots; others end."""

    def close(self) -> None:
        """Ends all jobs and frees what the executor holds."""
