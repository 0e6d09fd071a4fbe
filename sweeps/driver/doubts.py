"""Failures that may be a machine's: prepared data that are gone, a full disk, processes that die.

Such a machine ends every trial within seconds, and takes the next one. So a trial that failed by
what may be its machine's waits until another one shows who is to blame.
"""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.driver.status import TrialRow
from sweeps.executors.failures import Failure
from sweeps.resources.packing import NodeSlots

NUM_SAME_FAILURES = 3
"""So many first trials failing for one reason, or later ones in a row for one that is the
machine's, mean that the next would, too."""


@dataclass
class Doubt:
    """A trial that waits, and why.

    Attributes:
        since: when it failed (`Board.clock`).
        others_train: whether a trial that was started later has reported from another machine.
    """

    row: TrialRow
    failure: Failure
    since: float
    others_train: bool = False


class Doubts:
    """The failures of which it is not known yet whether they are the trial's or its machine's.

    - A trial that is started later on the same machine and reports: they are the trials'.
    - Three of one cause on one node of a cluster: they are that node's, where another one is left.
    - Three of one cause in a row, on the only machine, on all that are there or on three different
      ones, while no trial that was started later reports: they are everybody's.
    """

    def __init__(self, pool: NodeSlots | None) -> None:
        self._pool = pool
        self._open: list[Doubt] = []
        self._blamed: set[str] = set()
        """Nodes since a trial reported."""

    def add(self, row: TrialRow, failure: Failure, now: float) -> None:
        """A trial failed on its node."""
        self._open.append(Doubt(row, failure, now))

    def trained(self, row: TrialRow) -> list[Doubt]:
        """A trial has reported; returns those that have failed by themselves, then."""
        self._blamed.clear()
        for doubt in self._open:
            doubt.others_train |= doubt.row.node != row.node and row.started >= doubt.since
        return self._taken(
            [d for d in self._open if d.row.node == row.node and row.started >= d.since]
        )

    def blamed(self) -> list[Doubt]:
        """Those of the node that failed last, where they are that node's and not all nodes'."""
        last = self._open[-1]
        here = [d for d in self._alike(last) if d.row.node == last.row.node]
        enough = len(here) == NUM_SAME_FAILURES and len(self._blamed) < NUM_SAME_FAILURES - 1
        if not enough or not self._nodes - {last.row.node}:
            return []
        self._blamed.add(last.row.node)
        return self._taken([d for d in self._open if d.row.node == last.row.node])

    def trouble(self) -> str:
        """What every machine does to trials, in one line; empty while nothing shows that."""
        latest = self._open[-NUM_SAME_FAILURES:]
        if len(latest) < NUM_SAME_FAILURES or any(d.others_train for d in latest):
            return ""
        nodes = {d.row.node for d in latest} | self._blamed
        untried = self._nodes - {d.row.node for d in self._open}
        if len({d.failure.cause for d in latest}) > 1 or (untried and len(nodes) < len(latest)):
            return ""
        return f"{NUM_SAME_FAILURES} trials in a row failed: {latest[-1].failure.reason}"

    def of_lost_nodes(self) -> list[Doubt]:
        """Those whose node is gone, so that nothing will show who was to blame."""
        if self._pool is None or not self._open:
            return []
        there = self._nodes
        return self._taken([d for d in self._open if d.row.node not in there])

    def all(self) -> list[Doubt]:
        """All that are left."""
        return self._taken(list(self._open))

    @property
    def _nodes(self) -> set[str]:
        return set() if self._pool is None else set(self._pool.nodes)

    def _alike(self, doubt: Doubt) -> list[Doubt]:
        return [d for d in self._open if d.failure.cause == doubt.failure.cause]

    def _taken(self, settled: list[Doubt]) -> list[Doubt]:
        """Takes those out, which wait no more."""
        self._open = [doubt for doubt in self._open if doubt not in settled]
        for doubt in settled:
            doubt.row.waiting = doubt.row.in_doubt = False
        return settled
