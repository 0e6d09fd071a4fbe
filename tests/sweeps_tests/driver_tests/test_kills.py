"""A kill at every single write of a sweep: to the spool, to the study, to the trial.

In one process, with the real loop, recorder, spool and Optuna on SQLite; the made-up trials leave
real checkpoints. A kill is an exception that nothing handles and after which nothing is written.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fake_executor
import fake_jobs
import optuna
import pytest
from sqlalchemy import event

from pipelines.objectives import OBJECTIVES
from pipelines.training.checkpoints import MODEL_FILE
from pipelines.training.trial import Schedule
from search_spaces.registry import get_space
from sweeps.driver.board.board import Board
from sweeps.driver.board.views import QuietView
from sweeps.driver.loop import SweepLoop
from sweeps.driver.plan import LoopPlan
from sweeps.driver.records.recorder import BestModels, Recorder
from sweeps.engines.base import Engine
from sweeps.engines.keras_tuner_oracles.engine import KerasTunerEngine
from sweeps.engines.optuna_study.engine import OptunaEngine
from sweeps.engines.optuna_study.storage import open_storage, study_exists
from sweeps.engines.pruners.rungs import Rungs, rung_epochs
from sweeps.executors.base import Slot
from sweeps.interrupts import Interrupts
from sweeps.resources.gpus import Gpu
from sweeps.resources.machine import Machine, allot
from sweeps.state.paths import SweepPaths
from tracking.spool import spool as spool_module
from tracking.spool.records import (
    EpochRecord,
    ModelDropRecord,
    ModelRecord,
    TrialEnd,
    TrialRecord,
    TrialStateRecord,
)
from tracking.spool.spool import Spool

SPACE = get_space("mlp")
unwatched = open_storage
NUM_TRIALS, NUM_EPOCHS = 7, 3


class Killed(BaseException):
    """The process is gone: nobody catches it."""


class Clock:
    """Counts writes, and kills at one of them: before it, as if the process had died there."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.writes = 0
        self.dead = False
        self._kill_at = kill_at

    def tick(self) -> None:
        if self.dead:
            raise Killed
        self.writes += 1
        if self.writes - 1 == self._kill_at:
            self.dead = True
            raise Killed


STORAGE_WRITES = (
    "create_new_trial", "set_trial_param", "set_trial_state_values",
    "set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr",
    "set_study_user_attr", "set_study_system_attr",
)  # fmt: skip


