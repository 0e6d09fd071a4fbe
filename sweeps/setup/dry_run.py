"""`--dry-run`: what a sweep would do, need and take, without training or recording anything."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.data.prepared import PreparedData
from pipelines.objectives import get_objective
from pipelines.training.cost import FailedPoint, Measurement, MeasureTask
from pipelines.training.trial import Decision
from search_spaces.errors import InputError
from search_spaces.registry import get_space
from search_spaces.space import Space
from sweeps.driver.choosing.next_trial import MAX_UNTRAINED
from sweeps.driver.choosing.time_plan import NUM_CANDIDATES
from sweeps.engines.base import DEFAULTS, Proposal, Wait
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
from sweeps.settings import LOCAL_NOTE, Budget, SweepSettings, budget_for
from sweeps.setup.data import sweep_data
from sweeps.setup.objective import with_objective
from sweeps.setup.space import space_of
from sweeps.workers.jobs import measure_job
from sweeps.workers.start import JobFailedError, start_workers

log = logging.getLogger(__name__)
MOST_POINTS = 1000
"""More are not counted: nobody tries them."""
NUM_SAMPLED = 10
"""What a sampler proposes without results; `prior` may learn from the sixth on, and differ."""
MEASURING_SHARE, MEASURING_SECONDS = 1 / 6, 15.0
"""Of a time limit for measuring, and so many seconds at least; then no further point is begun. That
of a sweep of three minutes took more than half as long as the sweep."""
SAID_SECONDS = 5.0
"""How often is said how far the measuring is."""
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
class UntrainedPoint:
    """A point that the sweep would try, and why its trial would fail."""

    proposal: Proposal
    failure: FailedPoint


@dataclass(frozen=True)
class DryRun:
    """What a sweep would do, need and take.

    Attributes:
        settings: as they resolve.
        points: of the first ones those that were measured; empty after an interrupt.
        failed: those of the first ones whose trials would fail.
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
    failed: tuple[UntrainedPoint, ...] = ()


