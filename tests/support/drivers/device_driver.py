"""The real `keras-sweeps` command with a GPU that is not there, and trials that really train.

Driver, workers, spares, calibration and training are real, on any backend; `nvidia-smi` is a script
on the PATH, and the workers take the cores for their GPU (`device_stand_in.py`).
"""

from __future__ import annotations

import sys

import fake_gpu

import sweeps.executors.processes as processes
import sweeps.resources.gpu_monitor as gpu_watch
import sweeps.resources.machine as devices
import sweeps.resources.packing as packing
from sweeps.cli.main import main

if __name__ == "__main__":
    original = processes.ProcessExecutor
    processes.ProcessExecutor = lambda preload, *args, **options: original(  # type: ignore[assignment,misc]
        "device_stand_in", *args, **options
    )
    devices.missing_cuda = lambda backend: ""
    packing.LEVELS = devices.LEVELS = (1, 2)  # type: ignore[assignment]
    gpu_watch.NvmlMeter = fake_gpu.WorkersMeter  # type: ignore[assignment,misc]
    sys.exit(main())
