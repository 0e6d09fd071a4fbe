"""A whole sweep of one side, in the present folder: who can run it, its command, what it recorded.

All search the space `cnn`, without its augmentation, which a plain `fit` has no place for, and
begin with the point of its defaults where a tool can be told one. Times are those of the metrics
in each side's own records: MLflow's for the peers, the spool for ours.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

PROGRAMS = Path(__file__).parents[1] / "peers"
OURS, NAME = "ours", "cnn"
DATA = "images.npz"
DATA_VARIABLE = "SWEEPS_DATA_DIR"
NOT_SEARCHED = ("augmentation_shift=0.0", "augmentation_flip=false")
UNLIMITED = 10_000
"""Trials where only the time ends a sweep."""
PR_SET_CHILD_SUBREAPER = 36
"""Linux' prctl: processes whose parents have ended become ours, so that they can be ended, too."""
GRACE_SECONDS = 30.0


@dataclass(frozen=True)
class Side:
    """One way to run the sweep.

    Attributes:
        program: in `benchmarks/peers`; empty for ours.
        arguments: of the program, before those that all have.
        needs: modules of the extra `peers`.
        trials: where a sweep that only the time ends still needs a number: a population.
        trials_a_unit: how many trials one of what it is told makes: an iteration of Hyperband.
        settings: what the peer is given, for the table of the settings.
    """

    program: str
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    trials: int = UNLIMITED
    trials_a_unit: int = 1
    settings: str = ""

    @property
    def uses_ray(self) -> bool:
        """Whether it starts a cluster of its own."""
        return "ray" in self.needs


