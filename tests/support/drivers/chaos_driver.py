"""The real `keras-sweeps` command with made-up trials: everything but the training is real."""

from __future__ import annotations

import sys

import fake_jobs

import sweeps.driver.figures as figures
import sweeps.driver.search as search
import sweeps.executors.processes as processes
from sweeps.cli.main import main

if __name__ == "__main__":
    original = processes.ProcessExecutor
    # Without TensorFlow a driver is up in seconds, so that many can be killed.
    processes.ProcessExecutor = lambda preload, log, *args, **options: original("fake_jobs", log)  # type: ignore[assignment,misc]
    plan = search.LoopPlan
    search.LoopPlan = lambda **options: plan(**options, job=fake_jobs.chaos_job)  # type: ignore[assignment,misc]
    figures.figures_job = fake_jobs.chaos_figures_job
    sys.exit(main())
