"""The real `keras-sweeps` command with made-up trials: everything but the training is real."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

import fake_jobs

import sweeps.cluster.connection as connection
import sweeps.driver.failures.retries as retries
import sweeps.driver.figures as figures
import sweeps.driver.search as search
import sweeps.executors.processes as processes
from sweeps.cli.main import main

LEASE_SECONDS, LOST_SECONDS = 5, 8


class Connection(connection.ClusterConnection):
    """To nodes that run made-up trials, too, and are given up sooner."""

    def __init__(self, options: Any) -> None:
        super().__init__(
            replace(
                options,
                preload="fake_jobs",
                lease_seconds=LEASE_SECONDS,
                lost_seconds=LOST_SECONDS,
            )
        )


if __name__ == "__main__":
    original = processes.ProcessExecutor
    # Without TensorFlow a driver is up in seconds, so that many can be killed.
    processes.ProcessExecutor = lambda preload, log, *args, **options: original("fake_jobs", log)  # type: ignore[assignment,misc]
    plan = search.LoopPlan
    job = fake_jobs.node_chaos_job if fake_jobs.LIVES in os.environ else fake_jobs.chaos_job
    search.LoopPlan = lambda **options: plan(**options, job=job)  # type: ignore[assignment,misc]
    connection.ClusterConnection = Connection  # type: ignore[misc]
    retries.MOST_MOVES = 50  # Here it is never the trial that ends nodes.
    figures.figures_job = fake_jobs.chaos_figures_job
    sys.exit(main())
