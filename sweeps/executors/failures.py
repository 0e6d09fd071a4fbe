"""What a failure was, and whether another try can help."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from search_spaces.errors import SearchEndedError
from sweeps.executors.base import Raised


class FailureKind(StrEnum):
    """The kinds of failures that are told apart."""

    EXCEPTION = "exception"
    NOT_FINITE = "NaN or infinite loss"
    OUT_OF_MEMORY = "out of memory"
    CRASH = "crash"
    HANG = "hang"


# Raised by TensorFlow, by Python, and (as text: they have no types for it) by XLA, JAX and PyTorch.
_MEMORY_ERRORS = ("ResourceExhaustedError", "MemoryError", "OutOfMemoryError")
_MEMORY_TEXTS = ("RESOURCE_EXHAUSTED", "out of memory", "CUDA_ERROR_OUT_OF_MEMORY",
                 "_STATUS_ALLOC_FAILED", "Dst tensor is not initialized")  # fmt: skip
# Their first line may be `Graph execution error:`; what happened is somewhere below.
_RUNTIME_ERRORS = ("InternalError", "UnknownError", "XlaRuntimeError", "JaxRuntimeError")
# Raised by a user's space, whatever it says: another try would end in the same way.
_ON_PURPOSE = ("FailedTrialError", SearchEndedError.__name__)
# What the machine or its neighbours do to a process, and what passes often.
_PASSING_ERRORS = (
    "OSError",
    "BlockingIOError",
    "ConnectionError",
    "ConnectionResetError",
    "BrokenPipeError",
    "EOFError",
    "TimeoutError",
    "InternalError",
    "UnavailableError",
)
# What is the machine's, too, and does not pass from one try to the next.
_LASTING_ERRORS = (
    "FileNotFoundError",
    "IsADirectoryError",
    "NotADirectoryError",
    "PermissionError",
    "DataLostError",
)
_FULL_DISK = ("No space left", "Disk quota exceeded", "database or disk is full")


@dataclass(frozen=True)
class Failure:
    """A named failure; `reason` is one line for people.

    Attributes:
        is_machines: whether it is the machine's, so that the next trials would fail in the same
            way: files that are gone, a full disk, processes that die. Others are in the program or
            the point.
    """

    kind: FailureKind
    reason: str
    details: str
    can_retry: bool
    is_machines: bool = False

    @property
    def cause(self) -> str:
        """What failures of one cause have in common.

        Messages of libraries often name the trial's number or folder: digits make no other cause.
        A full disk shows itself at many places.
        """
        if any(words in self.reason for words in _FULL_DISK):
            return _FULL_DISK[0]
        return re.sub(r"\d+", "#", f"{self.kind}: {self.reason}")


def classify(event: Raised, *, memory_ran_out: bool) -> Failure:
    """Names what ended a job.

    Args:
        memory_ran_out: whether the kernel ended some process for want of memory meanwhile.
    """
    text = f"{event.kind}: {event.reason}"
    said = event.reason + (event.details if event.kind in _RUNTIME_ERRORS else "")
    full = any(words in event.reason for words in _FULL_DISK)
    short = event.kind in _MEMORY_ERRORS or any(part in said for part in _MEMORY_TEXTS)
    if full:  # Which TensorFlow calls an exhausted resource, too.
        return Failure(FailureKind.EXCEPTION, text, event.details, False, is_machines=True)
    if event.died:
        if memory_ran_out and event.signal == "SIGKILL":
            text = f"{event.reason}, because the machine ran out of memory"
            return Failure(FailureKind.OUT_OF_MEMORY, text, event.details, True)
        return Failure(FailureKind.CRASH, text, event.details, True, is_machines=True)
    if short and event.kind not in _ON_PURPOSE:
        return Failure(FailureKind.OUT_OF_MEMORY, text, event.details, True)
    if event.kind == "NonFiniteLossError":
        # It follows from the point and the seed: another try would end in the same way.
        return Failure(FailureKind.NOT_FINITE, text, event.details, False)
    passing = event.kind in _PASSING_ERRORS
    is_machines = passing or event.kind in _LASTING_ERRORS
    return Failure(FailureKind.EXCEPTION, text, event.details, passing, is_machines)


def lost(event: Raised, num_moves: int) -> Failure:
    """A trial that has lost more nodes than a trial is moved for: it may be what ends them."""
    reason = f"Crash: {event.reason}, as were {num_moves} nodes under it before"
    return Failure(FailureKind.CRASH, reason, event.details, False)


def hang(seconds: float) -> Failure:
    """A trial that reports nothing any more."""
    reason = f"Hang: no report within {seconds:.0f} seconds"
    return Failure(FailureKind.HANG, reason, "", True)


def kernel_memory_kills() -> int:
    """How many processes this machine's kernel has ended for want of memory; 0 where unknown."""
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        return 0
    return 0
