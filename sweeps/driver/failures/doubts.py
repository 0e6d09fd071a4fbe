"""Failures that may be a machine's: prepared data that are gone, a full disk, processes that die.

Such a machine ends every trial within seconds, and takes the next one. Who is to blame shows by
where trials train: on a cluster one that failed goes on on another node, and a node that fails one
after the other gets no more.
"""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.driver.board.row import TrialRow
from sweeps.driver.plan import MOST_MOVES
from sweeps.executors.failures import Failure
from sweeps.resources.packing import NodeSlots, machine_of

NUM_SAME_FAILURES = 3
"""So many first trials failing for one reason, or later ones in a row for one that is the
machine's, mean that the next would, too."""
HERE = ""
"""What this machine is called among nodes: also what failed on its way to one, failed here."""


@dataclass(frozen=True)
class Doubt:
    """A trial that failed on every machine that it can have, or on too many, and waits.

    Attributes:
        since: when it failed last (`Board.clock`).
    """

    row: TrialRow
    failure: Failure
    since: float


class Doubts:
    """The failures of which it is not known yet whether they are the trial's or its machine's.

    - What failed goes on on another node, where there is one that it did not fail on, on six at
      most.
    - Else it waits in doubt. Once a trial that was started later on the same machine reports, the
      failure was its own; after six nodes, on any machine.
    - Three of one cause in doubt are everybody's: nothing can be trained.
    - A node on which three trials failed, none of them by itself, and where none that was started
      later has reported, is a suspect.
    """

    def __init__(self, pool: NodeSlots | None) -> None:
        self._pool = pool
        self._open: list[Doubt] = []
        self._failed: dict[str, dict[int, float]] = {}
        """Machine -> trials that failed there -> when (`Board.clock`)."""

    def failed(self, row: TrialRow, failure: Failure, now: float) -> bool:
        """A trial failed on its machine; returns whether it can go on on another one."""
        machine = machine_of(row.node)
        self._failed.setdefault(machine, {})[row.number] = now
        if machine != HERE:
            row.failed_on |= {machine}
            if self._others(row):
                return True
        row.waiting = row.in_doubt = True
        self._open.append(Doubt(row, failure, now))
        return False

    def reported(self, row: TrialRow) -> list[Doubt]:
        """A trial has reported; returns those in doubt that have failed by themselves, then."""
        own = set()
        for machine in {machine_of(row.node), HERE}:
            there = self._failed.get(machine, {})
            own |= {number for number, at in there.items() if row.started >= at}
            self._failed[machine] = {n: at for n, at in there.items() if n not in own}
        own |= {
            d.row.number for d in self._open if _failed_enough(d.row) and row.started >= d.since
        }
        return self._settled([doubt for doubt in self._open if doubt.row.number in own])

    def elsewhere(self) -> list[Doubt]:
        """Those in doubt that can go on on a node that has come meanwhile."""
        return self._settled([doubt for doubt in self._open if self._others(doubt.row)])

    def all(self) -> list[Doubt]:
        """All that are in doubt."""
        return self._settled(list(self._open))

    def forget(self, row: TrialRow) -> None:
        """A trial has failed by itself: no machine is to blame."""
        for there in self._failed.values():
            there.pop(row.number, None)

    def suspects(self) -> set[str]:
        """The machines of a cluster that are to get no more trials while there are others."""
        return {
            m for m, there in self._failed.items() if m != HERE and len(there) >= NUM_SAME_FAILURES
        }

    def trouble(self) -> str:
        """What every machine does to trials, in one line; empty while nothing shows that."""
        latest = [doubt.failure for doubt in self._open[-NUM_SAME_FAILURES:]]
        if len(latest) < NUM_SAME_FAILURES or len({failure.cause for failure in latest}) > 1:
            return ""
        return f"{NUM_SAME_FAILURES} trials in a row failed: {latest[-1].reason}"

    def _others(self, row: TrialRow) -> bool:
        """Whether there is a node that is no suspect and on which the trial has not failed; it has
        failed on few."""
        if self._pool is None or not row.node or row.ran_out_of_memory or _failed_enough(row):
            return False  # One whose memory ran out takes any machine that it has to itself.
        there = {machine_of(name) for name in self._pool.nodes}
        return bool(there - row.failed_on - self.suspects())

    def _settled(self, doubts: list[Doubt]) -> list[Doubt]:
        """Takes them out: they wait in doubt no more."""
        self._open = [doubt for doubt in self._open if doubt not in doubts]
        for doubt in doubts:
            doubt.row.waiting = doubt.row.in_doubt = False
        return doubts


def _failed_enough(row: TrialRow) -> bool:
    return len(row.failed_on) > MOST_MOVES
