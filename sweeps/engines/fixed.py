"""An engine that searches nothing: it proposes given configurations, each once, and prunes none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.training.trial import Decision
from sweeps.engines.base import PastTrial, Proposal, TrialState


class PlannedEngine:
    """Proposes `plan` in order.

    Args:
        plan: the proposals, numbered from 0.
        past: those of an earlier session; they are not proposed again.
    """

    def __init__(self, plan: Sequence[Proposal], past: Sequence[PastTrial] = ()) -> None:
        self._past = list(past)
        known = {trial.number for trial in past}
        self._waiting = [proposal for proposal in plan if proposal.number not in known]

    def past(self) -> list[PastTrial]:
        """The trials of earlier sessions."""
        return self._past

    def ask(self) -> Proposal | None:
        """The next proposal, or None after the last."""
        return self._waiting.pop(0) if self._waiting else None

    def report(self, number: int, epoch: int, value: float) -> Decision:
        """Every trial trains in full."""
        del number, epoch, value
        return Decision.GO_ON

    def pause(self, number: int) -> None:
        """Never asked for."""
        raise NotImplementedError

    def next_promotion(self, *, closing: bool) -> int | None:
        """Nothing waits at a rung."""
        del closing
        return None

    def hopeless(self, num_trials: int) -> list[int]:
        """Nothing waits at a rung."""
        del num_trials
        return []

    def tell(
        self,
        number: int,
        state: TrialState,
        value: float | None = None,
        reason: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Nothing is learned."""

    def plots_html(self) -> str:
        """There is no study to show."""
        return ""
