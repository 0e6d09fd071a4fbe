"""GPU figures as metrics: each trial's own in its run, the machine's in the sweep's run.

The names are those of MLflow's system metrics, so that its UI shows them on their own page. Its own
monitor would log the whole machine into every run.
"""

from __future__ import annotations

import time

from sweeps.executors.base import Executor
from sweeps.resources.gpu_monitor import GpuWatch, Usage

MACHINE_SECONDS = 10.0
"""Between two machine-wide figures, as in MLflow's own monitor."""
MEGABYTE = 1e6
SYSTEM = "system/"
"""What a metric's name begins with when the machine was measured, not the model."""


class GpuUsage:
    """Figures of the trials that run; with no watch there are none."""

    def __init__(self, executor: Executor, watch: GpuWatch | None) -> None:
        self._executor, self._watch = executor, watch
        self._reported = time.monotonic()

    def started(self, job_id: str) -> None:
        """A job begins: what its process did before, waiting as a spare, is not the job's."""
        self.taken(job_id)

    def taken(self, job_id: str) -> dict[str, float]:
        """What a job's process did since the last time; empty where nobody saw it."""
        if self._watch is None:
            return {}
        process_id = self._executor.process_id(job_id)
        usage = None if process_id is None else self._watch.take(process_id)
        return {} if usage is None else _metrics(usage, f"{SYSTEM}gpu_")

    def machine(self) -> dict[str, float]:
        """The figures of every GPU, when it is time for them again; else empty."""
        if self._watch is None or time.monotonic() - self._reported < MACHINE_SECONDS:
            return {}
        self._reported = time.monotonic()
        found: dict[str, float] = {}
        for gpu, usage in self._watch.take_machine().items():
            prefix, total = f"{SYSTEM}gpu_{gpu}_", self._watch.total_bytes(gpu)
            found |= _metrics(usage, prefix)
            if total and usage.memory_bytes is not None:
                found[f"{prefix}memory_usage_percentage"] = 100 * usage.memory_bytes / total
        return found


def _metrics(usage: Usage, prefix: str) -> dict[str, float]:
    found = {
        "memory_usage_megabytes": None if usage.memory_bytes is None
        else usage.memory_bytes / MEGABYTE,
        "utilization_percentage": usage.utilization_percent,
        "power_usage_watts": usage.power_watts,
    }  # fmt: skip
    return {f"{prefix}{name}": value for name, value in found.items() if value is not None}
