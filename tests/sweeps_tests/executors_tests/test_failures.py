"""What ended a job is named: whose failure it is, and whether another try can help."""

from __future__ import annotations

import pytest

from sweeps.executors.base import Raised
from sweeps.executors.failures import classify


def test_failures_are_named_and_only_some_are_tried_again():
    def named(
        kind: str, reason: str = "", short: bool = False, signal: str = ""
    ) -> tuple[str, bool]:
        failure = classify(Raised("trial-0", kind, reason, "", signal), memory_ran_out=short)
        return failure.kind.name, failure.can_retry

    assert named("ResourceExhaustedError") == ("OUT_OF_MEMORY", True)
    assert named("InternalError", "RESOURCE_EXHAUSTED: 2 GiB") == ("OUT_OF_MEMORY", True)
    assert named("Died", "killed", True, "SIGKILL") == ("OUT_OF_MEMORY", True)
    assert named("Died", "killed, not by SIGKILL", True, "SIGSEGV") == ("CRASH", True)
    assert named("NonFiniteLossError") == ("NOT_FINITE", False)
    assert named("ValueError") == ("EXCEPTION", False)
    assert named("ConnectionResetError") == ("EXCEPTION", True)
    assert named("InternalError", "Dst tensor is not initialized.") == ("OUT_OF_MEMORY", True)
    details = "InternalError: Graph execution error:\nCUDNN_STATUS_ALLOC_FAILED"
    for kind, expected in (("InternalError", "OUT_OF_MEMORY"), ("ValueError", "EXCEPTION")):
        event = Raised("trial-0", kind, "Graph execution error:", details)
        assert classify(event, memory_ran_out=False).kind.name == expected
    assert named("OSError", "[Errno 28] No space left on device") == ("EXCEPTION", False)
    assert named("ResourceExhaustedError", "No space left on device") == ("EXCEPTION", False)


@pytest.mark.parametrize(
    ("kind", "reason", "is_machines"),
    [
        ("OSError", "[Errno 28] No space left on device: 'trial-0003/x'", True),
        ("ResourceExhaustedError", "trial-0003/events; No space left on device", True),
        ("DataLostError", "the prepared data in data/x-1 are gone or damaged", True),
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'extra.npy'", True),
        ("Died", "the process was killed by signal SIGBUS", True),
        ("MemoryError", "", False),
        ("NonFiniteLossError", "The loss became nan", False),
        ("ValueError", "negative dimension", False),
    ],
)
def test_what_is_the_machines_is_told_from_what_is_a_points(kind, reason, is_machines):
    failure = classify(Raised("trial-3", kind, reason, ""), memory_ran_out=False)
    assert failure.is_machines is is_machines
    assert ("No space left" in reason) == (failure.cause == "No space left")
