"""Part 3: trials an hour with 1, 2, 4 and 8 at once, what `auto` chooses, and what gives first.

A trial is the published CNN for three epochs, with its start, validation, checkpoints and records.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator

from gpu_parts import trials
from gpu_parts.findings import Finding, Task
from gpu_parts.load import Load, LoadWatch
from gpu_parts.plain import plain_epochs
from sweeps.resources.machine import detect_machine
from sweeps.resources.packing import LEVELS
from sweeps.state.paths import SweepPaths

NUM_EPOCHS = 3
ALL_LEVELS = (1, 2, 4, 8)
CHOICE_SHARES = 2
GOAL = 20.0
"""Times the trials an hour of a plain loop: a goal of the project, not a promise."""
FULL_PERCENT = 90.0
TOLERANCE = 0.75
"""A choice whose trials an hour are this part of the best ones': few trials vary so much."""


def find(task: Task) -> Iterator[Finding]:
    """A plain loop, each level, the choice, the resource that gives first."""
    num_epochs = 1 if task.stand_in else NUM_EPOCHS
    data, num_cores = trials.prepared(task), detect_machine(task.backend).num_cores
    first, *others = plain_epochs(task, data, 2 if task.stand_in else 3, 0.12 * task.seconds)
    loop = 3600 / (first + (num_epochs - 1) * statistics.median(others))
    yield Finding(
        "a plain loop of model.fit", loop, "trials/h", n=1,
        note=f"{num_epochs} epochs without validation; the first with building and compiling",
    )  # fmt: skip
    levels = LEVELS[:2] if task.stand_in else ALL_LEVELS
    # Two shares more for the choice, which comes before the level that it does not compare.
    seconds = 0.85 * task.left / (len(levels) + CHOICE_SHARES)
    found: dict[int, float] = {}
    loads: dict[int, Load] = {}
    watch = LoadWatch(task.gpu)
    for level in levels:
        if level > max(LEVELS):
            yield from _choice(task, found, CHOICE_SHARES * seconds)
        status = trials.sweep(task, f"level-{level}", [
            *trials.point_options(task), "--epochs", str(num_epochs), "--gpus", task.gpu,
            "--trials-per-gpu", str(level), "--workers", str(level),
            "--trials", str(level if task.stand_in else max(3, 2 * level)),
            "--timeout", f"{seconds:.0f}s", "--offline",
        ], until=_after(1.3 * seconds))  # fmt: skip
        lives = trials.lives(f"level-{level}")
        spans = [span for life in lives if (span := life.seconds(num_epochs)) is not None]
        if not spans:
            yield Finding(f"{level} at once", "not measured", n=0, note=f"exit status {status}")
            continue
        found[level] = 3600 * level / statistics.mean(spans)
        loads[level] = watch.between(lives[0].began, max(life.last for life in lives))
        yield Finding(f"{level} at once", found[level], "trials/h", n=len(spans),
                      note=f"a trial {statistics.mean(spans):.1f} s{_memory(lives)}")  # fmt: skip
        yield Finding(f"{level} at once: in use", loads[level].text(num_cores), n=len(spans))
    watch.close()
    if levels[-1] <= max(LEVELS):
        yield from _choice(task, found, CHOICE_SHARES * seconds)
    if found:
        best = max(found.values()) / loop
        yield Finding("best of these / plain loop", best, "x", f"{GOAL:g} (a goal)", len(found),
                      "goal", None if task.stand_in else best >= GOAL)  # fmt: skip
        yield Finding("which resource gives first", _gives_first(loads, num_cores), n=len(loads))


def _after(seconds: float) -> trials.Condition:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _choice(task: Task, found: dict[int, float], seconds: float) -> Iterator[Finding]:
    """What `--trials-per-gpu auto` measures and keeps, beside what real trials took here."""
    path = SweepPaths(trials.WORK_DIR, "auto").packing
    over = _after(1.3 * seconds)
    # Its measurement may take a fifth of the limit; it is over once there is a packing.
    trials.sweep(task, "auto", [
        *trials.point_options(task), "--epochs", "1" if task.stand_in else "3", "--gpus", task.gpu,
        "--trials", str(max(LEVELS)), "--timeout", f"{5 * seconds:.0f}s", "--offline",
    ], until=lambda: path.exists() or over())  # fmt: skip
    if not path.exists():
        yield Finding("what auto chooses", "not measured in time", n=0)
        return
    packing = json.loads(path.read_text())
    level, compared = int(packing["level"]), [n for n in found if n <= max(LEVELS)]
    best = max((found[n] for n in compared), default=0.0)
    held = None if level not in found else found[level] >= TOLERANCE * best
    yield Finding(
        "what auto chooses", f"{level} at once",
        expected=f"{TOLERANCE:g} of the best here or more", n=len(compared),
        kind=task.timed, held=held if task.timed == "promise" else None, note=packing["reason"],
    )  # fmt: skip


def _memory(lives: list[trials.Life]) -> str:
    name = "system/gpu_memory_usage_megabytes"
    seen = [metrics[name] for life in lives for _, metrics in life.epochs if name in metrics]
    return f", {max(seen) / 1000:.2f} GB each" if seen else ", memory of processes not told"


def _gives_first(loads: dict[int, Load], num_cores: int) -> str:
    """The resource that is nearly all in use with the fewest trials at once."""
    for level, load in loads.items():
        if (load.gpu_percent or 0.0) >= FULL_PERCENT:
            return f"the GPU, with {level} at once"
        if 100 * (load.cores or 0.0) / num_cores >= FULL_PERCENT:
            return f"the cores, with {level} at once"
    return f"neither is in use for {FULL_PERCENT:g} %"
