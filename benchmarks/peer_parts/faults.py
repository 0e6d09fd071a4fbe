"""What SIGKILLs cost: the same schedule of them for ours and for peers that can be resumed.

Each side trains the same small model with one learning rate a trial, one trial at a time, and logs
to an MLflow server. Again and again, once it has trained an epoch and some time has passed, one of
three is killed: the driver, the process that trains, or the server. With the peers, who train
in the process that drives, the first two are the same. Who was killed is started again at once, as
its documentation says, and a program that ends with an error, too.

A point is a learning rate; what became of it is read from the side's own study and from the
server's database, whichever run it is in. `epochs again` are all that were trained beyond those of
the complete trials, in trials that were lost or more than once; `points` are those of the
validation accuracy in MLflow. After the death of the server a side has gone on when MLflow has a
point that was logged since, after that of another process when a further epoch has been trained.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import random
import re
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests

from peer_parts.images import in_parts

PROGRAMS = Path(__file__).parents[1] / "peers"
OURS, OPTUNA, KERAS_TUNER = "ours", "Optuna", "Keras Tuner"
SIDES = {OURS: "", OPTUNA: "optuna_resumable.py", KERAS_TUNER: "keras_tuner_mlflow.py"}
VICTIMS = ("driver", "worker", "server")
OPTIONS = ("seed",)
DEFAULT_TRIALS, EPOCHS, NUM_KILLS = 12, 8, 15
COPIES = 8
"""Of the digits, so that an epoch takes a good part of a second."""
MOST_SECONDS_BETWEEN = 2.0
"""From the end of an epoch to the next kill at most."""
PATIENCE_SECONDS = 180.0
MOST_STARTS = 40
NAME, DATABASE, EPOCHS_FILE = "cnn", "server.db", Path("epochs.txt")
_LOGGED = """SELECT count(*) FROM metrics
WHERE key IN ('val_accuracy', 'epoch/val_accuracy') AND timestamp > ?"""
PR_SET_CHILD_SUBREAPER = 36
"""Linux' prctl: processes whose parents have ended become ours, so that they can be ended, too."""


def schedule(seed: int, num_kills: int) -> list[tuple[str, float]]:
    """Whom to kill, each about as often, and how many seconds after the end of an epoch."""
    chance = random.Random(seed)
    victims = [VICTIMS[k % len(VICTIMS)] for k in range(num_kills)]
    chance.shuffle(victims)
    return [(victim, chance.uniform(0, MOST_SECONDS_BETWEEN)) for victim in victims]