def session(
    folder: Path, data: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> None:
    """One life of a driver, up to its end or its death."""
    with monkeypatch.context() as patch:
        wrap(patch, Spool, "put", clock)
        wrap(patch, Spool, "adopt", clock)
        wrap(patch, fake_executor.InlineExecutor, "answer", clock)
        for name in STORAGE_WRITES:
            wrap(patch, optuna.storages.RDBStorage, name, clock)
        patch.setitem(globals(), "open_storage", partial(watched_storage, clock.tick))
        try:
            drive(folder, data, **options)
        except Killed:
            assert clock.dead
        gc.collect()  # A dead process holds no connection.


def watched_storage(committing: Callable[[], None], url: str) -> Any:
    """A storage that tells before each commit."""
    storage = unwatched(url)
    event.listen(storage.engine, "commit", lambda connection: committing())
    return storage


def wrap(patch: pytest.MonkeyPatch, kind: type, name: str, clock: Clock) -> None:
    original = getattr(kind, name)

    def ticking(self: Any, *args: Any, **kwargs: Any) -> Any:
        clock.tick()
        return original(self, *args, **kwargs)

    patch.setattr(kind, name, ticking)


def drive(
    folder: Path, data: Any, *, pruner: str = "asha", oracle: str = "", **options: Any
) -> None:
    paths = SweepPaths(folder, "s")
    objective = OBJECTIVES["val_accuracy"]
    spool = Spool(paths.spool)
    storage = open_storage(f"sqlite:///{folder / 'optuna.db'}")
    engine: Engine
    engine = record = OptunaEngine(
        SPACE, objective, storage, "s", "random", 0, pruner="none" if oracle else pruner,
        rungs=Rungs(rung_epochs(1, NUM_EPOCHS, 3)), baselines=() if oracle else SPACE.distinct_baselines(),
        resume=study_exists(storage, "s"), uid="u",
    )  # fmt: skip
    if oracle:
        from sweeps.engines.keras_tuner_oracles.worker import propose

        engine = KerasTunerEngine(record, SPACE, objective, oracle, 0, NUM_EPOCHS, 3, propose)
    models = BestModels(objective, 1)
    defaults: dict[str, Any] = {
        "space": SPACE, "data": data, "num_trials": NUM_TRIALS, "schedule": Schedule(NUM_EPOCHS),
        "seed": 0, "slots": (Slot(0, 1),), "paths": paths, "num_retries": 1,
        "job": fake_jobs.recorded_job,
    }  # fmt: skip
    plan = LoopPlan(**{**defaults, **options})
    board = Board("s", objective, NUM_TRIALS, 1, None)
    recorder = Recorder(spool, SPACE, data, paths, models)
    executor = fake_executor.InlineExecutor()
    SweepLoop(plan, board, engine, executor, recorder, QuietView(), Interrupts()).run()
    spool.close()


def outcome(folder: Path) -> dict[str, Any]:
    """What study and spool say in the end, and whether they say the same."""
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder / 'optuna.db'}")
    last: dict[int, str] = {}
    epochs: dict[int, dict[int, float]] = {}
    started: list[int] = []
    models: set[int] = set()
    for record in Spool(folder / "sweeps" / "s" / "spool").replay():
        if isinstance(record, TrialRecord):
            started.append(record.number)
        elif isinstance(record, TrialStateRecord | TrialEnd):
            last[record.number] = record.state
        elif isinstance(record, EpochRecord):
            assert record.epoch not in epochs.setdefault(record.number, {})
            epochs[record.number][record.epoch] = record.metrics["val_accuracy"]
        elif isinstance(record, ModelRecord):
            models.add(record.number)
        elif isinstance(record, ModelDropRecord):
            models.discard(record.number)
    found = {}
    assert sorted(started) == [trial.number for trial in study.trials], "one run each"
    for trial in study.trials:
        state = {"FAIL": "FAILED"}.get(trial.state.name, trial.state.name)
        assert last[trial.number] == state, f"trial {trial.number}"
        assert epochs.get(trial.number, {}) == trial.intermediate_values
        found[trial.number] = (trial.params, state, trial.value, trial.intermediate_values)
    assert list((folder / "sweeps" / "s").glob("trial-*")) == []
    return {"trials": found, "models": models}


def uninterrupted(tmp_path_factory: pytest.TempPathFactory, data: Any, oracle: str = "") -> Any:
    """The writes and the outcome of a sweep that nobody kills."""
    folder = tmp_path_factory.mktemp("reference")
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        session(folder, data, clock, patch, oracle=oracle)
    return clock.writes, outcome(folder)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny_data):
    return uninterrupted(tmp_path_factory, tiny_data)


@pytest.fixture(scope="module")
def oracle_reference(tmp_path_factory, tiny_data):
    return uninterrupted(tmp_path_factory, tiny_data, "hyperband")


def test_the_uninterrupted_sweep_prunes_promotes_and_keeps_a_model(reference):
    writes, found = reference
    states = [state for _, state, _, _ in found["trials"].values()]
    assert set(states) == {"COMPLETE", "PRUNED"} and len(states) == NUM_TRIALS
    assert len(found["models"]) == 1
    assert writes > 150


def check_kills(
    points: range, reference: Any, data: Any, folder: Path, monkeypatch: pytest.MonkeyPatch,
    oracle: str = "",
) -> None:  # fmt: skip
    _, expected = reference
    for kill_at in points:
        place = folder / str(kill_at)
        place.mkdir()
        clock = Clock(kill_at)
        session(place, data, clock, monkeypatch, oracle=oracle)
        assert clock.dead
        session(place, data, Clock(), monkeypatch, oracle=oracle)
        assert outcome(place) == expected, f"killed at write {kill_at}"


def test_a_kill_at_some_writes_changes_nothing(reference, tiny_data, tmp_path, monkeypatch):
    """Parameters are written one by one and all alike: 17 apart there are some of every kind."""
    check_kills(range(3, reference[0], 17), reference, tiny_data, tmp_path, monkeypatch)


def test_keras_tuners_hyperband_prunes_and_promotes(oracle_reference):
    """Three from the first epoch on, the best one further; two in full; two of the next three."""
    writes, found = oracle_reference
    reached = [max(curve) for _, _, _, curve in found["trials"].values()]
    assert sorted(reached) == [1, 1, 1, 1, 3, 3, 3]
    assert writes > 150


