"""An engine that searches nothing: it proposes trials of a fixed plan, and prunes none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipelines.training.trial import Decision
from search_spaces.errors import InputError
from search_spaces.hyperparameters import Params
from sweeps.engines.base import PastTrial, Proposal, TrialState, Wait


def _nothing_more() -> Sequence[Proposal]:
    return ()


class FixedEngine:
    """Proposes a plan in order, and what follows from its results.

    Args:
        plan: the proposals; their numbers are unique.
        past: those of an earlier session; they are not proposed again.
        more: asked when every trial has ended; what it returns and was not proposed yet is next.
    """

    def __init__(
        self,
        plan: Sequence[Proposal],
        past: Sequence[PastTrial] = (),
        more: Callable[[], Sequence[Proposal]] = _nothing_more,
    ) -> None:
        self._past, self._more = list(past), more
        self._known = {trial.number for trial in past}
        self._running = {trial.number for trial in past if not trial.state.is_end}
        self._waiting: list[Proposal] = []
        self._add(plan)

    def _add(self, proposals: Sequence[Proposal]) -> None:
        new = [proposal for proposal in proposals if proposal.number not in self._known]
        self._known |= {proposal.number for proposal in new}
        self._waiting += new

    def past(self) -> list[PastTrial]:
        """The trials of earlier sessions."""
        return self._past

    def ask(self) -> Proposal | Wait | None:
        """The next proposal; None when there is none and will be none."""
        if not self._waiting:
            if self._running:
                return Wait()
            self._add(self._more())
        if not self._waiting:
            return None
        proposal = self._waiting.pop(0)
        self._running.add(proposal.number)
        return proposal

    def add(self, params: Params) -> None:
        """Raises InputError: this engine proposes only points of its own."""
        del params
        raise InputError("These trials have a fixed plan, and take no further point.")

    def report(
        self, number: int, step: int, value: float, measured: Mapping[str, float] | None = None
    ) -> Decision:
        """Every trial trains in full."""
        del number, step, value, measured
        return Decision.GO_ON

    def pause(self, number: int) -> None:
        """Never asked for."""
        raise NotImplementedError

    def next_promotion(self, *, no_more_trials: bool) -> int | None:
        """Nothing waits at a rung."""
        del no_more_trials
        return None

    def resume(self, number: int) -> None:
        """Never asked for."""
        raise NotImplementedError

    def unpromotable(self, num_trials: int) -> list[int]:
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
        """The trial has ended; its results are the recorder's."""
        self._running.discard(number)
