"""How long a sweep waits for a machine where a cluster has none left."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sweeps.driver.plan import LoopPlan
from sweeps.formatting import duration

log = logging.getLogger(__name__)
SAY_SECONDS = 15.0
"""A wait that is worth a word: nodes that are there take some seconds to get the data."""


class NodeWait:
    """Since when there has been no slot; of one machine's own slots there always are some."""

    def __init__(self, plan: LoopPlan, clock: Callable[[], float]) -> None:
        self._pool, self._limit, self._clock = plan.pool, plan.node_wait_seconds, clock
        self._since: float | None = None
        self._said = False

    @property
    def has_none(self) -> bool:
        """Whether there is no slot now, free or taken; to be asked again and again."""
        if self._pool is None or self._pool.num_slots:
            self._since, self._said = None, False
            return False
        if self._since is None:
            self._since = self._clock()
        return True

    @property
    def is_over(self) -> bool:
        """Whether there has been none for so long that the sweep is to wait without a process."""
        if self._since is None:
            return False
        waited = self._clock() - self._since
        if waited >= SAY_SECONDS and not self._said:
            self._said = True
            wait = duration(self._limit)
            log.warning("no node of the cluster is ready: trials wait for one, up to %s", wait)
        return waited >= self._limit