@pytest.mark.long
def test_a_kill_at_some_writes_changes_nothing_with_an_oracle(
    oracle_reference, tiny_data, tmp_path, monkeypatch
):
    points = range(2, oracle_reference[0], 61)
    check_kills(points, oracle_reference, tiny_data, tmp_path, monkeypatch, "hyperband")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(8))
def test_a_kill_at_any_write_changes_nothing_with_an_oracle(
    oracle_reference, tiny_data, tmp_path, monkeypatch, part
):
    points = range(part, oracle_reference[0], 8)
    check_kills(points, oracle_reference, tiny_data, tmp_path, monkeypatch, "hyperband")


@pytest.mark.long
def test_a_kill_while_memory_runs_out_on_a_packed_gpu_loses_and_doubles_nothing(
    tiny_data, tmp_path, monkeypatch
):
    gpu = Gpu("0", "NVIDIA H200", 141 * 2**30)
    layout = allot(Machine(16, 2**36, (gpu,)), None, None, 4).layout

    def life(folder: Path, clock: Clock) -> None:
        folder.mkdir(exist_ok=True)
        session(
            folder, tiny_data, clock, monkeypatch, pruner="none", layout=layout, level=4,
            trials_per_gpu=4, num_retries=0, job=fake_jobs.crowded_job,
        )  # fmt: skip

    clock = Clock()
    life(tmp_path / "reference", clock)
    expected = outcome(tmp_path / "reference")
    assert {state for _, state, _, _ in expected["trials"].values()} == {"COMPLETE"}
    for kill_at in range(clock.writes // 3, clock.writes, clock.writes // 5):
        place, dying = tmp_path / str(kill_at), Clock(kill_at)
        life(place, dying)
        assert dying.dead
        time.sleep(0.2)  # Threads do not die with their driver as processes do.
        life(place, Clock())
        assert outcome(place) == expected, f"killed at write {kill_at}"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(8))
def test_a_kill_at_any_write_changes_nothing(reference, tiny_data, tmp_path, monkeypatch, part):
    check_kills(range(part, reference[0], 8), reference, tiny_data, tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_second_kill_while_it_recovers_changes_nothing(
    reference, tiny_data, tmp_path, monkeypatch
):
    writes, expected = reference
    for kill_at in range(0, writes, writes // 8):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        for again in (kill_at, 3, 11, 30):
            session(folder, tiny_data, Clock(again), monkeypatch)
        session(folder, tiny_data, Clock(), monkeypatch)
        assert outcome(folder) == expected, f"killed at write {kill_at}"


MOST_WORK = {
    "statements": (42, "writing to the study otherwise than by whole points and several at once"),
    "commits": (6, "a write to the study outside of `at_once`"),
    "synced lines": (10, "a further record of each trial in the spool"),
    "files": (3, "a further file among those that a trial uploads"),
}
"""Of a trial: each waits for the database, the disk or the tracking store, and what raises it."""


def test_what_a_trial_costs_the_driver_is_counted_and_bounded(tiny_data, tmp_path, monkeypatch):
    """Counted, as seconds depend on the machine."""
    work: Counter[str] = Counter()

    def watched(url: str) -> Any:
        storage = watched_storage(lambda: work.update(["commits"]), url)
        event.listen(
            storage.engine, "before_cursor_execute", lambda *found: work.update(["statements"])
        )
        return storage

    monkeypatch.setattr(spool_module.os, "fsync", lambda file: work.update(["synced lines"]))
    monkeypatch.setitem(globals(), "open_storage", watched)

    def done(num_trials: int) -> Counter[str]:
        drive(tmp_path, tiny_data, num_trials=num_trials)
        files = [path.name for path in tmp_path.glob("sweeps/s/spool/files/*/*")]
        return work + Counter(files=len(files) - files.count(MODEL_FILE))

    before = done(NUM_TRIALS)  # With what is made once, and the published models.
    more = done(3 * NUM_TRIALS) - before
    for name, (most, cause) in MOST_WORK.items():
        found = more[name] / (2 * NUM_TRIALS)
        assert most / 2 < found <= most, f"{found:.1f} {name} a trial: {cause}, or the bound is old"
