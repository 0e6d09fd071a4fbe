"""Recorded against replayed numbers, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sweeps.formatting import count
from sweeps.resources.gpu_monitor import SYSTEM

TIMINGS = frozenset({"epoch_seconds", "images_per_second"})
"""No two trainings take the same time."""


@dataclass(frozen=True)
class Difference:
    """A metric that came out otherwise in an epoch; `replayed` is None where it did not at all."""

    epoch: int
    metric: str
    recorded: float
    replayed: float | None

    @property
    def text(self) -> str:
        """All of it in one line, every digit that a double has."""
        return f"epoch {self.epoch}, {self.values_text}"

    @property
    def values_text(self) -> str:
        """The metric with both values, without the epoch."""
        if self.replayed is None:
            return f"{self.metric}: recorded {self.recorded!r}, not replayed"
        return (
            f"{self.metric}: recorded {self.recorded!r}, replayed {self.replayed!r}, difference "
            f"{self.replayed - self.recorded:+.3g}"
        )


class Comparison:
    """Holds replayed epochs against the recorded ones, bit for bit."""

    def __init__(self, recorded: Mapping[int, Mapping[str, float]]) -> None:
        self._recorded = recorded
        self.first: Difference | None = None
        self.num_epochs = 0
        self.num_differing = 0
        self._metrics: set[str] = set()

    def add(self, epoch: int, metrics: Mapping[str, float]) -> list[Difference]:
        """What differs in an epoch, in the order in which an epoch measures.

        What only the replay measures is no difference, and an epoch that was never recorded is
        not counted.
        """
        if epoch not in self._recorded:
            return []
        values = self._recorded[epoch].items()
        recorded = {name: value for name, value in values if _follows_from_training(name)}
        found = [
            Difference(epoch, name, recorded[name], metrics.get(name))
            for name in [*metrics, *sorted(recorded.keys() - metrics.keys())]
            if name in recorded and not _same(recorded[name], metrics.get(name))
        ]
        self.num_epochs += 1
        self.num_differing += bool(found)
        self._metrics |= recorded.keys()
        if found and self.first is None:
            self.first = found[0]
        return found

    @property
    def extent(self) -> str:
        """What was compared: `3 epochs, 5 metrics`."""
        return f"{count(self.num_epochs, 'epoch')}, {count(len(self._metrics), 'metric')}"


def _follows_from_training(name: str) -> bool:
    return name not in TIMINGS and not name.startswith(SYSTEM)


def _same(recorded: float, replayed: float | None) -> bool:
    if replayed is None:
        return False
    return recorded == replayed or (math.isnan(recorded) and math.isnan(replayed))
