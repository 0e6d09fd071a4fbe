"""An engine, a tracker and a view for tests of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.training.trial import Decision
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.board.views import QuietView
from sweeps.engines.base import PastTrial, Proposal, TrialState
from tracking.spool.records import (
    EpochRecord,
    FilesRecord,
    MachineRecord,
    ModelDropRecord,
    ModelRecord,
    ProgressRecord,
    Record,
    SweepEnd,
    SweepRecord,
    SweepStateRecord,
    TagsRecord,
    TrialEnd,
    TrialRecord,
    TrialStateRecord,
)


class ListEngine:
    """Proposes the points that it was given, in order; decides as told, by default to go on."""

    def __init__(self, points: list[dict[str, Any]], decide: Any = None) -> None:
        self._points = list(points)
        self._next = 0
        self._decide = decide or (lambda number, epoch: Decision.GO_ON)
        self.told: dict[int, tuple[TrialState, float | None, str]] = {}
        self.reports: list[tuple[int, int, float]] = []
        self.paused: list[int] = []
        self.promotions: list[int] = []
        self.duplicates: dict[int, int] = {}
        self.broken_limits: dict[int, str] = {}
        self.history: list[PastTrial] = []
        self.measured: dict[int, dict[str, float]] = {}

    def past(self) -> list[PastTrial]:
        return self.history

    def ask(self) -> Proposal | None:
        if self._next == len(self._points):
            return None
        number = self._next
        self._next += 1
        return Proposal(
            number,
            self._points[number],
            None,
            self.duplicates.get(number),
            breaks_limit=self.broken_limits.get(number, ""),
        )

    def report(
        self, number: int, epoch: int, value: float, measured: Mapping[str, float] | None = None
    ) -> Decision:
        if measured:
            self.measured.setdefault(number, dict(measured))
        if (number, epoch) not in {report[:2] for report in self.reports}:
            self.reports.append((number, epoch, value))
        return self._decide(number, epoch)

    def pause(self, number: int) -> None:
        self.paused.append(number)

    def next_promotion(self, *, no_more_trials: bool) -> int | None:
        return self.promotions.pop(0) if self.promotions else None

    def resume(self, number: int) -> None:
        self.paused.remove(number)

    def unpromotable(self, num_trials: int) -> list[int]:
        return []

    def tell(
        self,
        number: int,
        state: TrialState,
        value: float | None = None,
        reason: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.told[number] = (state, value, reason)


class MemoryTracker:
    """Remembers what it is told, in the order of the calls; the same record only once."""

    experiment_id = "0"
    parent_run_id = "parent"

    def __init__(self, files: Any = None) -> None:
        self._files = files
        self.keys: list[str] = []
        self.started: list[TrialRecord] = []
        self.epochs: list[tuple[int, int]] = []
        self.states: list[tuple[int, str]] = []
        self.ended: dict[int, TrialEnd] = {}
        self.kept: list[int] = []
        self.progress: list[float] = []
        self.files: dict[int, list[str]] = {}
        self.tags: dict[int, dict[str, str]] = {}
        self.end: SweepEnd | None = None
        self.sweep: SweepRecord | None = None
        self.parent_tags: dict[str, str] = {}
        self.metrics: dict[tuple[int, int], dict[str, float]] = {}
        self.machine: dict[int, dict[str, float]] = {}

    def apply(self, record: Record, *, again: bool = False) -> dict[str, str]:
        self.keys.append(record.key)
        if isinstance(record, SweepRecord):
            self.sweep = record
        elif isinstance(record, SweepStateRecord):
            self.parent_tags.update(record.tags)
        elif isinstance(record, TrialRecord):
            self.started.append(record)
        elif isinstance(record, EpochRecord):
            assert record.at_ms > 0 and record.metrics
            self.metrics[(record.number, record.epoch)] = dict(record.metrics)
            self.epochs.append((record.number, record.epoch))
        elif isinstance(record, TrialStateRecord):
            self.states.append((record.number, record.state))
        elif isinstance(record, FilesRecord):
            names = [path.name for path in sorted(self._files(record.key).iterdir())]
            self.files.setdefault(record.number, []).extend(names)
        elif isinstance(record, TagsRecord):
            self.tags.setdefault(record.number, {}).update(record.tags)
        elif isinstance(record, TrialEnd):
            assert record.number not in self.ended
            self.ended[record.number] = record
        elif isinstance(record, ModelRecord):
            self.kept.append(record.number)
        elif isinstance(record, ModelDropRecord):
            self.kept.remove(record.number)
        elif isinstance(record, MachineRecord):
            self.machine[record.step] = dict(record.metrics)
        elif isinstance(record, ProgressRecord):
            self.progress += record.metrics.values()
        elif isinstance(record, SweepEnd):
            self.end = record
        return {}


class ScriptedView(QuietView):
    """Calls a function at every end of a trial."""

    def __init__(self, on_end: Any = lambda board: None) -> None:
        self._on_end = on_end

    def ended(self, board: Board, row: TrialRow) -> None:
        self._on_end(board)


def random_points(space: Any, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Points of a space, uniformly drawn."""
    from search_spaces.hyperparameters import RandomHyperParameters

    generator = np.random.default_rng(seed)
    return [space.sample(RandomHyperParameters(generator)) for _ in range(count)]
