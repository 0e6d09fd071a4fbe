"""Part 2, for PyTorch: Keras' training step by step, and several of them in one CUDA graph.

A graph is given to the GPU by one call, which would leave the host little to do. Whether Keras'
step can be captured is not known: what it raises then is what is found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpu_parts import trials
from gpu_parts.findings import Finding, Task
from gpu_parts.jobs import FitTask
from pipelines.data.prepared import PreparedData
from search_spaces.registry import get_space
from sweeps.executors.base import Slot
from sweeps.interrupts import Interrupts
from sweeps.resources.machine import detect_machine
from sweeps.workers.jobs import configured
from sweeps.workers.start import JobFailedError, run_job, start_workers

STEPS = 8
"""Of one graph."""
NUM_STEPS, WARM_STEPS = 400, 20
SMALL_STEPS = 40
EAGER, TINY, GRAPH = "step by step", "a batch of one image", f"{STEPS} steps in a CUDA graph"


@dataclass(frozen=True)
class StepTime:
    """How long steps took.

    Attributes:
        seconds: a step, until the device had done it.
        host_seconds: CPU seconds of this process for a step.
        problem: what was raised instead; empty where nothing was.
    """

    name: str
    seconds: float = 0.0
    host_seconds: float = 0.0
    problem: str = ""


def find(task: Task, data: PreparedData) -> Iterator[Finding]:
    """Steps a second in both ways, and what the host has to do for a step."""
    slot = Slot(0, detect_machine(task.backend).num_cores, task.gpu)
    fit = trials.fit_task(task, data, SMALL_STEPS if task.stand_in else NUM_STEPS)
    executor = start_workers(trials.SERVER_LOG, task.backend)
    times: list[StepTime] = []
    problem = "the time was over before"
    try:
        run_job(executor, steps_job, fit, slot, str(Path("steps.log").absolute()), times.append,
                Interrupts(), task.left - trials.RESERVE_SECONDS)  # fmt: skip
    except JobFailedError as error:
        problem = str(error)
    finally:
        executor.close()
    yield from findings(times, problem)


def findings(times: list[StepTime], problem: str) -> Iterator[Finding]:
    """What the step times say. Pure.

    Args:
        problem: why a way is not among them.
    """
    known = {found.name: found for found in times}
    for name in (EAGER, TINY, GRAPH):
        found = known.get(name, StepTime(name, problem=problem))
        if found.problem:
            yield Finding(f"PyTorch, {name}", "not possible", n=0, note=found.problem)
            continue
        note = f"{1000 * found.host_seconds:.2f} ms of the host's for a step"
        yield Finding(f"PyTorch, {name}", 1 / found.seconds, "steps/s", note=note)
    if all(name in known and not known[name].problem for name in (EAGER, GRAPH)):
        ratio = known[EAGER].seconds / known[GRAPH].seconds
        yield Finding("steps/s: CUDA graph / step by step", ratio, "x")


def steps_job(task: FitTask, report: Callable[[StepTime], Any], slot: Slot) -> None:
    """Times Keras' `train_step` on batches that are on the device, then a graph of some."""
    configured(slot, 0, compute=task.compute)
    import torch

    model, batch = _model_and_batch(task)
    one = tuple(part[:1] for part in batch)
    report(_timed(EAGER, lambda: model.train_step(batch), task.num_epochs))
    report(_timed(TINY, lambda: model.train_step(one), task.num_epochs))
    try:
        graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # As PyTorch's documentation has it.
            for _ in range(3):
                model.train_step(batch)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            for _ in range(STEPS):
                model.train_step(batch)
        found = _timed(GRAPH, graph.replay, task.num_epochs // STEPS)
        report(replace(
            found, seconds=found.seconds / STEPS, host_seconds=found.host_seconds / STEPS
        ))  # fmt: skip
    except Exception as error:  # That is the finding.
        first = (str(error).strip().splitlines() or [""])[0][:200]
        report(StepTime(GRAPH, problem=f"{type(error).__name__}: {first}"))


def _model_and_batch(task: FitTask) -> tuple[Any, tuple[Any, Any]]:
    import keras

    x, y = task.data.arrays("train")
    assembled = get_space(task.space).assembled(
        task.params, task.data.input_shape, task.data.num_classes, len(x), 1
    )
    rows = np.arange(assembled.batch_size)
    images, labels = (keras.ops.convert_to_tensor(np.asarray(part[rows])) for part in (x, y))
    model = assembled.model
    model._symbolic_build(data_batch=(images, labels))
    return model, (images, labels)


def _timed(name: str, step: Callable[[], Any], num_steps: int) -> StepTime:
    import torch

    def waited() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    for _ in range(min(WARM_STEPS, num_steps)):
        step()
    waited()
    began, host = time.perf_counter(), time.process_time()
    for _ in range(num_steps):
        step()
    host = time.process_time() - host
    waited()
    return StepTime(name, (time.perf_counter() - began) / num_steps, host / num_steps)
