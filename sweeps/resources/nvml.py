"""How busy GPUs are and who uses them, by NVML: no CUDA context, so nothing is taken of a GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

SAMPLE_MICROSECONDS = 1_500_000
"""NVML samples "between 1 second and 1/6 second, depending on the product" (its API reference,
nvmlDeviceGetUtilizationRates); without one for longer, a process was idle."""


class MeterError(RuntimeError):
    """The figures cannot be had: no driver, no permission, or a GPU that is gone."""


@dataclass(frozen=True)
class ProcessFigures:
    """What one process does on a GPU; None for what the GPU does not tell."""

    memory_bytes: int | None
    utilization_percent: float | None


@dataclass(frozen=True)
class GpuFigures:
    """How a GPU stands.

    Attributes:
        processes: process id -> its part. Ids are those of the machine: in a container with ids
            of its own they are other ones, or missing.
    """

    memory_bytes: int
    memory_total_bytes: int
    utilization_percent: float | None = None
    power_watts: float | None = None
    processes: Mapping[int, ProcessFigures] = field(default_factory=dict)


class GpuMeter(Protocol):
    """Reads figures of GPUs."""

    def read(self, gpu: str) -> GpuFigures:
        """The figures of the GPU that `nvidia-smi` counts so; MeterError without any."""

    def close(self) -> None:
        """Gives up what the meter holds."""


class NvmlMeter:
    """Figures of NVML, through `nvidia-ml-py`.

    Args:
        nvml: a module with the functions of `pynvml`; None for that one.

    Raises:
        MeterError: There is no NVML, or it does not start.
    """

    def __init__(self, nvml: Any = None) -> None:
        if nvml is None:
            try:
                import pynvml
            except ImportError as error:
                raise MeterError("nvidia-ml-py is not installed") from error
        self._nvml: Any = nvml or pynvml
        self._seen: dict[str, int] = {}
        self._latest: dict[tuple[str, int], int] = {}
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise MeterError(f"NVML does not start: {error}") from error

    def read(self, gpu: str) -> GpuFigures:
        """The figures of a GPU.

        Raises:
            MeterError: The GPU does not answer.
        """
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(int(gpu))
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except nvml.NVMLError as error:
            raise MeterError(f"GPU {gpu} does not answer NVML: {error}") from error
        rates = self._if_told(nvml.nvmlDeviceGetUtilizationRates, handle)
        milliwatts = self._if_told(nvml.nvmlDeviceGetPowerUsage, handle)
        busy = self._utilizations(gpu, handle)
        running = {(gpu, int(process.pid)) for process in processes}
        self._latest = {k: v for k, v in self._latest.items() if k[0] != gpu or k in running}
        return GpuFigures(
            memory_bytes=int(memory.used),
            memory_total_bytes=int(memory.total),
            utilization_percent=None if rates is None else float(rates.gpu),
            power_watts=None if milliwatts is None else milliwatts / 1000,
            processes={
                int(process.pid): ProcessFigures(
                    None if process.usedGpuMemory is None else int(process.usedGpuMemory),
                    None if busy is None else busy.get(int(process.pid), self._idle(gpu, process)),
                )
                for process in processes
            },
        )

    def close(self) -> None:
        """Gives NVML up."""
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError:
            return  # Nothing is left to give up.

    def _idle(self, gpu: str, process: Any) -> float | None:
        """0 for a process without samples for longer than NVML takes between two; else unknown.

        A reading that comes before the next sample says nothing: as an idle one it would halve
        the mean of a process that is always busy.
        """
        now = time.time_ns() // 1000
        latest = self._latest.setdefault((gpu, int(process.pid)), now)
        return 0.0 if now - latest > SAMPLE_MICROSECONDS else None

    def _if_told(self, ask: Any, handle: Any) -> Any:
        try:
            return ask(handle)
        except self._nvml.NVMLError:  # Not every GPU tells everything.
            return None

    def _utilizations(self, gpu: str, handle: Any) -> dict[int, float] | None:
        """Process id -> percent of the time since the last reading; None where it is not told."""
        since = self._seen.setdefault(gpu, time.time_ns() // 1000)
        try:
            samples = self._nvml.nvmlDeviceGetProcessUtilization(handle, since)
        except self._nvml.NVMLError as error:
            # Raised while no process is busy; the second is how pynvml takes no samples at all.
            idle = (self._nvml.NVML_ERROR_NOT_FOUND, self._nvml.NVML_SUCCESS)
            return {} if error.value in idle else None
        found: dict[int, list[float]] = {}
        for sample in samples:
            # Drivers have been seen to answer with stale samples and with absurd numbers.
            if sample.timeStamp > since and sample.smUtil <= 100:
                found.setdefault(int(sample.pid), []).append(float(sample.smUtil))
                self._seen[gpu] = max(self._seen[gpu], int(sample.timeStamp))
                self._latest[gpu, int(sample.pid)] = int(sample.timeStamp)
        return {pid: sum(values) / len(values) for pid, values in found.items()}
