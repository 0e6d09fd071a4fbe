"""Part 6: the default sweep, against the same on the cores of this machine."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_parts import trials
from gpu_parts.findings import Finding, Task

SECONDS, SECONDS_ALONE = 60.0, 180.0
"""The time limit of each side."""
START_SECONDS = 65.0
"""What starts, measurements before the first trial, and ends of both take beside."""
GRACE = 12.0
"""A side that has not ended so many seconds after its limit is ended: an epoch on cores is long."""
SMALL = (
    "--space", "mlp", "--trials", "1", "--epochs", "2", "--workers", "1", "--fix", "num_layers=1",
    "--fix", "batch_norm=false", "--fix", "batch_size=512", "--no-baselines", "--sampler", "random",
    "--jit", "off", "--offline",
)  # fmt: skip


def find(task: Task) -> Iterator[Finding]:
    """Points and best value of each side, and the ratio of points."""
    limit = SECONDS_ALONE if task.alone else SECONDS
    limit = max(5.0, min(limit, (task.seconds - START_SECONDS) / 2))
    points = {}
    for name, gpus in (("gpu", "all"), ("cores", "none")):
        status, lives = _side(task, name, gpus, limit)
        if not lives:
            raise RuntimeError(f"no trial began {gpus=}: exit status {status}")
        full = [life for life in lives if life.state == "COMPLETE"]
        best = max((life.best for life in full if life.best is not None), default=None)
        points[name] = len(lives)
        title = "on the GPU" if name == "gpu" else "--gpus none"
        seconds = max(life.last for life in lives) - lives[0].began
        note = f"{seconds:.0f} s from the first trial's start, exit status {status}"
        yield Finding(f"{title}: points tried", len(lives), n=len(lives), note=note)
        yield Finding(f"{title}: trained in full", len(full), n=len(lives))
        found = "none was trained in full" if best is None else best
        yield Finding(f"{title}: best val_accuracy", found, n=len(full))
    if points["cores"]:
        ratio = points["gpu"] / points["cores"]
        held = None if task.stand_in else ratio > 1
        yield Finding("points tried: GPU / cores", ratio, "x", "more on the GPU", kind="goal",
                      held=held, note="one sweep each")  # fmt: skip


def _side(task: Task, name: str, gpus: str, limit: float) -> tuple[int, list[trials.Life]]:
    small = (*SMALL, "--trials-per-gpu", "1") if gpus == "all" else SMALL
    options = small if task.stand_in else ("--space", "cnn", "--timeout", f"{limit:.0f}s")

    def over() -> bool:
        lives = trials.lives(name) if not task.stand_in else []
        # The limit counts from the first trial, as the sweep's own does.
        return bool(lives) and trials.seconds_since(lives[0].began) > limit + GRACE

    status = trials.sweep(task, name, [*options, "--gpus", gpus], until=over)
    return status, trials.lives(name)
