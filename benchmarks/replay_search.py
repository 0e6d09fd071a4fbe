"""What parts of the search are worth, on recorded learning curves and in simulated time.

    python benchmarks/replay_search.py --curves benchmarks/curves/mnist.jsonl.gz --seeds 20
    python benchmarks/replay_search.py --curves benchmarks/curves/digits.jsonl.gz --samplers

The real driver and the real Optuna engine run whole sweeps; only the training is replaced, by the
curves that `record_curves.py` has recorded, and the clock by one that goes as far as a recorded
training took. Every seed is one sweep of each variant.

Without `--samplers` the points are the recorded ones, in an order of the seed's, the same for all
variants: rungs, pruners, the plan for the time, and what is measured. `--first N` has point N come
first as the defaults do, and compares that with having it wait as all others do. With `--samplers`
the real samplers propose points of the real space, and a surrogate fitted to the recorded points
(extremely randomised trees: Geurts, Ernst and Wehenkel, Machine Learning 63, 2006) says what each
would reach and take. Its error, by cross-validation, is printed first.

For each variant: the error of the winner, in full and as it would be kept (median, range), the
ratio of that error to the first variant's, by seed, points tried and trained in full, the simulated
minutes to `--target`.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import optuna
from record_curves import read_lines
from replay_parts.curves import FITTED, TRAINED, Curve, curve_of_line
from replay_parts.simulated import Clock, SimulatedExecutor
from replay_parts.surrogate import Surrogate

from pipelines.data.prepared import PreparedData
from pipelines.objectives import get_objective
from pipelines.training.trial import Schedule
from search_spaces.hyperparameters import Params, active_values
from search_spaces.registry import get_space
from search_spaces.space import Space
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.choosing.time_plan import TimePlan
from sweeps.driver.loop import SweepLoop
from sweeps.driver.plan import LoopPlan, StopRules
from sweeps.driver.records.recorder import BestModels, Recorder
from sweeps.engines.base import DEFAULTS
from sweeps.engines.optuna_study.engine import OptunaEngine
from sweeps.engines.pruners.registry import HALVING
from sweeps.engines.pruners.rungs import make_rungs
from sweeps.executors.base import Slot
from sweeps.interrupts import Interrupts
from sweeps.reporting.progress import QuietView
from sweeps.settings import LARGE_DATA_BUDGET, SMALL_DATA_BUDGET
from sweeps.setup.stores import FULL_TRAINING_SHARE
from sweeps.state.paths import SweepPaths
from tracking.spool.spool import Spool


@dataclass(frozen=True)
class Variant:
    """One way to search."""

    name: str
    min_epochs: Fraction | None = None
    pruner: str = "asha"
    plans_time: bool = True
    measured: str = FITTED
    sampler: str = "prior"
    weighs_cost: bool = True
    leads: bool = True


@dataclass(frozen=True)
class Found:
    """What a sweep found; `error` is 1 - the winner's validation accuracy, 1 without a winner."""

    error: float
    num_points: int
    num_full: int
    minutes_to: float


@dataclass
class Task:
    """What is searched, with which budget."""

    space: Space
    curve_of: Callable[[Params], Curve]
    num_epochs: int
    timeout_seconds: float
    first_rung: Fraction
    target: float
    data: PreparedData
    points: Sequence[Params] = ()
    cost: Callable[[Params], float | None] | None = None
    first: int | None = None