def dry_run(
    settings: SweepSettings, say: Callable[[str], None], *, objective_asked: bool = False
) -> DryRun:
    """Measures the first points that a sweep would try, and estimates what it takes.

    Args:
        say: tells a person what the sweep would do, one line a call.
        objective_asked: whether the objective was asked for; else a `fit` may decide it.

    Raises:
        InputError: The settings or the data cannot be used.
        JobFailedError: No point could be measured, or a measuring process died or hangs.
    """
    allotment = allot(
        with_gpus(detect_machine(settings.training.backend), settings.gpus),
        settings.num_workers, settings.num_threads, settings.trials_per_gpu,
    )  # fmt: skip
    data = sweep_data(settings)
    space, budget = space_of(settings, data), budget_for(settings, data.num_images["train"])
    settings = with_objective(settings, space, say, asked=objective_asked)
    settings = decide_compute(settings, space, data, allotment.slots[0], say).settings
    for note in space.notes:
        log.warning("%s", note)
    _say_plan(say, settings, space, data, budget, allotment)
    proposals = first_proposals(settings, space, data, budget, allotment.num_parallel)
    if not proposals:
        raise InputError(
            "The first points that the sampler proposes all exceed --limit. Raise the limit, or "
            "leave --sampler out: the default one proposes points that keep it."
        )
    say(f"measuring a few steps of {count(len(proposals), 'point')} ...")
    with Interrupts() as interrupts:
        started = time.monotonic()
        results, import_seconds = _measure(
            proposals, settings, data, budget, allotment, interrupts, say
        )
    if interrupts.received:
        return DryRun(Outcome.INTERRUPTED, settings, budget)
    measured = {n: found for n, found in results.items() if isinstance(found, Measurement)}
    failed = tuple(
        UntrainedPoint(proposal, found)
        for proposal in proposals
        if isinstance(found := results.get(proposal.number), FailedPoint)
    )
    if not measured:
        first = failed[0].failure
        raise JobFailedError(Raised("", first.kind, first.reason, first.details))
    fixed, limit, num = import_seconds + END_SECONDS, budget.timeout_seconds, budget.num_trials
    num_slots = len(allotment.slots)
    if num is None:
        assert limit is not None
        num = points_within(limit - fixed, settings, budget, num_slots, proposals, results)
    seconds, epochs = estimate(settings, budget, num, num_slots, proposals, results)
    seconds += fixed
    is_cut = limit is not None and seconds > limit
    if limit is not None and (is_cut or budget.num_trials is None):
        seconds = limit
    return DryRun(
        Outcome.DONE,
        settings,
        budget,
        tuple(MeasuredPoint(p, measured[p.number]) for p in proposals if p.number in measured),
        num,
        epochs,
        float(seconds),
        is_cut,
        time.monotonic() - started,
        failed,
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
    say(f"machine   {allotment.reason}{LOCAL_NOTE if settings.executor == 'ray' else ''}")
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
    """The first points that the sweep will train: baselines, then the sampler's start-up."""
    import optuna

    from sweeps.setup.stores import make_engine

    storage = optuna.storages.InMemoryStorage()
    engine = make_engine(settings, space, data, storage, "dry-run", budget, num_parallel)
    proposals: list[Proposal] = []
    wanted = min(NUM_SAMPLED, budget.num_trials or NUM_SAMPLED)
    for _ in range(wanted + MAX_UNTRAINED):
        proposal = engine.ask() if len(proposals) < wanted else None
        if proposal is None or isinstance(proposal, Wait):
            break
        if proposal.duplicate_of is None and not proposal.breaks_limit:
            proposals.append(proposal)
    return proposals


def _measure(
    proposals: Sequence[Proposal],
    settings: SweepSettings,
    data: PreparedData,
    budget: Budget,
    allotment: Allotment,
    interrupts: Interrupts,
    say: Callable[[str], None],
) -> tuple[dict[int, Measurement | FailedPoint], float]:
    """Measures on all slots at once, as the sweep will use them, and what there is time for.

    What the sampler proposes comes first: the points that are not measured are taken for such.

    Raises:
        JobFailedError: A measuring process died, or reports nothing any more.
    """
    limit = settings.stall_seconds or STALL_SECONDS
    with tempfile.TemporaryDirectory(prefix="keras-sweeps-") as folder:
        started = time.monotonic()
        executor = start_workers(
            Path(folder) / "server.log", settings.training.backend, pass_env=settings.pass_env
        )
        measured: dict[int, Measurement | FailedPoint] = {}
        try:
            slots = allotment.slots[: len(proposals)]
            order = sorted(proposals, key=lambda proposal: proposal.baseline is not None)
            shares = {str(k): order[k :: len(slots)] for k in range(len(slots))}
            for k, slot in enumerate(slots):
                points = tuple(proposal.params for proposal in shares[str(k)])
                task = MeasureTask(
                    settings.space, points, data, budget.num_epochs, settings.seed,
                    settings.training, skips_failures=True,
                )  # fmt: skip
                log = str(Path(folder) / f"{k}.log")
                executor.start(str(k), measure_job, task, slot, log)
            left, import_seconds, num_done = len(slots), 0.0, 0
            last_report = dict.fromkeys(shares, time.monotonic())
            said = started
            most = math.inf
            if budget.timeout_seconds is not None:
                most = max(MEASURING_SECONDS, MEASURING_SHARE * budget.timeout_seconds)
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
                        for proposal, found in zip(shares[event.job_id], event.value, strict=False):
                            measured[proposal.number] = found
                    else:
                        now = time.monotonic()
                        import_seconds = import_seconds or now - started
                        num_done += event.message != "ready"
                        if now - said > SAID_SECONDS:
                            said = now
                            say(f"measured {num_done} of {count(len(proposals), 'point')} so far")
                        goes_on = now - started - import_seconds < most
                        executor.answer(event.job_id, goes_on or event.message == "ready")
            if len(measured) < len(proposals) and not interrupts.received:
                say(f"measured {len(measured)} of {count(len(proposals), 'point')}, within a part "
                    "of the sweep's time; the others are taken for average ones")  # fmt: skip
            return measured, import_seconds
        finally:
            executor.close()


def estimate(
    settings: SweepSettings,
    budget: Budget,
    num_trials: int,
    num_slots: int,
    proposals: Sequence[Proposal],
    results: Mapping[int, Measurement | FailedPoint],
) -> tuple[float, float]:
    """Seconds on the slots, and epochs, of a sweep of so many points without its time limit.

    Trials beyond the measured ones are taken for average ones of the sampler's. Which of them are
    promoted is not known, so curves are drawn at random and go through the real pruner. Of a point
    that could not be measured a trial only starts, and of those to come as many are like that.
    """
    measured = {n: found for n, found in results.items() if isinstance(found, Measurement)}
    failed = results.keys() - measured.keys()
    share = len(measured) / len(results)
    sampled = [measured[p.number] for p in proposals if not p.baseline and p.number in measured]
    typical = sampled or list(measured.values())
    start = float(np.mean([m.start_seconds for m in typical]))
    epoch = float(np.mean([m.epoch_seconds for m in typical]))
    protected = {
        p.number for p in proposals
        if p.proposed_by == DEFAULTS or (p.baseline and settings.protect_baselines)
    }  # fmt: skip
    stretches = simulated_stretches(settings, budget, num_trials, protected)
    seconds, total_epochs = 0.0, 0.0
    for number, epochs in stretches:
        found = measured.get(number)
        seconds += found.start_seconds if found else start
        trained = 1.0 if found else 0.0 if number in failed else share
        of_epoch = found.epoch_seconds if found else epoch
        seconds += trained * (epochs * of_epoch + PICTURES_SECONDS)
        total_epochs += trained * epochs
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
    results: Mapping[int, Measurement | FailedPoint],
) -> int:
    """How many points the time is enough for; the sweep's end is a part of it."""
    num = 1
    while num < MOST_POINTS:
        more = num + max(1, num // 8)
        if estimate(settings, budget, more, num_slots, proposals, results)[0] > seconds:
            break
        num = more
    return num


def simulated_stretches(
    settings: SweepSettings, budget: Budget, num_trials: int, protected: set[int]
) -> list[tuple[int, float]]:
    """Trial and epochs of every stretch on a slot, for random curves under the sweep's pruner.

    With a time limit the best are trained in full once all points were tried.
    """
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
    # Published models and defaults are good ones: most of what is sampled is not among the best
    # beside them.
    kept = sorted(number for number in protected if number < num_trials)
    quality[kept] = 0.9 + 0.1 * generator.random(len(kept))
    stretches: list[tuple[int, float]] = []
    reports, end = budget.rungs.reports, budget.rungs.steps[-1]

    def train(number: int) -> None:
        curve = curves.setdefault(number, TrialCurve(number, protected=number in protected))
        curve.paused = False
        pruner.changed(curve)
        done = step = max(curve.values, default=0)
        while step < end and not curve.paused:
            step = reports.next_step(step)
            curve.values[step] = float(quality[number]) + 0.001 * step
            curve.paused = pruner.decide(curve, step) is Decision.PAUSE
        pruner.changed(curve)
        stretches.append((number, reports.epochs(step) - reports.epochs(done)))

    for number in range(num_trials):
        while (found := pruner.next_promotion(no_more_trials=False)) is not None:
            train(found)
        train(number)
    while (found := pruner.next_promotion(no_more_trials=True)) is not None:
        train(found)
    if budget.timeout_seconds is not None and budget.num_trials is not None and not by_oracle:
        num_full = sum(end in curve.values for curve in curves.values())
        waiting = [curve for curve in curves.values() if curve.paused]
        waiting.sort(key=lambda curve: (-max(curve.values), -curve.values[max(curve.values)]))
        for curve in waiting[: max(0, NUM_CANDIDATES - num_full)]:
            curve.promoted_to = end
            train(curve.number)
    return stretches
