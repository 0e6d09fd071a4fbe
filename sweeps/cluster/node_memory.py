"""Memory of a node: which job to end when it runs short.

Ray watches memory, too, and at 95 % ends the actor, and with it all jobs of the node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


class NodeMemory:
    """Chooses the job with the most memory where too much is in use.

    Args:
        limit: the share in use from which on a job is ended.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._ended: set[str] = set()

    def largest(self, jobs: Mapping[str, int | None]) -> int | None:
        """The process to end; None where there is memory, or no job. Said once for each job."""
        self._ended &= jobs.keys()
        if not jobs or used_share() < self._limit:
            return None
        sizes = {job: process_bytes(pid) for job, pid in jobs.items() if pid is not None}
        if not sizes or self._ended & sizes.keys():
            return None  # One is ending already.
        job = max(sizes, key=lambda name: sizes[name])
        self._ended.add(job)
        return jobs[job]

    def ended(self, job_id: str) -> bool:
        """Whether a job was ended for its memory."""
        return job_id in self._ended


def used_share() -> float:
    """The share of this machine's memory, or of its container's, that is in use; 0 for unknown."""
    import psutil  # Only where jobs run: it takes milliseconds.

    found = 0.0
    with contextlib.suppress(OSError, psutil.Error):  # A container may hide it.
        found = float(psutil.virtual_memory().percent) / 100
    with contextlib.suppress(OSError, ValueError, KeyError, ZeroDivisionError):
        limit = int((CGROUP / "memory.max").read_text())  # `max` where there is none.
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        in_use = int((CGROUP / "memory.current").read_text()) - int(stat["inactive_file"])
        found = max(found, in_use / limit)
    return found


def process_bytes(process_id: int) -> int:
    """What a process has in memory of its own; 0 where it is gone."""
    import psutil

    try:
        memory = psutil.Process(process_id).memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))
