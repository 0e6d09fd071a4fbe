"""Part 5: seconds from a trial's start to its first step, with a warm spare process and without."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from gpu_parts import trials
from gpu_parts.findings import Finding, Task
from gpu_parts.jobs import FitTask, first_step_job, warm_up_and_tell
from gpu_parts.load import open_meter
from sweeps.executors.base import Slot
from sweeps.executors.processes import ProcessExecutor
from sweeps.interrupts import Interrupts
from sweeps.resources.machine import detect_machine
from sweeps.resources.nvml import GpuMeter
from sweeps.resources.packing import CONTEXT_BYTES, SPARE_SHARE, GpuLayout
from sweeps.workers.start import run_job, start_workers

MIB = 2**20
REPEATS = 3
POLL_SECONDS = 0.02
GPU_SHARE = 1 / SPARE_SHARE


def find(task: Task) -> Iterator[Finding]:
    """Cold starts, then warm ones, then what a spare holds meanwhile."""
    machine = detect_machine(task.backend)
    gpu = next(gpu for gpu in machine.gpus if gpu.index == task.gpu)
    slots = GpuLayout((gpu,), machine.num_cores).spare_slots(1)
    if not slots:
        yield Finding("a spare process", "none on so small a GPU", n=0,
                      expected=f"its context is at most {GPU_SHARE:.0%} of the memory")  # fmt: skip
        return
    fit = trials.fit_task(task, trials.prepared(task), 1)
    repeats = 1 if task.stand_in else REPEATS
    executor = start_workers(trials.SERVER_LOG, task.backend, warm_up_and_tell)
    meter = open_meter()
    try:
        if not task.stand_in:  # The first start reads CUDA's libraries from the disk.
            _seconds(task, executor, fit, slots[0])
        cold = [_seconds(task, executor, fit, slots[0]) for _ in range(repeats)]
        yield _starts("without a spare", cold)
        before = _taken(meter, gpu.index)
        warm: list[float] = []
        for number in range(1, repeats + 1):
            executor.keep_warm(slots)
            if not _is_warm(task, number):
                break
            if number == 1 and before is not None:
                yield _held(_taken(meter, gpu.index), before)
            warm.append(_seconds(task, executor, fit, slots[0]))
        if not warm:
            raise RuntimeError("no spare was ready before the time was over")
        yield _starts("with a spare", warm)
        hidden = statistics.median(cold) - statistics.median(warm)
        yield Finding("a spare hides", hidden, "s", "more than nothing", min(len(cold), len(warm)),
                      task.timed, None if task.stand_in else hidden > 0)  # fmt: skip
    finally:
        executor.close()


def _starts(name: str, seconds: list[float]) -> Finding:
    note = f"from {min(seconds):.2f} to {max(seconds):.2f} s"
    return Finding(f"start to first step, {name}", statistics.median(seconds), "s",
                   n=len(seconds), note=note)  # fmt: skip


def _held(after: int | None, before: int) -> Finding:
    held = ((after or before) - before) / MIB
    return Finding("a spare holds", held, "MiB", f"at most {CONTEXT_BYTES / MIB:.0f} MiB",
                   held=held * MIB <= CONTEXT_BYTES)  # fmt: skip


def _taken(meter: GpuMeter | None, gpu: str) -> int | None:
    """What all processes have of the GPU."""
    return None if meter is None else meter.read(gpu).memory_bytes


def _is_warm(task: Task, number: int) -> bool:
    """Waits until so many spares have told that they are; False where the time is over before."""
    while task.left > trials.RESERVE_SECONDS:
        if len(list(Path().glob("warm-*"))) >= number:
            return True
        time.sleep(POLL_SECONDS)
    return False


def _seconds(task: Task, executor: ProcessExecutor, fit: FitTask, slot: Slot) -> float:
    """From the start of a job to its first step.

    Raises:
        RuntimeError: The time was over before.
    """
    began, steps = time.perf_counter(), []

    def stepped(report: str) -> None:
        del report
        steps.append(time.perf_counter() - began)

    run_job(executor, first_step_job, fit, slot, str(Path("spare.log").absolute()), stepped,
            Interrupts(), task.left - trials.RESERVE_SECONDS)  # fmt: skip
    if not steps:
        raise RuntimeError("no first step before the time was over")
    return steps[0]
