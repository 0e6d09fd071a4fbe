"""What the loop of a sweep needs to know about its trials."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipelines.data.prepared import PreparedData
from pipelines.runtime.compute import DEFAULT_COMPUTE, Compute
from search_spaces.space import Space
from sweeps.driver.stop_rules import StopRules
from sweeps.executors.base import Job, Slot
from sweeps.resources.packing import GpuLayout
from sweeps.state.paths import SweepPaths
from sweeps.workers.jobs import train_job


@dataclass(frozen=True)
class Plan:
    """What the loop needs to know about its trials; `job` is what trains one.

    Attributes:
        slots: where trials run on cores; on GPUs `layout` cuts them as they are needed.
        layout, level: the GPUs and how many trials share one; None on cores.
        trials_per_gpu: what was asked for; None for auto.
        num_retries: further tries of a trial that another try can help.
        stall_seconds: how long a trial may report nothing; None for the default rule.
        num_audited: pruned trials to train to the end afterwards.
        deterministic: whether trials use only operations that repeat bit for bit.
        measure_test: whether complete trials are measured on the test split (finalists only).
        class_weights: `balanced` weighs the loss of rare classes up.
        compute: backend, precision and compilation of every trial.
    """

    space: Space
    data: PreparedData
    num_trials: int
    num_epochs: int
    patience: int | None
    seed: int
    slots: tuple[Slot, ...]
    paths: SweepPaths
    rules: StopRules = field(default_factory=StopRules)
    num_retries: int = 0
    stall_seconds: float | None = None
    num_audited: int = 0
    deterministic: bool = False
    measure_test: bool = False
    class_weights: str = "none"
    compute: Compute = DEFAULT_COMPUTE
    job: Job = train_job
    layout: GpuLayout | None = None
    level: int = 1
    trials_per_gpu: int | None = None


def trial_seed(sweep_seed: int, number: int) -> int:
    """The seed of a trial: it follows from the sweep's seed and the trial's number."""
    return int(np.random.SeedSequence([sweep_seed, number]).generate_state(1)[0])
