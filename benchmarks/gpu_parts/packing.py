"""Part 3: trials an hour with 1, 2, 4 and 8 at once, what `auto` chooses, and what gives first.

A trial is the published CNN for three epochs, with its start, validation, checkpoints and records.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gpu_parts import trials
from gpu_parts.findings import Finding, Task
from gpu_parts.load import Load, LoadWatch
from gpu_parts.plain import plain_epochs
from search_spaces.errors import InputError
from sweeps.resources.machine import detect_machine
from sweeps.resources.packer import packings
from sweeps.resources.packing import CONTEXT_BYTES, LEVELS, GpuLayout
from sweeps.state.paths import SweepPaths

NUM_EPOCHS = 3
ALL_LEVELS = (1, 2, 4, 8)
CHOICE_SHARES = 2
GOAL = 20.0
"""Times the trials an hour of a plain loop: a goal of the project, not a promise."""
FULL_PERCENT = 90.0
TOLERANCE = 0.75
"""A choice whose trials an hour are this part of the best ones': few trials vary so much."""


@dataclass(frozen=True)
class Rate:
    """Trials an hour with so many at once.

    Attributes:
        num: trials behind it.
        extrapolated: whether no trial came to its end, so that epochs stand for trials.
    """

    per_hour: float
    trial_seconds: float
    num: int
    extrapolated: bool


def find(task: Task) -> Iterator[Finding]:
    """A plain loop, each level, the choice, the resource that gives first."""
    num_epochs = 1 if task.stand_in else NUM_EPOCHS
    data, machine = trials.prepared(task), detect_machine(task.backend)
    layout = GpuLayout(
        tuple(gpu for gpu in machine.gpus if gpu.index == task.gpu), machine.num_cores
    )
    first, *others = plain_epochs(task, data, 2 if task.stand_in else 3, 0.12 * task.seconds)
    loop = 3600 / (first + (num_epochs - 1) * statistics.median(others))
    yield Finding(
        "a plain loop of model.fit", loop, "trials/h", n=1,
        note=f"{num_epochs} epochs without validation; the first with building and compiling",
    )  # fmt: skip
    levels = LEVELS[:2] if task.stand_in else ALL_LEVELS
    # Two shares more for the choice, which comes before the level that it does not compare.
    seconds = 0.85 * task.left / (len(levels) + CHOICE_SHARES)
    rates: dict[int, Rate] = {}
    loads: dict[int, Load] = {}
    watch = LoadWatch(task.gpu)
    for level in levels:
        if level > max(LEVELS):
            yield from _choice(task, rates, CHOICE_SHARES * seconds)
        try:
            layout.check_level(level)
        except InputError as error:
            yield Finding(f"{level} at once", "no room on this GPU", n=0, note=str(error))
            continue
        name = f"level-{level}"
        end = trials.sweep(task, name, [
            *trials.point_options(task), "--epochs", str(num_epochs), "--gpus", task.gpu,
            "--trials-per-gpu", str(level), "--workers", str(level),
            "--trials", str(level if task.stand_in else max(3, 2 * level)),
            "--timeout", f"{seconds:.0f}s", "--offline",
        ], until=trials.after(1.3 * seconds))  # fmt: skip
        lives = trials.lives(name)
        yield trials.in_order(name, end, lives)
        rate, finding = measured(level, trials.level(name), lives, num_epochs)
        yield finding
        if rate is not None:
            rates[level] = rate
            memory = layout.slot(layout.gpus[0], level, 0).memory
            yield from within(level, None if memory is None else memory.num_bytes, lives)
            loads[level] = watch.between(lives[0].began, max(life.last for life in lives))
            yield Finding(
                f"{level} at once: in use", loads[level].text(machine.num_cores), n=rate.num
            )
    watch.close()
    if levels[-1] <= max(LEVELS):
        yield from _choice(task, rates, CHOICE_SHARES * seconds)
    yield goal(task, rates, loop)
    yield Finding(
        "which resource gives first", _gives_first(loads, machine.num_cores), n=len(loads)
    )