def measured(side: str, num_trials: int, *, seed: int) -> dict[str, Any]:
    """One side, in the present folder, through its kills to its end.

    Raises:
        SystemExit: It did not come to its end.
    """
    kills = schedule(seed, max(2, NUM_KILLS * num_trials // DEFAULT_TRIALS))
    told = ", ".join(f"{victim} {seconds:.1f}" for victim, seconds in kills)
    print(f"{side}: seed {seed}, victims and seconds: {told}", file=sys.stderr, flush=True)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    server = Server()
    sweep = Sweep(side, num_trials, _digits(), server.uri)
    waits: dict[str, list[float]] = {victim: [] for victim in VICTIMS}
    try:
        server.start()
        server.wait()
        begun = time.perf_counter()
        for victim, seconds in kills:
            if not sweep.trains_beyond(sweep.num_epochs()):
                break
            time.sleep(seconds)
            if sweep.has_ended():
                break
            killed, killed_ms = time.perf_counter(), int(1000 * time.time())
            if victim == "server":
                server.kill_and_start()
                sweep.logs_beyond(killed_ms)
            else:
                sweep.kill(victim)
                sweep.trains_beyond(sweep.num_epochs())
            waits[victim].append(time.perf_counter() - killed)
        sweep.finish()
        wall = time.perf_counter() - begun
        server.wait()
        if side == OURS:
            sweep.run([str(_keras_sweeps()), "sync", NAME])
        found = found_in(sweep.trials(), DATABASE)
        return {
            "kills": sum(map(len, waits.values())), **found,
            "epochs_again": sweep.num_epochs() - EPOCHS * found["trials"],
            "ended_with_an_error": sweep.num_errors, "seconds": wall,
            "seconds_until": {
                victim: statistics.median(seconds) if seconds else math.nan
                for victim, seconds in waits.items()
            },
        }  # fmt: skip
    finally:
        _end_the_rest()


def found_in(trials: Mapping[float, bool], database: str) -> dict[str, int]:
    """What became of the points, by a side's own records and by the server's.

    Args:
        trials: point -> whether some trial of it is complete.
    """
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as rows:
        running = rows.execute(
            "SELECT count(*) FROM runs WHERE status = 'RUNNING' AND lifecycle_stage = 'active'"
        ).fetchone()[0]
        runs = dict(rows.execute("SELECT run_uuid, value FROM params WHERE key = 'learning_rate'"))
        epochs = rows.execute(
            "SELECT run_uuid, step FROM metrics WHERE key IN ('val_accuracy', 'epoch/val_accuracy')"
        ).fetchall()
    times = Counter((_point(runs[run]), step) for run, step in epochs if run in runs)
    recorded = Counter(point for point, _ in times)
    done = [point for point, is_done in trials.items() if is_done]
    return {
        "trials": len(done),
        "trials_lost": len(trials) - len(done),
        "epochs_lost": sum(EPOCHS - recorded[point] for point in done),
        "epochs_doubled": sum(times.values()) - len(times),
        "runs_running": running,
        "runs_too_many": len(runs) - len(trials),
    }


def _point(learning_rate: float | str) -> float:
    return float(f"{float(learning_rate):.9g}")


@dataclass
class Sweep:
    """A side's program, which is started again until it has come to its end."""

    side: str
    num_trials: int
    data: Path
    tracking: str
    num_errors: int = 0
    _starts: int = 0
    _killed: bool = False
    _process: subprocess.Popen[bytes] | None = None

    def trains_beyond(self, num_epochs: int) -> bool:
        """Waits until more epochs have been trained; returns False at its end.

        Raises:
            SystemExit: None came.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self.has_ended():
                return False
            if self.num_epochs() > num_epochs:
                return True
            time.sleep(0.1)
        raise SystemExit(f"{self.side} trained nothing for {PATIENCE_SECONDS:g} s:\n{self._log}")

    def logs_beyond(self, at_ms: int) -> bool:
        """Waits until MLflow has a metric that was logged after a time; False at the end.

        Raises:
            SystemExit: None came.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True) as rows:
                if rows.execute(_LOGGED, (at_ms,)).fetchone()[0]:
                    return True
            if self.has_ended():
                return False
            time.sleep(0.1)
        raise SystemExit(f"{self.side} logged nothing for {PATIENCE_SECONDS:g} s:\n{self._log}")

    def has_ended(self) -> bool:
        """Whether it has come to its end; starts it where it has not, and does not run."""
        status = None if self._process is None else self._process.poll()
        if status == 0:
            return True
        if self._process is not None and status is None:
            return False
        if self._process is not None and not self._killed:
            self.num_errors += 1
        if self._starts == MOST_STARTS:
            raise SystemExit(f"{self.side} was started {self._starts} times:\n{self._log}")
        self._starts, self._killed = self._starts + 1, False
        with Path("output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                self._command(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONUNBUFFERED": "1",
                     "EPOCHS_FILE": str(EPOCHS_FILE.absolute())},
            )  # fmt: skip
        return False

    def kill(self, victim: str) -> None:
        """SIGKILL for the process that drives, or the one that trains."""
        assert self._process is not None
        driver = psutil.Process(self._process.pid)
        training = busiest(driver) if victim == "worker" and self.side == OURS else driver
        if training == driver:
            self._killed = True
            self._process.kill()
            self._process.wait()
        else:
            training.kill()

    def finish(self) -> None:
        """Waits for its end."""
        deadline = time.monotonic() + 2 * PATIENCE_SECONDS
        while not self.has_ended():
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.side} did not end:\n{self._log}")
            time.sleep(0.1)

    def run(self, command: Sequence[str]) -> None:
        """Another command in the folder; raises SystemExit where it fails."""
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")

    def trials(self) -> dict[float, bool]:
        """Point -> whether some trial of it is complete, by the side's own records."""
        found: dict[float, bool] = {}
        for params, is_done in self._trials_of_tuner() if self.side == KERAS_TUNER else _of_study():
            if "learning_rate" in params:
                point = _point(params["learning_rate"])
                found[point] = found.get(point, False) or is_done
        return found

    def _command(self) -> list[str]:
        if self.side != OURS:
            return [sys.executable, str(PROGRAMS / SIDES[self.side]), str(self.data),
                    str(self.num_trials), str(EPOCHS), self.tracking]  # fmt: skip
        if Path(".sweeps", "sweeps", NAME, "sweep.json").exists():
            return [str(_keras_sweeps()), "run", "--resume", "--name", NAME]
        return [
            str(_keras_sweeps()), "run", "--space", f"{PROGRAMS / 'counted_cnn.py'}:Counted",
            "--dataset", str(self.data), "--trials", str(self.num_trials), "--epochs", str(EPOCHS),
            "--sampler", "random", "--pruner", "none", "--timeout", "none", "--workers", "1",
            "--tracking-uri", self.tracking, "--name", NAME,
        ]  # fmt: skip

    def num_epochs(self) -> int:
        """Epochs that were trained to their ends in all lives of the program."""
        if self.side == OURS:  # Whose model counts them.
            return len(EPOCHS_FILE.read_bytes().splitlines()) if EPOCHS_FILE.exists() else 0
        printed = Path("output.txt").read_bytes() if self._starts else b""
        return len(re.findall(rb" val_accuracy: ", printed))

    def _trials_of_tuner(self) -> list[tuple[Mapping[str, Any], bool]]:
        files = Path("tuner", NAME).glob("trial_*/trial.json")
        found = [json.loads(path.read_text(encoding="utf-8")) for path in files]
        return [(t["hyperparameters"]["values"], t["status"] == "COMPLETED") for t in found]

    @property
    def _log(self) -> str:
        return Path("output.txt").read_text(encoding="utf-8", errors="replace")[-3000:]


