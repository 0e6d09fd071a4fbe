"""`--dry-run`: what a sweep would do, need and take, without training or recording anything."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.data.prepared import PreparedData
from pipelines.objectives import get_objective
from pipelines.training.cost import Measurement, MeasureTask
from pipelines.training.trial import Decision
from search_spaces.registry import get_space
from search_spaces.space import Space
from sweeps.engines.base import Proposal, Wait
from sweeps.engines.pruners.base import TrialCurve
from sweeps.engines.pruners.halving import HalvingPruner
from sweeps.engines.pruners.registry import HALVING
from sweeps.executors.base import Raised, Returned
from sweeps.formatting import count
from sweeps.interrupts import Interrupts
from sweeps.outcome import Outcome
from sweeps.reporting.descriptions import left_out_text, pixels_text, pruner_text, trials_text
from sweeps.resources.auto_compute import decide_compute
from sweeps.resources.machine import Allotment, allot, detect_machine, with_gpus
from sweeps.settings import Budget, SweepSettings, budget_for
from sweeps.setup.data import sweep_data
from sweeps.setup.space import space_of
from sweeps.workers.jobs import measure_job
from sweeps.workers.start import JobFailedError, start_workers

log = logging.getLogger(__name__)
MOST_POINTS = 1000
"""More are not counted: nobody tries them."""
NUM_SAMPLED = 10
"""What a sampler proposes without results; `prior` may learn from the sixth on, and differ."""
PICTURES_SECONDS = 0.3
"""Drawing a trial's figures, on a core that its successor would like to have."""
END_SECONDS = 2.0
_SILENT = (
    "a measuring process has reported nothing for {:g} seconds. Look at the space, or give it more "
    "time with --trial-timeout."
)
STALL_SECONDS = 600.0
"""Without `--trial-timeout`, a measuring process that reports nothing for so long hangs."""


@dataclass(frozen=True)
class MeasuredPoint:
    """A point that the sweep would try, and what a few steps of its training cost."""

    proposal: Proposal
    cost: Measurement


@dataclass(frozen=True)
class DryRun:
    """What a sweep would do, need and take.

    Attributes:
        settings: as they resolve.
        points: the first ones; empty after an interrupt.
        num_trials: points that it tries.
        num_epochs: epochs that it trains in all, without its time limit.
        seconds: what it takes on this machine, at most its time limit.
        is_cut: whether the time limit ends it before all of `num_epochs`.
        measuring_seconds: what finding that out took.
    """

    outcome: Outcome
    settings: SweepSettings
    budget: Budget
    points: tuple[MeasuredPoint, ...] = ()
    num_trials: int = 0
    num_epochs: float = 0.0
    seconds: float = 0.0
    is_cut: bool = False
    measuring_seconds: float = 0.0


def dry_run(settings: SweepSettings, say: Callable[[str], None]) -> DryRun:
    """Measures the first points that a sweep would try, and estimates what it takes.

    Args:
        say: tells a person what the sweep would do, one line a call.

    Raises:
        InputError: The settings or the data cannot be used.
        JobFailedError: A point could not be measured, or a measuring process hangs.
    """
    allotment = allot(
        with_gpus(detect_machine(settings.training.backend), settings.gpus),
        settings.num_workers, settings.num_threads, settings.trials_per_gpu,
    )  # fmt: skip
    data = sweep_data(settings)
    space, budget = space_of(settings, data), budget_for(settings, data.num_images["train"])
    settings = decide_compute(settings, space, data, allotment.slots[0], say).settings
    for note in space.notes:
        log.warning("%s", note)
    _say_plan(say, settings, space, data, budget, allotment)
    proposals = first_proposals(settings, space, data, budget, allotment.num_parallel)
    say(f"measuring a few steps of {count(len(proposals), 'point')} ...")
    with Interrupts() as interrupts:
        started = time.monotonic()
        measured, import_seconds = _measure(
            proposals, settings, data, budget, allotment, interrupts
        )
    if interrupts.received:
        return DryRun(Outcome.INTERRUPTED, settings, budget)
    fixed, limit, num = import_seconds + END_SECONDS, budget.timeout_seconds, budget.num_trials
    num_slots = len(allotment.slots)
    if num is None:
        assert limit is not None
        num = points_within(limit - fixed, settings, budget, num_slots, proposals, measured)
    seconds, epochs = estimate(settings, budget, num, num_slots, proposals, measured)
    seconds += fixed
    is_cut = limit is not None and seconds > limit
    if limit is not None and (is_cut or budget.num_trials is None):
        seconds = limit
    return DryRun(
        Outcome.DONE,
        settings,
        budget,
        tuple(MeasuredPoint(proposal, measured[proposal.number]) for proposal in proposals),
        num,
        epochs,
        float(seconds),
        is_cut,
        time.monotonic() - started,
    )


