"""How what somebody asked for came to its end; a command makes an exit status of it."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """DONE, FAILED, REFUSED by a rule that was asked for, or INTERRUPTED and able to go on."""

    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"
