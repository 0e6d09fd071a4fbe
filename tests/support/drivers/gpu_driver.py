"""The real `keras-sweeps` command on a GPU that is not there, with made-up trials.

Real are the driver, the processes with their spares, the packing, the spool and MLflow; `nvidia-smi`
is a script on the PATH. Made up are what trains and what NVML would tell of the worker processes.
"""

from __future__ import annotations

import sys

import fake_gpu
import fake_jobs

import sweeps.driver.figures as figures
import sweeps.driver.search as search
import sweeps.executors.processes as processes
import sweeps.resources.calibration as calibration
import sweeps.resources.gpu_monitor as gpu_watch
import sweeps.resources.machine as devices
from sweeps.cli.main import main
from sweeps.resources import gpu_monitor

if __name__ == "__main__":
    original = processes.ProcessExecutor
    processes.ProcessExecutor = lambda preload, log, *args, **options: original(  # type: ignore[assignment,misc]
        "fake_jobs", log, warm_up=fake_jobs.warm_up if options else None
    )
    plan = search.LoopPlan
    search.LoopPlan = lambda **options: plan(**options, job=fake_jobs.crowded_chaos_job)  # type: ignore[assignment,misc]
    figures.figures_job = fake_jobs.chaos_figures_job
    calibration.measure_job = fake_jobs.measuring_job
    devices.missing_cuda = lambda backend: ""
    gpu_watch.NvmlMeter = fake_gpu.WorkersMeter  # type: ignore[assignment,misc]
    gpu_watch.INTERVAL_SECONDS = 0.05
    gpu_monitor.MACHINE_SECONDS = 1.0
    sys.exit(main())
