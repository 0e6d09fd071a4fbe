"""Decides `auto`: which precision and compilation a sweep's trials have, once, before it begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from pipelines.data.prepared import PreparedData
from pipelines.runtime.compute import AUTO, Compute, jit_rule
from pipelines.training.cost import MeasureTask
from search_spaces.hyperparameters import Params
from search_spaces.space import Space
from sweeps.executors.base import Slot
from sweeps.interrupts import Interrupts
from sweeps.resources.calibration import seconds_for
from sweeps.settings import SweepSettings, budget_for
from sweeps.state.paths import compiled_folder
from sweeps.workers.jobs import calibrate_job
from sweeps.workers.start import JobFailedError, run_job, start_workers

WORTHWHILE = 0.9
"""The share of the plain way's time that another way may take: a tie, or noise, changes nothing."""


@dataclass(frozen=True)
class Decided:
    """Settings without `auto`, and one phrase that says why they are so."""

    settings: SweepSettings
    reason: str


def decide_compute(
    settings: SweepSettings,
    space: Space,
    data: PreparedData,
    slot: Slot,
    say: Callable[[str], None],
) -> Decided:
    """What `auto` means for a new sweep here; a sweep that has begun keeps what it has.

    One possibility needs no measurement. Several are measured in a process of their own, by some
    steps of the space's first point, while there is time; the first of them stands unless another
    one is clearly faster.

    Raises:
        KeyboardInterrupt: An interrupt came first.
    """
    ways = candidates(
        settings.training.compute, on_gpu=slot.gpu is not None, is_ours=not space.reference
    )
    if len(ways) == 1:
        reason = "" if settings.training.jit == ways[0].jit else "jit by rule"
        return Decided(_with(settings, ways[0]), reason)
    say(f"measuring {len(ways)} ways to compute: {', '.join(_short(way) for way in ways)}")
    points = space.distinct_baselines()
    params = points[0][1] if points else space.complete({})
    seconds = _measured(settings, params, data, slot, ways)
    chosen = fastest(ways, seconds)
    texts = [
        f"{_short(way)} {'not measured' if found is None else f'{found:.3g} s a trial'}"
        for way, found in zip(ways, seconds, strict=True)
    ]
    return Decided(_with(settings, chosen), f"measured: {', '.join(texts)}")


def candidates(asked: Compute, *, on_gpu: bool, is_ours: bool) -> list[Compute]:
    """The ways that `auto` leaves open, the plain one first. Pure.

    A user's space decides about compilation by its own `compile`, unless it is told. Half the
    exponent's range (float16) is for GPUs, which are fast with it; on PyTorch compilation takes
    longer than a small model's training.
    """
    precisions = [asked.precision]
    if asked.precision == AUTO:
        precisions = ["float32", "mixed_bfloat16", *(["mixed_float16"] if on_gpu else [])]
    jits = [asked.jit]
    if asked.jit == AUTO and is_ours:
        rule = jit_rule(asked.backend, on_gpu=on_gpu)
        jits = ["on", "off"] if on_gpu and asked.backend == "tensorflow" else [rule]
    return [Compute(asked.backend, p, jit) for p, jit in product(precisions, jits)]


def fastest(ways: Sequence[Compute], seconds: Sequence[float | None]) -> Compute:
    """The way to take, given each one's time, None where it failed. Pure."""
    first = seconds[0]
    usable = [(s, k) for k, s in enumerate(seconds) if s is not None]
    if not usable:
        return ways[0]
    best, place = min(usable)
    return ways[place] if first is None or best < WORTHWHILE * first else ways[0]


def _measured(
    settings: SweepSettings,
    params: Params,
    data: PreparedData,
    slot: Slot,
    ways: Sequence[Compute],
) -> list[float | None]:
    """Seconds of a trial in each way; None where it cannot be trained so, or not in time."""
    budget = budget_for(settings, data.num_images["train"])
    plain = MeasureTask(settings.space, (params,), data, budget.num_epochs, settings.seed)
    tasks = tuple(replace(plain, training=_with(settings, way).training) for way in ways)
    # The server that is started here forks the trials later.
    executor = start_workers(
        Path(os.devnull), settings.training.backend, compiled=compiled_folder(settings),
        pass_env=settings.pass_env,
    )  # fmt: skip
    found: list[float | None] = [None] * len(ways)

    def on_message(message: tuple[int, float | None]) -> bool:
        found[message[0]] = message[1]
        return True

    try:
        with Interrupts() as interrupts:
            limit_seconds = seconds_for(budget.timeout_seconds)
            run_job(
                executor,
                calibrate_job,
                tasks,
                slot,
                os.devnull,
                on_message,
                interrupts,
                limit_seconds,
            )
            if interrupts.received:
                raise KeyboardInterrupt
    except JobFailedError:
        pass  # What was measured until then counts.
    finally:
        executor.close()
    return found


def _with(settings: SweepSettings, way: Compute) -> SweepSettings:
    return settings.with_values(precision=way.precision, jit=way.jit)


def _short(way: Compute) -> str:
    return f"{way.precision} jit {way.jit}"
