"""A sweep whose engine, executor and tracker are fakes around the real loop and recorder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_executor
import fake_jobs
import fake_loop_parts

from pipelines.objectives import OBJECTIVES
from pipelines.training.trial import Schedule
from search_spaces.registry import get_space
from sweeps.driver.board.board import Board
from sweeps.driver.board.views import QuietView
from sweeps.driver.loop import SweepLoop
from sweeps.driver.plan import LoopPlan, StopReason, StopRules, trial_seed
from sweeps.driver.records.recorder import BestModels, Recorder
from sweeps.executors.base import Slot
from sweeps.interrupts import Interrupts
from sweeps.state.paths import SweepPaths
from tracking.spool.sender import Sender
from tracking.spool.spool import Spool

SPACE = get_space("mlp")


class Scene:
    """A sweep with a fake engine, executor and tracker around the real loop and recorder."""

    def __init__(self, tiny_data: Any, tmp_path: Path, **options: Any) -> None:
        count = options.pop("num_points", 4)
        view = options.pop("view", QuietView())
        keep = options.pop("keep", 2)
        decide = options.pop("decide", None)
        watch, engine = options.pop("watch", None), options.pop("engine", None)
        options["rules"] = StopRules(**options.pop("rules", {}))
        defaults = {
            "space": SPACE, "data": tiny_data, "num_trials": 4, "schedule": Schedule(options.pop("num_epochs", 3)),
            "seed": 0, "slots": (Slot(0, 1),),
            "paths": SweepPaths(tmp_path / "work", "name"), "job": fake_jobs.recorded_job,
        }  # fmt: skip
        plan = LoopPlan(**{**defaults, **options})
        self.paths = plan.paths
        self.engine = engine or fake_loop_parts.ListEngine(
            fake_loop_parts.random_points(SPACE, count), decide
        )
        self.executor = fake_executor.InlineExecutor()
        self.spool = Spool(plan.paths.spool)
        self.tracker = fake_loop_parts.MemoryTracker(self.spool.folder_of)
        self.sender = Sender(self.spool, lambda: self.tracker)
        objective = OBJECTIVES["val_accuracy"]
        models = BestModels(objective, keep)
        recorder = Recorder(self.spool, SPACE, tiny_data, plan.paths, models)
        self.board = Board(
            "title",
            objective,
            plan.num_trials,
            len(plan.slots),
            plan.rules.timeout_seconds,
        )
        self.interrupts = Interrupts()
        self.sweep = SweepLoop(
            plan, self.board, self.engine, self.executor, recorder, view, self.interrupts, watch
        )

    def run(self) -> StopReason:
        reason = self.sweep.run()
        self.sent()
        assert self.executor.closed
        return reason

    def sent(self) -> None:
        assert self.sender.drain(10)
        self.sender.close()
        assert self.sender.problem == "" and self.spool.aside_lines() == []
        assert len(self.tracker.keys) == len(set(self.tracker.keys))


def states_of(s: Scene) -> dict[int, str]:
    """Trial -> the state in which it ended."""
    return {number: state.value for number, (state, _, _) in s.engine.told.items()}


def trial_order() -> list[int]:
    """Trials 0 to 3 by what their made-up curves reach, best first."""
    return sorted(range(4), key=lambda n: trial_seed(0, n) % 1000, reverse=True)
