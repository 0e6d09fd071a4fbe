"""Processes that wait, warm, for the next job on a slot: their device runs before the job comes.

A spare is a job's process without its job: started in the same way, ended in the same way, and it
ends with the driver as jobs do.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from sweeps.executors.base import Slot

WarmUp = Callable[[Slot], None]
"""Prepares a process for jobs on such a slot; must be importable by name."""
MOST_DEATHS = 2
"""So many spares that died mean that the next would, too: jobs start cold then, and the server's
log has the cause."""
STOP_SECONDS = 3.0


def kind_of(slot: Slot) -> Hashable:
    """Slots of one kind differ in nothing that a process is prepared for."""
    return replace(slot, index=0)


class Spares:
    """At most one spare for each wanted kind of slot.

    Args:
        spawn: starts a process that warms up for a slot and then waits for a job on its channel.
    """

    def __init__(self, spawn: Callable[[Slot], tuple[Any, Connection]]) -> None:
        self._spawn = spawn
        self._wanted: dict[Hashable, Slot] = {}
        self._waiting: dict[Hashable, tuple[Any, Connection]] = {}
        self._deaths: Counter[Hashable] = Counter()

    def want(self, slots: Sequence[Slot]) -> None:
        """From now on a spare waits for each of these; others end."""
        self._wanted = {kind_of(slot): slot for slot in slots}
        for kind in list(self._waiting):
            if kind not in self._wanted:
                self._end(kind)
        for kind in self._wanted:
            self._fill(kind)

    def take(self, slot: Slot) -> tuple[Any, Connection] | None:
        """The spare for a slot, if one waits; another one takes its place."""
        kind = kind_of(slot)
        found = self._waiting.pop(kind, None)
        if found is not None and not found[0].is_alive():
            self._deaths[kind] += 1
            found[1].close()
            found = None
        self._fill(kind)
        return found

    def close(self) -> None:
        """Ends all of them."""
        self.want(())

    @property
    def process_ids(self) -> list[int]:
        """The processes that wait."""
        return [process.pid for process, _ in self._waiting.values()]

    def _fill(self, kind: Hashable) -> None:
        if kind in self._waiting or kind not in self._wanted:
            return
        if self._deaths[kind] >= MOST_DEATHS:
            return
        with contextlib.suppress(OSError, EOFError):  # A spare is a convenience: no room, none.
            self._waiting[kind] = self._spawn(self._wanted[kind])

    def _end(self, kind: Hashable) -> None:
        process, channel = self._waiting.pop(kind)
        channel.close()
        process.kill()
        process.join(STOP_SECONDS)
