"""A GPU that is not there, for the parts in small on cores; most of it is of `tests/support`.

`nvidia-smi` is a script on the PATH, NVML a fake, workers take the cores for their GPU, and nobody
draws anything.
"""

from __future__ import annotations

import os
from pathlib import Path

import fake_gpus
import fake_jobs

from gpu_parts.load import group
from sweeps.driver import figures
from sweeps.executors import processes
from sweeps.resources import gpu_monitor, machine, packing
from sweeps.resources.nvml import GpuFigures, ProcessFigures

WORKER_BYTES = 512 * 2**20
LEVELS = (1, 2)
LARGE_MIB, SMALL_MIB = 144_384, 10_240
"""A small GPU has no spare process, which takes a second of a core for each trial."""
WITH_SPARE, WITH_SWEEPS = (
    ("memory", "spare", "kill"),
    ("plain", "packing", "memory", "sweep", "auto"),
)


class StandInMeter(fake_gpus.FakeMeter):
    """Every other process of the group takes as much of the GPU, also one that was left behind."""

    def read(self, gpu: str) -> GpuFigures:
        """The figures; MeterError for any other GPU."""
        known = super().read(gpu)
        part = ProcessFigures(WORKER_BYTES, 25.0)
        found = dict.fromkeys(group(), part)
        total = known.memory_total_bytes
        return GpuFigures(WORKER_BYTES * len(found), total, 50.0, 200.0, found)


def begin(part: str) -> None:
    """Puts the stand-ins in place, in this process and in the workers that it will have."""
    memory = LARGE_MIB if part in WITH_SPARE else SMALL_MIB
    program = Path("bin", "nvidia-smi").absolute()
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\necho '0, GPU-aaaa, {memory}, stand-in'\n")
    program.chmod(0o755)
    os.environ["PATH"] = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    original = processes.ProcessExecutor
    processes.ProcessExecutor = lambda preload, *args, **options: original(  # type: ignore[assignment,misc]
        "device_stand_in", *args, **options
    )
    figures.figures_job = fake_jobs.chaos_figures_job
    if part in WITH_SWEEPS:
        from sweeps.driver import search
        from sweeps.driver.records.report import Report
        from sweeps.setup import stores

        stores.STORE_SECONDS = 120.0  # A busy machine is no reason to fail here.
        search._import_for_the_end = lambda: None
        search.write_report = lambda paths, ended: Report("", "", ())
    machine.missing_cuda = lambda backend: ""
    packing.LEVELS = machine.LEVELS = LEVELS  # type: ignore[assignment]
    gpu_monitor.NvmlMeter = StandInMeter  # type: ignore[assignment,misc]
