"""The machines of a cluster as a sweep sees them come and go, and how long it waits for one."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from sweeps.driver.board.board import Board
from sweeps.driver.plan import LoopPlan
from sweeps.driver.records.recorder import Recorder
from sweeps.formatting import duration
from sweeps.state.log import sweep_log

log = logging.getLogger(__name__)
SAY_SECONDS = 15.0
"""A wait that is worth a word: nodes that are there take some seconds to get the data."""


class Nodes:
    """Records which nodes there are, and since when there is none; of one machine's own slots
    there always are some."""

    def __init__(self, plan: LoopPlan, board: Board, recorder: Recorder) -> None:
        self._pool, self._limit = plan.pool, plan.node_wait_seconds
        self._board, self._recorder = board, recorder
        self._joined: dict[str, str] = {}
        self._since: float | None = None
        self._said = False

    def look(self) -> None:
        """Takes notice of those that joined or left; to be called again and again."""
        if self._pool is None:
            return
        self._record(dict(self._pool.nodes))
        num_slots = self._pool.num_slots
        if num_slots:
            self._since, self._said = None, False
            self._board.num_slots = num_slots
        elif self._since is None:
            self._since = self._board.clock()

    def _record(self, now: dict[str, str]) -> None:
        changes = {}
        for name in now.keys() - self._joined.keys():
            sweep_log.info("node %s joined: %s", name, now[name])
            self._joined[name] = changes[name] = f"{now[name]}; joined {_moment()}"
        for name in self._joined.keys() - now.keys():
            sweep_log.info("node %s left", name)
            changes[name] = f"{self._joined.pop(name)}, left {_moment()}"
        if changes:
            self._board.nodes = tuple(sorted(now))
            self._recorder.nodes(changes)

    @property
    def has_none(self) -> bool:
        """Whether there was no slot when it looked last, free or taken."""
        return self._since is not None

    @property
    def is_over(self) -> bool:
        """Whether there has been none for so long that the sweep is to wait without a process."""
        if self._since is None:
            return False
        waited = self._board.clock() - self._since
        if waited >= SAY_SECONDS and not self._said:
            self._said = True
            wait = duration(self._limit)
            log.warning("no node of the cluster is ready: trials wait for one, up to %s", wait)
        return waited >= self._limit


def _moment() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