def _say_plan(
    say: Callable[[str], None],
    settings: SweepSettings,
    space: Space,
    data: PreparedData,
    budget: Budget,
    allotment: Allotment,
) -> None:
    say("keras-sweeps, dry run: nothing is trained, nothing is recorded")
    say(f"space     {space.name}: {size_text(space)}")
    say(f"data      {data.name} ({data.origin}): {data.sizes()}")
    say(f"machine   {allotment.reason}")
    say(f"compute   {settings.training.compute.text}")
    if pixels := pixels_text(settings, space):
        say(f"pixels    {pixels}")
    say(f"trials    {trials_text(settings, budget)}")
    say(f"pruner    {pruner_text(settings, budget)}")
    if space.narrowing:
        left_out = left_out_text(space, get_space(settings.space)) if settings.baselines else ""
        say(f"narrowed  {' '.join(space.narrowing)}{left_out}")
    for line in [*data.notes, *_other_settings(settings)]:
        say(f"          {line}")


def size_text(space: Space) -> str:
    """How many parameters, and how many points where they can be counted."""
    total, continuous = 1.0, 0
    for parameter in space.parameters:
        grid = parameter.grid()
        if grid is None:
            continuous += 1
        else:
            total *= len(grid)
    exponent = int(np.floor(np.log10(total))) if total > 1 else 0
    return (
        f"{len(space.parameters)} parameters, {continuous} of them continuous; the others span "
        f"about 10^{exponent} combinations, inactive ones included"
    )


def _other_settings(settings: SweepSettings) -> list[str]:
    values = settings.values()
    names = {
        "early_stopping": "early stopping after {} epochs",
        "num_kept_models": "{} models kept",
        "num_retries": "{} retries of a failed trial",
        "num_audited": "{} pruned trials audited",
    }
    shown = [text.format(values[name]) for name, text in names.items()
             if values[name]]  # fmt: skip
    return ["; ".join(shown)] if shown else []


def first_proposals(
    settings: SweepSettings, space: Space, data: PreparedData, budget: Budget, num_parallel: int
) -> list[Proposal]:
    """The first points that the sweep will propose: baselines, then the sampler's start-up."""
    import optuna

    from sweeps.setup.stores import make_engine

    storage = optuna.storages.InMemoryStorage()
    engine = make_engine(settings, space, data, storage, "dry-run", budget, num_parallel)
    proposals: list[Proposal] = []
    while len(proposals) < min(NUM_SAMPLED, budget.num_trials or NUM_SAMPLED):
        proposal = engine.ask()
        if proposal is None or isinstance(proposal, Wait):
            break
        proposals.append(proposal)
    return proposals


def _measure(
    proposals: Sequence[Proposal],
    settings: SweepSettings,
    data: PreparedData,
    budget: Budget,
    allotment: Allotment,
    interrupts: Interrupts,
) -> tuple[dict[int, Measurement], float]:
    """Measures on all slots at once, as the sweep will use them.

    Raises:
        JobFailedError: A measurement failed, or reports nothing any more.
    """
    limit = settings.stall_seconds or STALL_SECONDS
    with tempfile.TemporaryDirectory(prefix="keras-sweeps-") as folder:
        started = time.monotonic()
        executor = start_workers(Path(folder) / "server.log", settings.training.backend)
        measured: dict[int, Measurement] = {}
        try:
            slots = allotment.slots[: len(proposals)]
            shares = {str(k): list(proposals[k :: len(slots)]) for k in range(len(slots))}
            for k, slot in enumerate(slots):
                points = tuple(proposal.params for proposal in shares[str(k)])
                task = MeasureTask(
                    settings.space, points, data, budget.num_epochs, settings.seed,
                    settings.training,
                )  # fmt: skip
                log = str(Path(folder) / f"{k}.log")
                executor.start(str(k), measure_job, task, slot, log)
            left, import_seconds = len(slots), 0.0
            last_report = dict.fromkeys(shares, time.monotonic())
            while left and not interrupts.received:
                silent = [k for k, at in last_report.items() if time.monotonic() - at > limit]
                if silent:
                    raise JobFailedError(Raised(silent[0], "Hang", _SILENT.format(limit), ""))
                for event in executor.events(0.5):
                    last_report[event.job_id] = time.monotonic()
                    if isinstance(event, Raised):
                        raise JobFailedError(event)
                    if isinstance(event, Returned):
                        left -= 1
                        del last_report[event.job_id]
                        for proposal, found in zip(shares[event.job_id], event.value, strict=True):
                            measured[proposal.number] = found
                    else:
                        import_seconds = import_seconds or time.monotonic() - started
                        executor.answer(event.job_id, True)
            return measured, import_seconds
        finally:
            executor.close()


