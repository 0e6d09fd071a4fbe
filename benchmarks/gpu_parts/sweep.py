"""Part 6: the default sweep, against the same on the cores of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    sides = {}
    for name, gpus in (("gpu", "all"), ("cores", "none")):
        end, sides[name] = _side(task, name, gpus, limit)
        yield from findings(name, end, sides[name])
    yield compared(task, sides["gpu"], sides["cores"])


def findings(name: str, end: trials.SweepEnd, lives: Sequence[trials.Life]) -> Iterator[Finding]:
    """What a side has tried, and its best. Pure."""
    yield trials.in_order(name, end, lives)
    title = "on the GPU" if name == "gpu" else "--gpus none"
    tried, full = _tried(lives), _full(lives)
    span = max(life.last for life in lives) - lives[0].began if lives else 0.0
    note = f"{span:.0f} s from the first trial's start; {len(lives)} began"
    yield Finding(f"{title}: points tried", len(tried), n=len(lives), note=note)
    yield Finding(f"{title}: trained in full", len(full), n=len(lives))
    best = max((life.best for life in full if life.best is not None), default=None)
    found = "none was trained in full" if best is None else best
    yield Finding(f"{title}: best val_accuracy", found, n=len(full))


def compared(task: Task, gpu: Sequence[trials.Life], cores: Sequence[trials.Life]) -> Finding:
    """The ratio of points; the goal is missed where the GPU has trained none in full. Pure."""
    ours, theirs = len(_tried(gpu)), len(_tried(cores))
    ratio: float | str = ours / theirs if theirs else f"{ours} against none"
    return Finding(
        "points tried: GPU / cores", ratio, "x" if theirs else "", "more on the GPU", 1, "goal",
        None if task.stand_in else bool(_full(gpu)) and ours > theirs,
        "COMPLETE and PRUNED; one sweep each",
    )  # fmt: skip


def _tried(lives: Sequence[trials.Life]) -> list[trials.Life]:
    return [life for life in lives if life.state in trials.USEFUL]


def _full(lives: Sequence[trials.Life]) -> list[trials.Life]:
    return [life for life in lives if life.state == "COMPLETE"]


def _side(
    task: Task, name: str, gpus: str, limit: float
) -> tuple[trials.SweepEnd, list[trials.Life]]:
    """Runs a side; returns how it ended, and its trials."""
    small = (*SMALL, "--trials-per-gpu", "1") if gpus == "all" else SMALL
    options = small if task.stand_in else ("--space", "cnn", "--timeout", f"{limit:.0f}s")

    def over() -> bool:
        lives = trials.lives(name) if not task.stand_in else []
        # The limit counts from the first trial, as the sweep's own does.
        return bool(lives) and trials.seconds_since(lives[0].began) > limit + GRACE

    end = trials.sweep(task, name, [*options, "--gpus", gpus], until=over)
    return end, trials.lives(name)