def _of_study() -> list[tuple[Mapping[str, Any], bool]]:
    import optuna

    study = optuna.load_study(study_name=NAME, storage="sqlite:///optuna.db")
    return [(t.params, t.state is optuna.trial.TrialState.COMPLETE) for t in study.trials]


def busiest(driver: psutil.Process) -> psutil.Process:
    """Of the processes that the driver's server of workers forked, the one that computes."""
    workers = [worker for child in driver.children() for worker in child.children()]
    before = {worker: _cpu_seconds(worker) for worker in workers}
    time.sleep(0.1)
    return max(workers, key=lambda worker: _cpu_seconds(worker) - before[worker], default=driver)


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        return float(sum(process.cpu_times()[:2]))
    except psutil.Error:
        return 0.0


@dataclass
class Server:
    """An MLflow server over SQLite, with one worker process, always on the same port."""

    port: int = field(init=False)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it, and does not wait for it."""
        with Path("server.txt").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1",
                 "--port", str(self.port), "--backend-store-uri", f"sqlite:///{DATABASE}",
                 "--artifacts-destination", "artifacts"],
                stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true",
                     "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip

    def wait(self) -> None:
        """Waits until it answers; raises SystemExit where it does not."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{self.uri}/health", timeout=1).ok:
                    return
            except requests.RequestException:
                time.sleep(0.2)
        raise SystemExit(Path("server.txt").read_text(encoding="utf-8")[-2000:])

    def kill_and_start(self) -> None:
        """SIGKILL for all of its processes; another one takes its place."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.start()


def _digits() -> Path:
    """The digits of scikit-learn, several times, as an npz file."""
    from sklearn.datasets import load_digits

    made = Path("digits.npz").absolute()
    digits = load_digits()
    x = np.tile((digits.images * 255 / 16).astype(np.uint8), (COPIES, 1, 1))
    y = np.tile(digits.target, COPIES)
    order = np.random.default_rng(0).permutation(len(x))
    num_validated, num_tested = len(x) // 6, 100
    sizes = (len(x) - num_validated - num_tested, num_validated, num_tested)
    np.savez(made, **in_parts(x[order], y[order], sizes))
    return made


def _keras_sweeps() -> Path:
    return Path(sys.executable).with_name("keras-sweeps")


def _end_the_rest() -> None:
    """Ends what is left running: all are children of this process by now."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5)


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A Markdown table: what was lost, doubled and left, and the median seconds after a kill."""
    columns = {
        "kills": "kills", "trials": "trials complete", "trials_lost": "lost",
        "epochs_again": "epochs again", "epochs_lost": "points missing",
        "epochs_doubled": "points doubled", "runs_running": "runs left RUNNING",
        "runs_too_many": "runs too many", "ended_with_an_error": "ended with an error",
    }  # fmt: skip
    head = ["side", *columns.values(), *(f"s until it goes on: {v}" for v in VICTIMS), "s in all"]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for side, one in found.items():
        cells = [side, *(f"{one[name]:g}" for name in columns)]
        cells += [f"{one['seconds_until'][victim]:.1f}" for victim in VICTIMS]
        cells.append(f"{one['seconds']:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines
