"""Watches GPUs in a thread of the driver's, and sums up what each process did between two looks.

NVML may hang when a GPU fails; the loop that drives the sweep never waits for it. Each trial's own
figures go into its run, the machine's into the sweep's run, under the names of MLflow's system
metrics, so that its UI shows them on their own page. Its own monitor would log the whole machine
into every run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sweeps.executors.base import Executor
from sweeps.resources.host_meter import HostMeter
from sweeps.resources.nvml import GpuFigures, GpuMeter, MeterError, NvmlMeter, ProcessFigures
from sweeps.resources.packing import GpuLayout
from tracking.metric_names import SYSTEM

INTERVAL_SECONDS = 0.5
MACHINE_SECONDS = 10.0
"""Between two machine-wide figures, as in MLflow's own monitor."""
MEGABYTE = 1e6


@dataclass(frozen=True)
class Usage:
    """What was seen of one process, or of one GPU, in some stretch of time.

    Attributes:
        memory_bytes: the most that was in use; None where that is not told.
        utilization_percent: mean share of the time in which it computed; None likewise.
    """

    memory_bytes: int | None
    utilization_percent: float | None
    power_watts: float | None = None


class Mean:
    """A mean of what is told, in constant space: others' processes are seen for days, too."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float | None) -> None:
        """One more value; None adds nothing."""
        if value is not None:
            self._sum += value
            self._count += 1

    @property
    def value(self) -> float | None:
        """The mean; None of nothing."""
        return self._sum / self._count if self._count else None


class Tally:
    """Sums up readings of one thing."""

    def __init__(self) -> None:
        self._memory: int | None = None
        self._utilization, self._power = Mean(), Mean()

    def add(self, figures: GpuFigures | ProcessFigures) -> None:
        """One more reading."""
        if figures.memory_bytes is not None:
            self._memory = max(self._memory or 0, figures.memory_bytes)
        self._utilization.add(figures.utilization_percent)
        if isinstance(figures, GpuFigures):
            self._power.add(figures.power_watts)

    def usage(self) -> Usage:
        """What the readings say."""
        return Usage(self._memory, self._utilization.value, self._power.value)


class GpuWatch:
    """Reads the GPUs again and again until it is closed, or until they do not answer.

    Args:
        gpus: as `nvidia-smi` counts them.
    """

    def __init__(
        self, meter: GpuMeter, gpus: Iterable[str], interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self.problem = ""
        self._meter, self._gpus = meter, tuple(gpus)
        self._interval = interval_seconds
        self._lock = threading.Lock()
        self._processes: dict[int, Tally] = {}
        self._machine: dict[str, Tally] = {}
        self._totals: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch-gpus")
        self._thread.start()

    def take(self, process_id: int) -> Usage | None:
        """What a process did since it was asked for the last time; None when it was not seen."""
        with self._lock:
            tally = self._processes.pop(process_id, None)
        return None if tally is None else tally.usage()

    def take_machine(self) -> dict[str, Usage]:
        """GPU -> what all its processes did together since the last time."""
        with self._lock:
            taken, self._machine = self._machine, {}
        return {gpu: tally.usage() for gpu, tally in taken.items()}

    def total_bytes(self, gpu: str) -> int | None:
        """All memory of a GPU, once it was read."""
        return self._totals.get(gpu)

    def close(self) -> None:
        """Ends the thread; one that hangs in the driver of the GPU ends with this process."""
        self._stop.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._add({gpu: self._meter.read(gpu) for gpu in self._gpus})
                self._stop.wait(self._interval)
            self._meter.close()
        except MeterError as error:
            self.problem = str(error)

    def _add(self, readings: Mapping[str, GpuFigures]) -> None:
        with self._lock:
            for gpu, figures in readings.items():
                self._totals[gpu] = figures.memory_total_bytes
                self._machine.setdefault(gpu, Tally()).add(figures)
                for process_id, part in figures.processes.items():
                    self._processes.setdefault(process_id, Tally()).add(part)


def watch_over(layout: GpuLayout | None) -> tuple[GpuWatch | None, list[str]]:
    """A watch over the GPUs of a sweep; None on cores, or with the line that says why."""
    if layout is None:
        return None, []
    try:
        return GpuWatch(NvmlMeter(), [gpu.index for gpu in layout.gpus]), []
    except MeterError as error:
        return None, [f"no GPU metrics: {error}"]


def closed(watch: GpuWatch | None) -> list[str]:
    """Ends a watch, if there is one; a line if it broke off before."""
    if watch is None:
        return []
    watch.close()
    return [f"no more GPU metrics: {watch.problem}"] if watch.problem else []


class ResourceUsage:
    """Figures of the trials that run and of the machine; with no watch, of its GPUs none."""

    def __init__(self, executor: Executor, watch: GpuWatch | None) -> None:
        self._executor, self._watch = executor, watch
        self._host = HostMeter()
        self._reported = time.monotonic()

    def started(self, job_id: str) -> None:
        """A job begins: what its process did before, waiting as a spare, is not the job's."""
        self.taken(job_id)

    def taken(self, job_id: str) -> dict[str, float]:
        """What a job's process did since the last time; empty where nobody saw it."""
        process_id = self._executor.process_id(job_id)
        if process_id is None:
            return {}
        usage = None if self._watch is None else self._watch.take(process_id)
        of_gpu = {} if usage is None else _metrics(usage, f"{SYSTEM}gpu_")
        return {**self._host.process(process_id), **of_gpu}

    def machine(self) -> dict[str, float]:
        """The figures of the machine and every GPU, when it is time for them again; else empty."""
        if time.monotonic() - self._reported < MACHINE_SECONDS:
            return {}
        self._reported = time.monotonic()
        return {**self._host.machine(), **self._gpus()}

    def _gpus(self) -> dict[str, float]:
        found: dict[str, float] = {}
        if self._watch is None:
            return found
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
