"""With how many trials per GPU a sweep begins: as asked, as remembered, or as measured now."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.training.cost import MeasureTask
from sweeps.driver.recorder import Recorder
from sweeps.executors.base import Executor
from sweeps.interrupts import Interrupts
from sweeps.resources.calibration import calibrate, seconds_for
from sweeps.resources.gpu_monitor import GpuWatch
from sweeps.resources.machine import Allotment
from sweeps.resources.packer import Packing, gpu_names, read_packing, write_packing
from sweeps.state.paths import SweepPaths


def packed(
    allotment: Allotment,
    asked: int | None,
    paths: SweepPaths,
    recorder: Recorder,
    executor: Executor,
    watch: GpuWatch | None,
    interrupts: Interrupts,
    task: Callable[[], MeasureTask],
    timeout_seconds: float | None,
    say: Callable[[str], None],
) -> Allotment:
    """The allotment with its packing settled, which is recorded and remembered.

    Args:
        asked: `--trials-per-gpu`; None for auto.
        task: what to measure, made only where something is measured.
        timeout_seconds: the time limit of the sweep, of which a measurement takes a part.
    """
    if allotment.layout is None:
        return allotment
    known = read_packing(paths.packing, allotment, asked)
    if known is not None:
        level, reason = known.level, known.reason
    elif len(allotment.levels) > 1:
        found = calibrate(
            allotment, task(), executor, watch, interrupts, paths.sweep / "measuring",
            seconds_for(timeout_seconds), say,
        )  # fmt: skip
        if interrupts.received:
            return allotment.at(1)  # Nothing was found out; a resumed sweep measures again.
        level, reason = found.level, found.text
        if found.measured:  # What could not be measured may be possible in the next session.
            names = gpu_names(allotment.layout)
            write_packing(paths.packing, Packing(asked, names, level, reason))
    else:
        level = allotment.level
        reason = "as asked" if asked else "no more fit, or so few trials need no more"
    say(f"packing   {reason}")
    recorder.packed(level, reason)
    return allotment.at(level)