def measured(
    level: int, kept: int | None, lives: Sequence[trials.Life], num_epochs: int
) -> tuple[Rate | None, Finding]:
    """Trials an hour with so many at once, where so many were at once to the end. Pure.

    What came to its end by the last one's end counts, over the seconds until then.

    Args:
        kept: the level that the sweep ended with; None where it never began.
    """
    name = f"{level} at once"
    if kept is not None and kept != level:
        text = f"not measured: lowered to {kept}"
        return None, Finding(name, text, n=0, note="memory ran out with so many")
    full = [life for life in lives if life.state == "COMPLETE" and life.ended is not None]
    cut = [life for life in lives if life.state not in ("COMPLETE", "FAILED")]
    known = full or cut
    spans = [span for life in known if (span := life.seconds(num_epochs)) is not None]
    if not spans:
        return None, Finding(name, "not measured: no trial trained", n=0)
    per_hour = 3600 * level / statistics.mean(spans)
    if full:
        wall = max(life.last for life in full) - min(life.began for life in lives)
        per_hour = 3600 * len(full) / wall
    rate = Rate(per_hour, statistics.mean(spans), len(spans), not full)
    unit = f"trials/h{', extrapolated' if rate.extrapolated else ''}"
    note = f"a trial {rate.trial_seconds:.1f} s{_memory(lives)}"
    return rate, Finding(name, rate.per_hour, unit, n=rate.num, note=note)


def within(level: int, share: int | None, lives: Sequence[trials.Life]) -> Iterator[Finding]:
    """Whether trials stay within their part of the GPU, where they have one and NVML tells. Pure.

    Args:
        share: of each trial, in bytes, its context not counted.
    """
    seen = _megabytes(lives)
    if share is None or not seen:
        return
    most = (share + CONTEXT_BYTES) / 1e6
    yield Finding(
        f"{level} at once: memory of a trial", max(seen), "MB", f"at most {most:,.0f} MB",
        len(seen), "promise", max(seen) <= most, "its part and a context are allowed",
    )  # fmt: skip


def goal(task: Task, rates: Mapping[int, Rate], loop: float) -> Finding:
    """The best of the levels against a plain loop; missed where no trial trained in full. Pure."""
    name, expected = "best of these / plain loop", f"{GOAL:g} (a goal)"
    whole = [rate.per_hour for rate in rates.values() if not rate.extrapolated]
    best: float | str = max(whole) / loop if whole else "no trial was trained in full"
    held = None if task.stand_in else bool(whole) and max(whole) / loop >= GOAL
    return Finding(name, best, "x" if whole else "", expected, len(whole), "goal", held)


def _choice(task: Task, rates: Mapping[int, Rate], seconds: float) -> Iterator[Finding]:
    """What `--trials-per-gpu auto` measures and keeps, beside what real trials took here."""
    path = SweepPaths(trials.WORK_DIR, "auto").packing
    over = trials.after(1.3 * seconds)
    # Its measurement may take a fifth of the limit; it is over once there is a packing.
    trials.sweep(task, "auto", [
        *trials.point_options(task), "--epochs", "1" if task.stand_in else "3", "--gpus", task.gpu,
        "--trials", str(max(LEVELS)), "--timeout", f"{5 * seconds:.0f}s", "--offline",
    ], until=lambda: path.exists() or over())  # fmt: skip
    if not path.exists():
        yield Finding("what auto chooses", "not measured in time", n=0, kind=task.timed)
        return
    (packing,) = packings(path)
    yield chosen(task, packing.level, packing.reason, rates)


def chosen(task: Task, level: int, reason: str, rates: Mapping[int, Rate]) -> Finding:
    """The level that `auto` keeps, against those of these that it compares. Pure."""
    compared = {n: rate.per_hour for n, rate in rates.items() if n <= max(LEVELS)}
    held = None
    if level in compared and not task.stand_in:
        held = compared[level] >= TOLERANCE * max(compared.values())
    return Finding(
        "what auto chooses", f"{level} at once", expected=f"{TOLERANCE:g} of the best here or more",
        n=len(compared), kind=task.timed, held=held, note=reason,
    )  # fmt: skip


def _memory(lives: Sequence[trials.Life]) -> str:
    seen = _megabytes(lives)
    return f", {max(seen) / 1000:.2f} GB each" if seen else ", memory of processes not told"


def _megabytes(lives: Sequence[trials.Life]) -> list[float]:
    name = "system/gpu_memory_usage_megabytes"
    return [metrics[name] for life in lives for _, metrics in life.epochs if name in metrics]


def _gives_first(loads: dict[int, Load], num_cores: int) -> str:
    """The resource that is nearly all in use with the fewest trials at once."""
    for level, load in loads.items():
        if (load.gpu_percent or 0.0) >= FULL_PERCENT:
            return f"the GPU, with {level} at once"
        if 100 * (load.cores or 0.0) / num_cores >= FULL_PERCENT:
            return f"the cores, with {level} at once"
    return f"neither is in use for {FULL_PERCENT:g} %"