def main() -> None:
    """Replays all variants, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--curves", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--minutes", type=float, help="default: those of a default sweep")
    parser.add_argument("--target", type=float, default=0.990)
    parser.add_argument("--space", default="cnn")
    parser.add_argument("--samplers", action="store_true")
    parser.add_argument("--first", type=int, help="the recorded point that is the defaults")
    parser.add_argument("--variants", nargs="+", help="names of some (default: all)")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lines = read_lines(arguments.curves)
    task, variants = make_task(lines, arguments)
    if arguments.variants:
        names = [variant.name for variant in variants]
        for name in arguments.variants:
            if name not in names:
                parser.error(f"there is no variant {name!r}, but {', '.join(names)}")
        variants = [variant for variant in variants if variant.name in arguments.variants]
    print(
        f"{len(lines)} recorded points x {task.num_epochs} epochs, "
        f"{task.timeout_seconds / 60:g} simulated minutes, n = {arguments.seeds} seeds"
    )
    print(
        f"{'variant':<22} {'error':<26} {'ratio':<20} {'points':>6} {'full':>4} minutes to target"
    )
    first: list[Found] = []
    for variant in variants:
        found = [replayed(task, variant, seed) for seed in range(arguments.seeds)]
        first = first or found
        print(row(variant.name, found, first), flush=True)


def row(name: str, found: Sequence[Found], first: Sequence[Found]) -> str:
    """A line of the table."""
    errors = [one.error for one in found]
    ratios = [one.error / other.error for one, other in zip(found, first, strict=True)]
    minutes = statistics.median(one.minutes_to for one in found)
    spread = f"{min(errors):.4f} to {max(errors):.4f}"
    ratio = f"{statistics.median(ratios):.2f}, mean {statistics.mean(ratios):.2f}"
    return (
        f"{name:<22} {statistics.median(errors):.4f} ({spread}) {ratio:<20} "
        f"{statistics.mean(one.num_points for one in found):>6.1f} "
        f"{statistics.mean(one.num_full for one in found):>4.1f} {minutes:.1f}"
    )


def make_task(
    lines: Sequence[Mapping[str, Any]], arguments: argparse.Namespace
) -> tuple[Task, list[Variant]]:
    """The task, and the variants to compare on it."""
    curves = [curve_of_line(line) for line in lines]
    num_epochs = int(lines[0]["num_epochs"])
    has_early = any(curve.early for curve in curves)
    budget = LARGE_DATA_BUDGET if has_early else SMALL_DATA_BUDGET
    seconds = arguments.minutes * 60 if arguments.minutes else budget.timeout_seconds
    first_rung = Fraction(1, 3) if has_early else Fraction(num_epochs, 3)
    shape, num_images = tuple(lines[0]["input_shape"]), int(lines[0]["num_images"])
    task = Task(
        _recorded_space(len(lines)), lambda params: curves[int(params["point"])], num_epochs,
        seconds, first_rung, arguments.target, _data(shape, num_images),
        [{"point": number} for number in range(len(lines))], first=arguments.first,
    )  # fmt: skip
    if arguments.first is not None:
        return task, [Variant("waits at rungs", leads=False), Variant("does not wait")]
    if not arguments.samplers:
        finer = Fraction(1, 9) if has_early else Fraction(num_epochs, 9)
        return task, [
            Variant("default"),
            Variant("no plan for the time", plans_time=False),
            Variant("trained weights", measured=TRAINED),
            Variant("rungs from finer", min_epochs=finer),
            Variant("rungs from coarser", min_epochs=first_rung * 3),
            Variant("hyperband", pruner="hyperband"),
            Variant("median", pruner="median"),
            Variant("no pruner", pruner="none"),
        ]
    space = get_space(arguments.space)
    surrogate = Surrogate(space, lines, curves)
    print(surrogate.quality())

    def cost(params: Params) -> float | None:
        found = space.cost(params, shape, 10)
        return None if found is None else float(found.multiply_adds)

    return replace(task, space=space, curve_of=surrogate.curve, points=(), cost=cost), [
        Variant("prior"),
        Variant("prior, cost ignored", weighs_cost=False),
        Variant("random", sampler="random", weighs_cost=False),
        Variant("tpe", sampler="tpe", weighs_cost=False),
    ]


def _recorded_space(num_points: int) -> Space:
    def sample(hp: Any) -> Params:
        hp.Choice("point", list(range(num_points)))
        return active_values(hp)

    return Space("recorded", "", sample, None, lambda params, shape: ())  # type: ignore[arg-type]


def _data(shape: tuple[int, int, int], num_images: int) -> PreparedData:
    return PreparedData(
        "recorded", "", "0" * 64, "", "", shape, 10, tuple("0123456789"), {"train": num_images}
    )


def replayed(task: Task, variant: Variant, seed: int) -> Found:
    """One sweep in simulated time."""
    objective, clock = get_objective("val_accuracy"), Clock()
    rungs = make_rungs(variant.min_epochs or task.first_rung, task.num_epochs, 3)
    order = np.random.default_rng(seed).permutation(len(task.points))
    if task.first is not None:
        order = np.concatenate([[task.first], order[order != task.first]])
    points = [((f"point {k}",), task.points[k]) for k in order]
    engine = OptunaEngine(
        task.space, objective, optuna.storages.InMemoryStorage(), "replay",
        "random" if points else variant.sampler, seed,
        baselines=points or task.space.distinct_baselines(), pruner=variant.pruner, rungs=rungs,
        protect_baselines=False, cost=task.cost if variant.weighs_cost else None,
        is_timed=variant.weighs_cost,
        longest_epoch=FULL_TRAINING_SHARE * task.timeout_seconds / task.num_epochs,
    )  # fmt: skip
    board = Board(
        "replay", objective, len(points) or None, 1, task.timeout_seconds, clock=clock.read
    )
    plans = contextlib.nullcontext() if variant.plans_time else _without_plan()
    leads = _led_by(task.first if variant.leads else None) if points else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as folder, plans, leads:
        paths = SweepPaths(Path(folder), "replay")
        recorder = Recorder(
            Spool(paths.spool), task.space, task.data, paths, BestModels(objective, 0)
        )
        plan = LoopPlan(
            space=task.space, data=task.data, num_trials=len(points) or None,
            schedule=Schedule(task.num_epochs, reports=rungs.reports), seed=seed,
            slots=(Slot(0, 1),), paths=paths, rules=StopRules(timeout_seconds=task.timeout_seconds),
            rungs=rungs.steps if variant.pruner in HALVING else (),
        )  # fmt: skip
        executor = SimulatedExecutor(clock, task.curve_of, task.target, variant.measured)
        SweepLoop(plan, board, engine, executor, recorder, QuietView(), Interrupts()).run()
    best = board.best()
    return Found(
        error=1.0 if best is None or best.value is None else 1 - best.value,
        num_points=len(board.rows),
        num_full=len(board.ranking()),
        minutes_to=executor.seconds_to / 60,
    )


def _without_plan() -> Any:
    """In the block nothing but the limit itself ends a search."""
    return mock.patch.multiple(
        TimePlan,
        enters_final_phase=lambda self: False,
        cannot_end=lambda self, row: "",
        next_waiting=lambda self: None,
    )


def _led_by(point: int | None) -> Any:
    """In the block a recorded point is taken for the one of the defaults."""
    leads = TimePlan.leads

    def taken(self: TimePlan, row: TrialRow) -> bool:
        row.proposed_by = DEFAULTS if row.params.get("point", -1) == point else ""
        return leads(self, row)

    return mock.patch.object(TimePlan, "leads", taken)


if __name__ == "__main__":
    main()
