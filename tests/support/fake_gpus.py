"""GPUs that are not there: their list, their figures, their library."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from sweeps.resources.gpus import Gpu, visible
from sweeps.resources.nvml import GpuFigures, MeterError, ProcessFigures


class FakeInventory:
    """GPUs that are not there; the environment hides them as it hides real ones."""

    def __init__(self, *gpus: Gpu) -> None:
        self._gpus = gpus or tuple(
            Gpu(str(index), "NVIDIA H200", 141 * 2**30, f"GPU-{index}aaa") for index in range(2)
        )

    def gpus(self) -> tuple[Gpu, ...]:
        return visible(self._gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))


class FakeMeter:
    """Figures as they were set; processes are those of `processes`, by GPU."""

    def __init__(self, **processes: dict[int, ProcessFigures]) -> None:
        self.gpus = {
            name.removeprefix("gpu"): GpuFigures(2**30, 141 * 2**30, 50.0, 200.0, found)
            for name, found in (processes or {"gpu0": {7: ProcessFigures(2**29, 40.0)}}).items()
        }
        self.closed = False
        self.num_readings = 0

    def read(self, gpu: str) -> GpuFigures:
        self.num_readings += 1
        if gpu not in self.gpus:
            raise MeterError(f"GPU {gpu} does not answer NVML: lost")
        return self.gpus[gpu]

    def close(self) -> None:
        self.closed = True


class FakeNvml:
    """`pynvml` for one GPU that is not there: its functions, structures and errors.

    Args:
        silent: names of functions that this GPU does not support.
        samples: what `nvmlDeviceGetProcessUtilization` knows, as (process, microseconds, percent).
    """

    import pynvml as _real

    NVMLError = _real.NVMLError
    NVML_ERROR_NOT_FOUND = _real.NVML_ERROR_NOT_FOUND
    NVML_SUCCESS = _real.NVML_SUCCESS

    def __init__(
        self,
        processes: Mapping[int, int | None] | None = None,
        samples: tuple[tuple[int, int, int], ...] = (),
        silent: tuple[str, ...] = (),
    ) -> None:
        self._processes = {7: 2**29} if processes is None else processes
        self.samples, self._silent = samples, silent
        self.starts = 0

    def _check(self, name: str) -> None:
        if not self.starts:
            raise self.NVMLError(self._real.NVML_ERROR_UNINITIALIZED)
        if name in self._silent:
            raise self.NVMLError(self._real.NVML_ERROR_NOT_SUPPORTED)

    def nvmlInit(self) -> None:
        if "nvmlInit" in self._silent:
            raise self.NVMLError(self._real.NVML_ERROR_LIBRARY_NOT_FOUND)
        self.starts += 1

    def nvmlShutdown(self) -> None:
        self._check("nvmlShutdown")
        self.starts -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._check("nvmlDeviceGetHandleByIndex")
        if index != 0:
            raise self.NVMLError(self._real.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        self._check("nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(total=141 * 2**30, used=2**30, free=140 * 2**30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        self._check("nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=50, memory=10)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        self._check("nvmlDeviceGetPowerUsage")
        return 200_500

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        self._check("nvmlDeviceGetComputeRunningProcesses")
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self._processes.items()
        ]

    def nvmlDeviceGetProcessUtilization(self, handle: int, since: int) -> list[Any]:
        self._check("nvmlDeviceGetProcessUtilization")
        found = [
            SimpleNamespace(pid=p, timeStamp=t, smUtil=u) for p, t, u in self.samples if t > since
        ]
        if not found:
            raise self.NVMLError(self._real.NVML_ERROR_NOT_FOUND)
        return found
