"""What a trial costs whoever drives it, after 100 trials and after 10,000.

The trials train nothing: three reports each, made up from their points, so what is left is the
driver; `the end` is what it does once the last trial has begun. Ours is the real loop with the real
engine, study and spool; Optuna's is `Study.optimize` with the same sampler, storage and space, its
successive halving, and no tracking.
"""

from __future__ import annotations

import hashlib
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from pipelines.data.prepared import PreparedData
from pipelines.objectives import get_objective
from pipelines.training.reports import TrialReport
from pipelines.training.trial import Decision, Schedule, TrialResult, TrialTask
from search_spaces.hyperparameters import Params
from search_spaces.registry import get_space
from sweeps.driver.board.board import Board
from sweeps.driver.board.views import QuietView
from sweeps.driver.loop import SweepLoop
from sweeps.driver.plan import LoopPlan
from sweeps.driver.records.recorder import BestModels, Recorder
from sweeps.engines.optuna_study.engine import OptunaEngine
from sweeps.engines.optuna_study.hyperparameters import OptunaHyperParameters
from sweeps.engines.optuna_study.prior_sampler import PriorSampler
from sweeps.engines.optuna_study.storage import open_storage
from sweeps.engines.pruners.rungs import Rungs
from sweeps.executors.base import Event, Job, Raised, Reported, Returned, Slot
from sweeps.interrupts import Interrupts
from sweeps.settings import SweepSettings
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import FINISHED, SweepFile, write_sweep_file
from tracking.spool.spool import Spool

MARKS = (100, 1_000, 5_000, 10_000)
DEFAULT_TRIALS = MARKS[-1]
WINDOW = 100
"""Trials up to a mark over which the cost of one is a mean."""
STEPS = (1, 2, 3)
SPACE, SHAPE = get_space("cnn"), (28, 28, 1)
NAME, STUDY = "scale", "sqlite:///optuna.db"
COMMANDS = (("list",), ("show", NAME), ("report", NAME))


def value_of(params: Mapping[str, Any], step: int) -> float:
    """What a made-up trial reports: good near a learning rate of 0.003, and some luck."""
    text = json.dumps(dict(params), sort_keys=True).encode()
    luck = int(hashlib.sha256(text).hexdigest()[:8], 16) / 2**32
    near = math.exp(-abs(math.log(float(params["learning_rate"]) / 0.003)))
    return 0.9 + 0.05 * near + 0.03 * luck - 0.01 / step


@dataclass
class Costs:
    """When each trial began: wall and CPU seconds of this process.

    Beginnings are counted, because a trial that waits at a rung ends long after others have begun.
    """

    begun: list[tuple[float, float]] = field(default_factory=list)

    def trial_begins(self) -> None:
        """Notes a beginning."""
        self.begun.append((time.perf_counter(), time.process_time()))

    def at_marks(self) -> dict[str, list[float]]:
        """By mark, the last trial one of them: milliseconds of a trial, wall and CPU."""
        found = {}
        for mark in sorted({*MARKS, len(self.begun)}):
            if 1 < mark <= len(self.begun):
                first, last = self.begun[max(0, mark - WINDOW)], self.begun[mark - 1]
                num = min(WINDOW, mark) - 1
                found[str(mark)] = [1000 * (b - a) / num for a, b in zip(first, last, strict=True)]
        return found

    def since_last(self) -> float:
        """Wall seconds since the last trial began."""
        return time.perf_counter() - self.begun[-1][0]