def estimate(
    settings: SweepSettings,
    budget: Budget,
    num_trials: int,
    num_slots: int,
    proposals: Sequence[Proposal],
    measured: dict[int, Measurement],
) -> tuple[float, float]:
    """Seconds on the slots, and epochs, of a sweep of so many points without its time limit.

    Trials beyond the measured ones are taken for average ones of the sampler's. Which of them are
    promoted is not known, so curves are drawn at random and go through the real pruner.
    """
    sampled = [measured[p.number] for p in proposals if not p.baseline]
    typical = sampled or list(measured.values())
    start = float(np.mean([m.start_seconds for m in typical]))
    epoch = float(np.mean([m.epoch_seconds for m in typical]))
    protected = {p.number for p in proposals if p.baseline and settings.protect_baselines}
    stretches = simulated_stretches(settings, budget, num_trials, protected)
    seconds, total_epochs = 0.0, 0.0
    for number, epochs in stretches:
        found = measured.get(number)
        seconds += found.start_seconds if found else start
        seconds += epochs * (found.epoch_seconds if found else epoch) + PICTURES_SECONDS
        total_epochs += epochs
    if settings.max_total_epochs is not None and total_epochs > settings.max_total_epochs:
        seconds *= settings.max_total_epochs / total_epochs
        total_epochs = settings.max_total_epochs
    return seconds / num_slots, total_epochs


def points_within(
    seconds: float,
    settings: SweepSettings,
    budget: Budget,
    num_slots: int,
    proposals: Sequence[Proposal],
    measured: dict[int, Measurement],
) -> int:
    """How many points the time is enough for; the sweep's end is a part of it."""
    num = 1
    while num < MOST_POINTS:
        more = num + max(1, num // 8)
        if estimate(settings, budget, more, num_slots, proposals, measured)[0] > seconds:
            break
        num = more
    return num


def simulated_stretches(
    settings: SweepSettings, budget: Budget, num_trials: int, protected: set[int]
) -> list[tuple[int, float]]:
    """Trial and epochs of every stretch on a slot, for random curves under the sweep's pruner."""
    by_oracle = settings.oracle == "hyperband"  # Its rungs are nearly those of the pruner.
    if settings.pruner not in HALVING and not by_oracle:
        # Optuna's pruners depend on the curves; in full is what they take at most.
        return [(number, budget.num_epochs) for number in range(num_trials)]
    generator = np.random.default_rng(settings.seed)
    objective = get_objective("val_accuracy")
    curves: dict[int, TrialCurve] = {}
    pruner = HalvingPruner(
        curves, objective, budget.rungs, hyperband=by_oracle or settings.pruner == "hyperband"
    )
    quality = generator.random(num_trials)
    # Published models are good ones: most of what is sampled is not among the best beside them.
    kept = sorted(number for number in protected if number < num_trials)
    quality[kept] = 0.9 + 0.1 * generator.random(len(kept))
    stretches: list[tuple[int, float]] = []
    reports, end = budget.rungs.reports, budget.rungs.steps[-1]

    def train(number: int) -> None:
        curve = curves.setdefault(number, TrialCurve(number, protected=number in protected))
        curve.paused = False
        done = step = max(curve.values, default=0)
        while step < end and not curve.paused:
            step = reports.next_step(step)
            curve.values[step] = float(quality[number]) + 0.001 * step
            curve.paused = pruner.decide(curve, step) is Decision.PAUSE
        stretches.append((number, reports.epochs(step) - reports.epochs(done)))

    for number in range(num_trials):
        while (found := pruner.next_promotion(no_more_trials=False)) is not None:
            train(found)
        train(number)
    while (found := pruner.next_promotion(no_more_trials=True)) is not None:
        train(found)
    return stretches
