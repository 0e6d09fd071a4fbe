"""The interface of an engine, and the states in which a trial can end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from search_spaces.hyperparameters import Params


class TrialState(StrEnum):
    """How a trial stands; the last four are ends, and each is told truthfully everywhere.

    COMPLETE trained to its end (or stopped early by its own patience), PRUNED was stopped by the
    driver, FAILED raised or died, KILLED was ended because the sweep was.
    """

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"
    KILLED = "KILLED"


@dataclass(frozen=True)
class Proposal:
    """One trial to run; `baseline` names the published configuration it is, if any."""

    number: int
    params: Params
    baseline: str | None = None


class Engine(Protocol):
    """Proposes trials and learns from what they reach."""

    def ask(self) -> Proposal | None:
        """The next trial, or None when the space is exhausted."""

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Records the objective after an epoch (from 1); answers whether the trial goes on."""

    def tell(
        self, number: int, state: TrialState, value: float | None = None, reason: str = ""
    ) -> None:
        """Ends a trial. `value` is required for COMPLETE and ignored otherwise."""

    def plots_html(self) -> str:
        """One self-contained page with what the study shows, for people."""
