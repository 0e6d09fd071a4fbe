"""Part 8: what `--precision auto` and `--jit auto` choose, and against what."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gpu_parts import trials
from gpu_parts.findings import Finding, Task
from pipelines.runtime.compute import AUTO
from pipelines.training.options import TrainingOptions
from search_spaces.registry import get_space
from sweeps.resources.auto_compute import WORTHWHILE, candidates, decide_compute, fastest
from sweeps.resources.calibration import MOST_OF_TIMEOUT
from sweeps.resources.machine import allot, detect_machine, with_gpus
from sweeps.settings import NONE, SweepSettings


def find(task: Task) -> Iterator[Finding]:
    """Every way that was compared with its seconds of a trial, and the one that is taken."""
    gpus = NONE if task.stand_in else task.gpu
    asked = TrainingOptions(backend=task.backend, precision=AUTO, jit=AUTO)
    settings = SweepSettings(
        trials.SPACE, task.dataset, gpus=gpus, training=asked,
        num_epochs=1 if task.stand_in else None,
        # Of which the measurement may take its part: all that this part has left.
        timeout_seconds=(task.left - trials.RESERVE_SECONDS) / MOST_OF_TIMEOUT,
    )  # fmt: skip
    machine = with_gpus(detect_machine(task.backend), gpus)
    slot = allot(machine, 1, None).slots[0]
    data, space = trials.prepared(task), get_space(trials.SPACE)
    ways = candidates(asked.compute, on_gpu=slot.gpu is not None, is_ours=True)
    decided = decide_compute(settings, space, data, slot, print)
    seconds: list[float | None] = []
    for way in ways:
        text = f"{way.precision} jit {way.jit}"
        found = re.search(rf"{text} ([\d.e+-]+) s a trial", decided.reason)
        seconds.append(float(found[1]) if found else None)
        yield Finding(text, "not measured" if found is None else float(found[1]),
                      "" if found is None else "s a trial", n=int(found is not None))  # fmt: skip
    chosen = decided.settings.training.compute
    rule = fastest(ways, seconds)
    yield Finding(
        "what auto chooses", f"{chosen.precision} jit {chosen.jit}",
        expected=f"{ways[0].precision} jit {ways[0].jit}, or one in {WORTHWHILE:g} of its time",
        n=sum(s is not None for s in seconds), kind="promise", held=chosen == rule,
        note=decided.reason,
    )  # fmt: skip
