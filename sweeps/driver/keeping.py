"""Which trials' models are kept: those of the best so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.objectives import Objective


@dataclass
class BestModels:
    """The best `limit` trials seen so far."""

    objective: Objective
    limit: int
    _kept: dict[int, float] = field(default_factory=dict)

    def offer(self, number: int, value: float) -> tuple[bool, int | None]:
        """Whether to keep this trial's model, and whose model it replaces.

        Of equals the earlier one stays.
        """
        self._kept[number] = value
        if len(self._kept) <= self.limit:
            return True, None
        worst = max(self._kept, key=lambda n: (self.objective.sort_key(self._kept[n]), n))
        del self._kept[worst]
        return worst != number, None if worst == number else worst