_TPE = "TPESampler(multivariate=True, group=True), defaults enqueued, SQLite, "
_TUNER = "seed, directory, max_trials; its own defaults otherwise"
SIDES = {
    OURS: Side("", settings="`run` with its defaults and `--no-baselines`"),
    "Optuna: TPE, median": Side(
        "optuna_sweep.py", ("median",), ("optuna_integration",), settings=_TPE + "MedianPruner()"
    ),
    "Optuna: TPE, Hyperband": Side(
        "optuna_sweep.py", ("hyperband",), ("optuna_integration",),
        settings=_TPE + "HyperbandPruner(max_resource=epochs)",
    ),
    "Keras Tuner: random": Side("keras_tuner_sweep.py", ("RandomSearch",), ("tensorboard",),
                                settings=_TUNER),
    "Keras Tuner: Hyperband": Side(
        "keras_tuner_sweep.py", ("Hyperband",), ("tensorboard",), trials_a_unit=4,
        settings="seed, directory, max_epochs=epochs, hyperband_iterations; its own defaults "
        "otherwise",
    ),
    "Keras Tuner: Bayesian": Side(
        "keras_tuner_sweep.py", ("BayesianOptimization",), ("tensorboard",), settings=_TUNER
    ),
    "Ray Tune: ASHA, TPE": Side(
        "ray_tune_asha.py", (), ("ray", "tensorboardX"),
        settings="ASHAScheduler(max_t=epochs), OptunaSearch(defaults first, seed), one checkpoint "
        "kept; its own defaults otherwise, so a trial on each core",
    ),
    "Ray Tune: PBT": Side(
        "ray_tune_pbt.py", (), ("ray", "tensorboardX"), 4,
        settings="PopulationBasedTraining(perturbation_interval=1) of learning rate and weight "
        "decay, a population of 4: the defaults and random points; its own defaults otherwise",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Swept:
    """What a sweep recorded.

    Attributes:
        seconds: of the whole command.
        curve: (seconds since the command was given, validation accuracy) of every whole epoch of
            every trial, in order.
        num_trials: trials that were begun.
        num_failed: those that ended with an error.
    """

    seconds: float
    curve: tuple[tuple[float, float], ...]
    num_trials: int
    num_failed: int


def missing(side: str) -> str:
    """The modules that a side needs and that are not installed, with commas between."""
    needs = SIDES[side].needs
    return ", ".join(name for name in needs if importlib.util.find_spec(name) is None)


def swept(
    side: str,
    dataset: str,
    *,
    trials: int | None,
    epochs: int,
    seconds: float = math.inf,
    seed: int = 0,
    fixed: Sequence[str] = NOT_SEARCHED,
) -> Swept:
    """Runs the sweep in the present folder, and ends it where its time is up.

    Args:
        dataset: as for `run`; a bare `NAME.npz` is taken from the data folder.
        trials: at most so many; None where the time ends it.

    Raises:
        SystemExit: The sweep failed.
    """
    dataset = found_dataset(dataset)
    if side == OURS:
        command = _our_command(dataset, trials, epochs, seconds, seed, fixed)
    else:
        _save_images(dataset)
        chosen = SIDES[side]
        num = chosen.trials if trials is None else max(1, trials // chosen.trials_a_unit)
        limit = seconds if math.isfinite(seconds) else 86_400.0
        command = [
            sys.executable, str(PROGRAMS / chosen.program), *chosen.arguments,
            str(Path(DATA).absolute()), str(num), str(epochs), str(limit), str(seed), *fixed,
        ]  # fmt: skip
    began, wall = _run(side, command, seconds)
    curve, num_trials, num_failed = _our_records() if side == OURS else _records()
    since = tuple(sorted((at_ms / 1000 - began, value) for at_ms, value in curve))
    return Swept(wall, since, num_trials, num_failed)


def found_dataset(dataset: str) -> str:
    """The data set; the path of a file in the data folder where it is the name of one.

    Raises:
        SystemExit: There is no such file.
    """
    if not dataset.endswith(".npz") or Path(dataset).is_absolute():
        return dataset
    path = Path(os.environ.get(DATA_VARIABLE, "")) / dataset
    if not path.is_file():
        raise SystemExit(f"Set {DATA_VARIABLE} to a folder with {dataset}.")
    return str(path.absolute())


def _our_command(
    dataset: str, trials: int | None, epochs: int, seconds: float, seed: int, fixed: Sequence[str]
) -> list[str]:
    return [
        str(Path(sys.executable).with_name("keras-sweeps")), "run", "--space", "cnn",
        "--dataset", dataset, "--epochs", str(epochs), "--seed", str(seed), "--name", NAME,
        "--timeout", f"{seconds:g}s" if math.isfinite(seconds) else "none", "--no-baselines",
        *(() if trials is None else ("--trials", str(trials))),
        *(word for rule in fixed for word in ("--fix", rule)),
    ]  # fmt: skip


def _save_images(dataset: str) -> None:
    """The same parts that ours trains and validates on, as an npz file."""
    from sweeps.setup.data import SILENT, prepare_data

    with tempfile.TemporaryDirectory() as folder:
        data = prepare_data(dataset, Path(folder), progress=SILENT)
        arrays = {}
        for part in ("train", "validation"):
            arrays[f"x_{part}"], arrays[f"y_{part}"] = data.arrays(part)
        np.savez(DATA, **arrays)


def then_run(side: str, command: Sequence[str]) -> float:
    """Runs another command in the folder of a sweep to its end; returns wall seconds.

    Raises:
        SystemExit: It failed.
    """
    return _run(side, command, math.inf)[1]


def _run(side: str, command: Sequence[str], seconds: float) -> tuple[float, float]:
    """Runs to its end or to Ctrl-C at the time; returns when it began, and wall seconds."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    scratch = tempfile.mkdtemp(prefix="p")  # Short: paths of sockets must be.
    if SIDES[side].uses_ray:
        environment |= {
            "RAY_ADDRESS": "local", "RAY_TMPDIR": scratch, "HOME": str(Path.cwd()),
            "RAY_USAGE_STATS_ENABLED": "0",
        }  # fmt: skip
    # Where this script is started in the background, SIGINT is ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began, start = time.time(), time.perf_counter()
    try:
        with Path("output.txt").open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            status, timed_out = _wait(process, seconds)
        wall = time.perf_counter() - start
    finally:
        _end_the_rest()
        shutil.rmtree(scratch, ignore_errors=True)
    if status and not timed_out:
        raise SystemExit(f"{side} failed:\n{Path('output.txt').read_text()[-3000:]}")
    return began, wall


def _wait(process: subprocess.Popen[bytes], seconds: float) -> tuple[int, bool]:
    limit = seconds if math.isfinite(seconds) else None
    try:
        return process.wait(limit), False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(GRACE_SECONDS), True
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(), True


def _end_the_rest() -> None:
    """Ends what the sweep has left running: all are children of this process by now."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        process.terminate()
    _, alive = psutil.wait_procs(left, timeout=5)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)


def _records() -> tuple[list[tuple[int, float]], int, int]:
    """What a peer logged: (ms, validation accuracy) after each epoch, runs, and failed ones."""
    with sqlite3.connect("file:mlflow.db?mode=ro", uri=True) as database:
        rows = database.execute(
            "SELECT run_uuid, timestamp, value FROM metrics WHERE key = 'val_accuracy'"
        ).fetchall()
        failed = database.execute("SELECT count(*) FROM runs WHERE status = 'FAILED'").fetchone()[0]
    return [(at_ms, value) for _, at_ms, value in rows], len({run for run, _, _ in rows}), failed


def _our_records() -> tuple[list[tuple[int, float]], int, int]:
    """The same of ours, whole epochs only: below one a part of the images is measured."""
    from sweeps.state.paths import SweepPaths
    from tracking.spool.records import EpochRecord, TrialEnd, TrialRecord
    from tracking.spool.spool import Spool

    records = list(Spool(SweepPaths(Path(".sweeps"), NAME).spool, read_only=True).replay())
    curve = [
        (r.at_ms, r.metrics["val_accuracy"]) for r in records
        if isinstance(r, EpochRecord) and r.metrics.get("epoch", 1.0) >= 1.0
    ]  # fmt: skip
    failed = sum(isinstance(r, TrialEnd) and r.state == "FAILED" for r in records)
    return curve, sum(isinstance(r, TrialRecord) for r in records), failed