def measured(side: str, num_trials: int) -> dict[str, Any]:
    """One side, in the present folder; `side` is one of `SIDES`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    costs = Costs()
    more = SIDES[side](num_trials, costs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"milliseconds": costs.at_marks(), "peak_mb": round(peak), **more}


def _optunas(sampler: optuna.samplers.BaseSampler, num_trials: int, costs: Costs) -> dict[str, Any]:
    """Optuna's own loop."""

    def objective(trial: optuna.Trial) -> float:
        costs.trial_begins()
        params = SPACE.sample(OptunaHyperParameters(trial))
        for step in STEPS:
            trial.report(value_of(params, step), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value_of(params, STEPS[-1])

    study = optuna.create_study(
        study_name=NAME, storage=STUDY, sampler=sampler, direction="maximize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(reduction_factor=3),
    )  # fmt: skip
    study.optimize(objective, num_trials)
    end = costs.since_last()
    begun = time.perf_counter()
    again = optuna.load_study(study_name=NAME, storage=STUDY, sampler=sampler)
    len(again.get_trials(deepcopy=False))
    return {"seconds": {"the end": end, "resume": time.perf_counter() - begun}}


def _ours(sampler: str, num_trials: int, costs: Costs) -> dict[str, Any]:
    """The real loop, and the everyday commands over what it has left."""
    _driven(sampler, num_trials, costs, resume=False)
    end, begun = costs.since_last(), time.perf_counter()
    _driven(sampler, num_trials, Costs(), resume=True)
    seconds = {"the end": end, "resume": time.perf_counter() - begun}
    for command in COMMANDS:
        begun = time.perf_counter()
        done = subprocess.run(
            [str(Path(sys.executable).with_name("keras-sweeps")), *command],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{command[0]} failed: {done.stderr}")
        seconds[command[0]] = time.perf_counter() - begun
    return {"seconds": seconds}


def _driven(sampler: str, num_trials: int, costs: Costs, *, resume: bool) -> None:
    objective, rungs = get_objective("val_accuracy"), Rungs(STEPS)
    data = PreparedData(
        "made", "", "0" * 64, "", "", SHAPE, 10, tuple("0123456789"), {"train": 50_000}
    )
    paths = SweepPaths(Path(".sweeps").absolute(), NAME)

    def cost(params: Params) -> float | None:
        found = SPACE.cost(params, SHAPE, 10)
        return None if found is None else float(found.multiply_adds)

    engine = OptunaEngine(
        SPACE, objective, open_storage(STUDY), NAME, sampler, 0, pruner="asha", rungs=rungs,
        cost=cost, resume=resume, uid=NAME,
    )  # fmt: skip
    board = Board(NAME, objective, num_trials, 1, None)
    spool = Spool(paths.spool)
    recorder = Recorder(spool, SPACE, data, paths, BestModels(objective, 0))
    settings = SweepSettings(space="cnn", dataset="digits", name=NAME, timeout_seconds=None)
    recorder.sweep_started(NAME, NAME, settings.as_params(), {})
    plan = LoopPlan(
        space=SPACE, data=data, num_trials=num_trials, schedule=Schedule(STEPS[-1]), seed=0,
        slots=(Slot(0, 1),), paths=paths, rungs=rungs.steps,
    )  # fmt: skip
    view = _StartsView(costs)
    SweepLoop(plan, board, engine, _InstantExecutor(), recorder, view, Interrupts()).run()
    spool.close()
    write_sweep_file(paths.state, SweepFile(NAME, FINISHED, settings, "made", "0" * 64, "1" * 12))


class _StartsView(QuietView):
    def __init__(self, costs: Costs) -> None:
        self._costs = costs

    def started(self, board: Board, row: Any, *, again: bool = False) -> None:
        if not again:
            self._costs.trial_begins()


Trial = Generator[TrialReport, Decision, TrialResult]


class _InstantExecutor:
    """Trials that report as soon as they may; no process is started."""

    def __init__(self) -> None:
        self._trials: dict[str, Trial] = {}
        self._events: list[Event] = []

    def start(self, job_id: str, job: Job, argument: Any, slot: Slot, log_path: str) -> None:
        if isinstance(argument, TrialTask):
            self._trials[job_id] = self._trial(argument)
            self._go_on(job_id, None)
        else:
            self._events.append(Raised(job_id, "NotDrawn", "there is nothing to draw", ""))

    def _go_on(self, job_id: str, decision: Decision | None) -> None:
        trial = self._trials[job_id]
        try:
            report = next(trial) if decision is None else trial.send(decision)
        except StopIteration as end:
            del self._trials[job_id]
            self._events.append(Returned(job_id, end.value))
        else:
            self._events.append(Reported(job_id, report))

    def _trial(self, task: TrialTask) -> Trial:
        def report() -> TrialReport:
            value = value_of(task.params, step)
            return TrialReport(task.number, step, {"val_accuracy": value, "epoch": float(step)})

        step, decision = task.reported_step, Decision.GO_ON
        if step:
            decision = yield report()
        while decision is Decision.GO_ON and step < task.schedule.end_step:
            step += 1
            decision = yield report()
        value = value_of(task.params, step)
        stopped_by = "epochs" if decision is Decision.GO_ON else decision.value
        return TrialResult(
            task.number, value, step, step, {"val_accuracy": value}, 0, 0, 0.0, "none", stopped_by
        )

    def events(self, timeout_seconds: float) -> list[Event]:
        del timeout_seconds
        found, self._events = self._events[:1], self._events[1:]
        return found

    def answer(self, job_id: str, answer: Any) -> None:
        self._go_on(job_id, answer)

    def process_id(self, job_id: str) -> None:
        del job_id

    def stop(self, job_id: str) -> None:
        self._trials.pop(job_id, None)

    def keep_warm(self, slots: Sequence[Slot]) -> None:
        del slots

    def close(self) -> None:
        self._trials.clear()


SIDES: dict[str, Callable[[int, Costs], dict[str, Any]]] = {
    "ours, random": lambda num, costs: _ours("random", num, costs),
    "Optuna, random": lambda num, costs: _optunas(
        optuna.samplers.RandomSampler(seed=0), num, costs
    ),
    "ours, prior": lambda num, costs: _ours("prior", num, costs),
    "Optuna, prior": lambda num, costs: _optunas(PriorSampler(seed=0), num, costs),
}


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A Markdown table: milliseconds of a trial, memory, and seconds over all trials.

    Args:
        found: side -> what was measured.
    """
    marks = sorted({mark for one in found.values() for mark in one["milliseconds"]}, key=int)
    seconds = list(dict.fromkeys(name for f in found.values() for name in f["seconds"]))
    head = ["side", *(f"ms at {int(mark):,}" for mark in marks), "MB at most",
            *(f"s of {name}" for name in seconds)]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for side, one in found.items():
        cells = [side]
        for mark in marks:
            wall, cpu = one["milliseconds"].get(mark, (math.nan, math.nan))
            cells.append(f"{wall:.0f} ({cpu:.0f})")
        cells.append(str(one["peak_mb"]))
        cells += [f"{one['seconds'][n]:.1f}" if n in one["seconds"] else "" for n in seconds]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
