"""The exit statuses of every command."""

from __future__ import annotations

from sweeps.outcome import Outcome

DONE, FAILED, BAD_INPUT, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130
"""INTERRUPTED is what shells give a process that SIGINT ended."""
EXIT_CODES = {
    Outcome.DONE: DONE,
    Outcome.FAILED: FAILED,
    Outcome.REFUSED: REFUSED,
    Outcome.INTERRUPTED: INTERRUPTED,
}
