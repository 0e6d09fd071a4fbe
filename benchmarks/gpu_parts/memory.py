"""Part 4: what a process takes of the GPU, and what it meets at the end of its part.

Then a sweep whose trials do not fit beside each other (`halving.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_parts import halving, trials
from gpu_parts.findings import Finding, Task
from gpu_parts.jobs import ARRAY, CONVOLUTION, FillTask, context_job, fill_job, first_step_job
from gpu_parts.load import open_meter
from sweeps.executors.base import Executor, Job, Slot
from sweeps.executors.failures import FailureKind, classify
from sweeps.interrupts import Interrupts
from sweeps.resources.machine import detect_machine
from sweeps.resources.nvml import GpuMeter
from sweeps.resources.packing import CONTEXT_BYTES, GpuLayout
from sweeps.workers.start import JOB_ID, JobFailedError, run_job, start_workers

MIB = 2**20
SHARING = 4
"""Trials on the GPU, of whose equal parts one is looked at."""


@dataclass
class _Memory:
    """The most that a job's process was seen to take of the GPU, in bytes."""

    meter: GpuMeter
    gpu: str
    executor: Executor
    before: int
    most: int = 0
    by_process: bool = False
    reports: list[object] = field(default_factory=list)

    def look(self, report: object) -> bool:
        """Takes a report of the job, and reads what its process has."""
        self.reports.append(report)
        figures = self.meter.read(self.gpu)
        process = figures.processes.get(self.executor.process_id(JOB_ID) or 0)
        told = None if process is None else process.memory_bytes
        # In a container processes may have other ids, or none: then all that came is the job's.
        self.by_process = told is not None
        self.most = max(self.most, figures.memory_bytes - self.before if told is None else told)
        return True


def find(task: Task) -> Iterator[Finding]:
    """The context, a training within its part, ways to ask for more, and a sweep that does."""
    meter = open_meter()
    if meter is None:
        raise RuntimeError("NVML does not start, so nobody tells what a process takes")
    machine = detect_machine(task.backend)
    gpu = next(gpu for gpu in machine.gpus if gpu.index == task.gpu)
    layout = GpuLayout((gpu,), machine.num_cores)
    executor = start_workers(trials.SERVER_LOG, task.backend)
    try:
        seen = _Memory(meter, gpu.index, executor, meter.read(gpu.index).memory_bytes)
        _run(task, executor, context_job, None, layout.slot(gpu, 1, 0), seen)
        if not seen.reports:
            raise RuntimeError("no process had its context before the time was over")
        allocated = int(str(seen.reports[0]))
        context = (seen.most - allocated) / MIB
        yield Finding(
            "context: CUDA, cuDNN, cuBLAS", context, "MiB",
            f"at most {CONTEXT_BYTES / MIB:.0f} MiB (assumed)",
            held=context * MIB <= CONTEXT_BYTES,
            note="" if seen.by_process else "what all processes together took more",
        )  # fmt: skip
        yield Finding("NVML knows a process by its id", "yes" if seen.by_process else "no",
                      expected="yes", held=seen.by_process,
                      note="in a container trials may have no figures")  # fmt: skip
        slot = layout.slot(gpu, SHARING, 0)
        if slot.memory is None or slot.memory.num_bytes is None:
            raise RuntimeError("the GPU does not tell its memory, so parts have no limit in bytes")
        share = slot.memory.num_bytes
        yield from _training(task, executor, meter, slot, share)
        for how in (ARRAY, CONVOLUTION):
            yield from _beyond(task, executor, meter, slot, share, how)
        yield from halving.find(task, gpu)
    finally:
        executor.close()
        meter.close()


def _training(
    task: Task, executor: Executor, meter: GpuMeter, slot: Slot, share: int
) -> Iterator[Finding]:
    """A step of the published CNN: by then everything is there that training takes."""
    fit = trials.fit_task(task, trials.prepared(task), 1)
    assert slot.gpu is not None
    seen = _Memory(meter, slot.gpu, executor, meter.read(slot.gpu).memory_bytes)
    _run(task, executor, first_step_job, fit, slot, seen)
    yield _within(f"a step of the CNN in 1/{SHARING} of the GPU", seen, share)


def _beyond(
    task: Task, executor: Executor, meter: GpuMeter, slot: Slot, share: int, how: str
) -> Iterator[Finding]:
    """Asks for more than the part; what comes must be taken for what it is."""
    assert slot.gpu is not None
    seen = _Memory(meter, slot.gpu, executor, meter.read(slot.gpu).memory_bytes)
    try:
        if not _run(task, executor, fill_job, FillTask(how, share, task.stand_in), slot, seen):
            raise RuntimeError("the time was over before the memory was")
    except JobFailedError as error:
        failure = classify(error.event, memory_ran_out=False)
        short = failure.kind is FailureKind.OUT_OF_MEMORY
        yield Finding(f"beyond its part: {how}", error.kind, expected="an exception",
                      kind="promise", held=not error.event.died, note=error.reason)  # fmt: skip
        yield Finding(f"{how}: taken for out of memory", "yes" if short else f"no, {failure.kind}",
                      expected="yes", kind="promise", held=short)  # fmt: skip
    else:
        yield Finding(f"beyond its part: {how}", "nothing was raised", expected="an exception",
                      kind="promise", held=False)  # fmt: skip
    yield _within(f"{how}: the most that it had", seen, share)


def _within(name: str, seen: _Memory, share: int) -> Finding:
    most = share + CONTEXT_BYTES
    if not seen.reports:
        return Finding(name, "not seen", n=0, kind="promise")
    return Finding(
        name, seen.most / MIB, "MiB", f"at most {most / MIB:,.0f} MiB",
        n=len(seen.reports), kind="promise", held=seen.most <= most,
        note="its part and a context are allowed",
    )  # fmt: skip


def _run(
    task: Task, executor: Executor, job: Job, argument: object, slot: Slot, seen: _Memory
) -> Any:
    """The job's value; None where the time was over before."""
    return run_job(
        executor, job, argument, slot, str(Path("memory.log").absolute()), seen.look, Interrupts(),
        task.left - trials.RESERVE_SECONDS,
    )  # fmt: skip
