"""What published models reached here, beside what was published. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search_spaces.space import Baseline

TOLERANCE_POINTS = 0.3
"""A difference above this calls for more seeds before it is believed."""


@dataclass(frozen=True)
class Reproduced:
    """What one training reached on the test split after its last epoch, as published."""

    test_accuracy: float
    test_loss: float
    num_parameters: int
    training_seconds: float

    @classmethod
    def of(cls, metrics: Mapping[str, float]) -> Reproduced:
        """From the final metrics of its run."""
        return cls(
            metrics["test_accuracy"],
            metrics["test_loss"],
            int(metrics["num_parameters"]),
            metrics["training_seconds"],
        )

    def difference_points(self, baseline: Baseline) -> float:
        """Reproduced minus published test accuracy, in percentage points."""
        return 100.0 * (self.test_accuracy - baseline.accuracy)

    def is_off(self, baseline: Baseline) -> bool:
        """Whether it differs by more than the tolerance."""
        return abs(self.difference_points(baseline)) > TOLERANCE_POINTS


@dataclass(frozen=True)
class BaselinesReport:
    """All results of a command.

    Attributes:
        results: by baseline, one result per seed.
        as_published: the baselines that were trained on their data set for their epochs; the
            others need not reach what was published.
        failures: by baseline, why a training failed.
    """

    chosen: tuple[Baseline, ...]
    results: Mapping[str, Sequence[Reproduced]]
    dataset: str
    as_published: frozenset[str]
    failures: Mapping[str, str]

    def median(self, baseline: Baseline) -> Reproduced | None:
        """The result of median test accuracy (of two the lower one); None without any."""
        return median_result(self.results.get(baseline.name, ()))

    def problems(self) -> list[str]:
        """Why the baselines are not reproduced, a line each."""
        lines = []
        for baseline in self.chosen:
            middle = self.median(baseline)
            if middle is None:
                reason = self.failures.get(baseline.name, "not trained")
                lines.append(f"{baseline.name}: {reason}")
            elif baseline.name in self.as_published and middle.is_off(baseline):
                lines.append(
                    f"{baseline.name} differs from its published accuracy by "
                    f"{middle.difference_points(baseline):+.2f} percentage points, more than the "
                    f"{TOLERANCE_POINTS} that seeds explain."
                )
        return lines


def median_result(results: Sequence[Reproduced]) -> Reproduced | None:
    """The result of median test accuracy (of two the lower one); None without any."""
    if not results:
        return None
    return sorted(results, key=lambda result: result.test_accuracy)[(len(results) - 1) // 2]
