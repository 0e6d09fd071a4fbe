"""Part 8: what `--precision auto` and `--jit auto` choose, and what real epochs say of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from gpu_parts import trials
from gpu_parts.findings import Finding, Task
from pipelines.runtime.compute import AUTO, Compute
from pipelines.training.options import TrainingOptions
from search_spaces.registry import get_space
from sweeps.resources.auto_compute import WORTHWHILE, candidates, decide_compute
from sweeps.resources.calibration import MOST_OF_TIMEOUT
from sweeps.resources.machine import allot, detect_machine, with_gpus
from sweeps.settings import NONE, SweepSettings, budget_for

MEASURING = 0.4
"""Of this part's time, for the measurement; the two trainings that follow share the rest."""
NUM_EPOCHS = 3
COMPARISON = "auto's choice / another way"
SLOWER = 1.15
"""Times the seconds of a trial that the choice may take of another way: few epochs vary so much."""


def find(task: Task) -> Iterator[Finding]:
    """The seconds of a trial that were measured of every way, then what two of them really take."""
    gpus = NONE if task.stand_in else task.gpu
    asked = TrainingOptions(backend=task.backend, precision=AUTO, jit=AUTO)
    settings = SweepSettings(
        trials.SPACE, task.dataset, gpus=gpus, training=asked,
        num_epochs=1 if task.stand_in else None,
        # Of which the measurement may take its part.
        timeout_seconds=MEASURING * task.left / MOST_OF_TIMEOUT,
    )  # fmt: skip
    machine = with_gpus(detect_machine(task.backend), gpus)
    slot = allot(machine, 1, None).slots[0]
    data, space = trials.prepared(task), get_space(trials.SPACE)
    ways = candidates(asked.compute, on_gpu=slot.gpu is not None, is_ours=True)
    decided = decide_compute(settings, space, data, slot, print)
    estimates: dict[Compute, float | None] = {}
    for way in ways:
        found = re.search(rf"{short(way)} ([\d.e+-]+) s a trial", decided.reason)
        estimates[way] = float(found[1]) if found else None
        yield Finding(short(way), "not measured" if found is None else float(found[1]),
                      "" if found is None else "s a trial", n=int(found is not None))  # fmt: skip
    chosen = decided.settings.training.compute
    yield Finding(
        "what auto chooses", short(chosen), n=sum(s is not None for s in estimates.values()),
        expected=f"{short(ways[0])}, or one in {WORTHWHILE:g} of its time", note=decided.reason,
    )  # fmt: skip
    other = rival(ways, estimates, chosen)
    if other is None:
        alone = len(ways) == 1
        yield Finding(COMPARISON, "one way only" if alone else "no other way was measured",
                      n=0, kind="figure" if alone else task.timed)  # fmt: skip
        return
    params = None if task.stand_in else space.distinct_baselines()[0][1]
    num_epochs = budget_for(settings, data.num_images["train"]).num_epochs
    seconds = []
    for way in (chosen, other):
        share = (task.left - trials.RESERVE_SECONDS) / (2 - len(seconds))
        name = f"auto-{way.precision}-{way.jit}"
        end = trials.sweep(task, name, [
            *trials.point_options(task, params), "--precision", way.precision, "--jit", way.jit,
            "--gpus", gpus, "--workers", "1", "--trials", "2", "--offline",
            *(() if task.stand_in else ("--trials-per-gpu", "1")),
            "--epochs", str(min(num_epochs, NUM_EPOCHS)), "--timeout", f"{share:.0f}s",
        ], until=trials.after(share))  # fmt: skip
        lives = trials.lives(name)
        yield trials.in_order(name, end, lives)
        seconds.append(trained_seconds(lives, num_epochs))
        yield Finding(
            f"{short(way)}, really trained", "no epoch" if seconds[-1] is None else seconds[-1],
            "" if seconds[-1] is None else "s a trial", n=int(seconds[-1] is not None),
            note=f"of {num_epochs} epochs, from the epochs of the second trial",
        )  # fmt: skip
    yield compared(task, chosen, other, seconds)


def short(way: Compute) -> str:
    """As `auto` itself says it."""
    return f"{way.precision} jit {way.jit}"


def rival(
    ways: Sequence[Compute], estimates: Mapping[Compute, float | None], chosen: Compute
) -> Compute | None:
    """What the choice is compared with; None where there is nothing else. Pure.

    The plain way; where that was chosen, the one that was measured to be fastest of the others; any
    other where nothing was measured.
    """
    if chosen != ways[0]:
        return ways[0]
    others = {way: seconds for way in ways[1:] if (seconds := estimates[way]) is not None}
    if others:
        return min(others, key=lambda way: others[way])
    return ways[1] if len(ways) > 1 and estimates[ways[0]] is None else None


def trained_seconds(lives: Sequence[trials.Life], num_epochs: int) -> float | None:
    """Seconds of a trial of so many epochs, as the last one that trained has it. Pure.

    The first one also pays for what a session does once.
    """
    spans = [life.seconds_for(num_epochs) for life in lives if life.state != "FAILED"]
    return next((span for span in reversed(spans) if span is not None), None)


def compared(
    task: Task, chosen: Compute, other: Compute, seconds: Sequence[float | None]
) -> Finding:
    """Whether the choice holds what it promises, by seconds that were really needed. Pure."""
    name, expected = COMPARISON, f"at most {SLOWER:g}"
    ours, theirs = seconds
    note = f"{short(chosen)} against {short(other)}"
    if ours is None or theirs is None:
        return Finding(name, "not measured", "", expected, 0, task.timed, None, note)
    ratio = ours / theirs
    held = None if task.stand_in else ratio <= SLOWER
    return Finding(name, ratio, "x", expected, 1, task.timed, held, note)
