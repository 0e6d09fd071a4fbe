"""CPU and memory of the machine and of single processes, under the names of MLflow's own monitor.

A percentage of a process is of one core, so that two busy threads have 200; that of the machine is
of all its cores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracking.metric_names import SYSTEM

if TYPE_CHECKING:
    import psutil

MEGABYTE = 1e6


class HostMeter:
    """Reads what was used since it was asked the last time."""

    def __init__(self) -> None:
        import psutil  # Not where nothing is trained: it takes milliseconds.

        self._psutil = psutil
        self._processes: dict[int, psutil.Process] = {}
        psutil.cpu_percent()  # From now on.

    def process(self, process_id: int) -> dict[str, float]:
        """What a process did since the last time; without CPU the first time, empty of none."""
        known = self._processes.get(process_id)
        try:
            if known is None or not known.is_running():
                known = self._psutil.Process(process_id)
            is_first = self._processes.get(process_id) is not known
            share, memory = known.cpu_percent(), known.memory_info().rss
        except (self._psutil.Error, ValueError, OSError):
            self._processes.pop(process_id, None)
            return {}
        self._processes[process_id] = known
        found = {f"{SYSTEM}memory_usage_megabytes": memory / MEGABYTE}
        return found if is_first else {f"{SYSTEM}cpu_utilization_percentage": share, **found}

    def machine(self) -> dict[str, float]:
        """What the whole machine did since the last time."""
        running = {key: one for key, one in self._processes.items() if one.is_running()}
        self._processes = running
        try:
            share, memory = self._psutil.cpu_percent(), self._psutil.virtual_memory()
        except (self._psutil.Error, OSError):  # A container may hide it.
            return {}
        return {
            f"{SYSTEM}cpu_utilization_percentage": share,
            f"{SYSTEM}system_memory_usage_megabytes": memory.used / MEGABYTE,
            f"{SYSTEM}system_memory_usage_percentage": memory.percent,
        }
