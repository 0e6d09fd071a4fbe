"""The real `keras-sweeps run --baselines-only` with made-up trainings: all else is real."""

from __future__ import annotations

import sys

import fake_jobs

import sweeps.baselines.session as session
import sweeps.executors.processes as processes
from sweeps.cli.main import main

if __name__ == "__main__":
    original = processes.ProcessExecutor
    processes.ProcessExecutor = lambda preload, log, *args, **options: original("fake_jobs", log)  # type: ignore[assignment,misc]
    plan = session.LoopPlan
    session.LoopPlan = lambda **options: plan(**{**options, "job": fake_jobs.slow_baseline_job})  # type: ignore[assignment,misc]
    sys.exit(main())
