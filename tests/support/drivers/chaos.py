"""Kills drivers, workers and the tracking server at random moments, and lets the sweep go on."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optuna

HERE = Path(__file__).parent
SUPPORT = HERE.parent
ROOT = SUPPORT.parents[1]
NAME = "s"
VICTIMS = {"driver": 0.6, "worker": 0.25, "server": 0.15}


def environment() -> dict[str, str]:
    hidden = ("SWEEPS_DATA_DIR", "MLFLOW_TRACKING_URI")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    paths = [str(ROOT), str(SUPPORT), str(HERE), kept.get("PYTHONPATH", "")]
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


class Server:
    """An MLflow server over SQLite that can be killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        settings = {
            **environment(),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        log = (self._folder / "server.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1",
             "--port", str(self.port), "--backend-store-uri", "sqlite:///server.db",
             "--artifacts-destination", "artifacts"],
            cwd=self._folder, env=settings, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    def wait(self, seconds: float = 90.0) -> None:
        import requests

        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{self.uri}/health", timeout=1).ok:
                    return
            except requests.RequestException:
                time.sleep(0.2)
        raise AssertionError((self._folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def memory_bytes(self) -> int:
        """Resident memory of the server's processes together."""
        assert self._process is not None
        group = os.getpgid(self._process.pid)
        return sum(resident_bytes(pid) for pid in processes_of(group))


@dataclass(frozen=True)
class Sample:
    """Memory and disk at a moment of a sweep."""

    num_trials: int
    driver_bytes: int
    server_bytes: int
    num_checkpoints: int


class Chaos:
    """One sweep in a folder of its own, driven and killed until it is finished.

    Attributes:
        victims: who is killed, and how large a part of the kills is theirs.
        variables: of the driver's environment.
    """

    victims = VICTIMS
    variables: ClassVar[dict[str, str]] = {}

    def __init__(
        self, folder: Path, seed: int, *, num_trials: int, server: Server | None = None
    ) -> None:
        self.folder = folder
        self.num_kills = dict.fromkeys(self.victims, 0)
        self._random = np.random.default_rng(seed)
        self._server = server
        self._driver: subprocess.Popen[str] | None = None
        self._lines: list[str] = []
        self._options = [
            "--space", "mlp", "--dataset", "digits", "--trials", str(num_trials), "--epochs", "9",
            "--timeout", "none", "--workers", "1", "--retries", "50", "--name", NAME,
            "--keep-models", "1",  # So that models are dropped, too.
        ]  # fmt: skip
        if server is not None:
            self._options += ["--tracking-uri", server.uri]

    def run(self, max_kills: int, victims: Sequence[str] = ()) -> None:
        """Drives the sweep to its end, with at most so many kills on the way.

        Args:
            victims: whom to kill, in this order; drawn where none are given.
        """
        for kill in range(max_kills):
            self._ensure_driver()
            if not self._wait_for_progress():
                break
            time.sleep(float(self._random.uniform(0.0, 1.0)))
            self._kill(victims[kill] if victims else self._choose())
        self._finish()

    def watch(self, every_seconds: float) -> list[Sample]:
        """Drives the sweep to its end, and looks at memory and disk on the way."""
        samples: list[Sample] = []
        folder = self.folder / ".sweeps" / "sweeps" / NAME
        self._ensure_driver()
        assert self._driver is not None and self._server is not None
        while self._driver.poll() is None:
            numbers = [int(m[1]) for line in self._lines if (m := re.match(r"trial (\d+)", line))]
            sample = Sample(
                max(numbers, default=0),
                resident_bytes(self._driver.pid),
                self._server.memory_bytes(),
                len(list(folder.glob("trial-*/checkpoint.npz"))),
            )
            if sample.driver_bytes:
                samples.append(sample)
            time.sleep(every_seconds)
        assert self._driver.returncode == 0, "".join(self._lines[-30:])
        return samples

    def command(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(HERE / "chaos_driver.py"), *options],
            cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    def trials(self) -> list[dict[str, Any]]:
        """What the sweep proposed and reached, without times."""
        study = optuna.load_study(study_name=NAME, storage=f"sqlite:///{self.folder / 'optuna.db'}")
        return [
            {"params": t.params, "state": t.state.name, "value": t.value,
             "reports": t.intermediate_values}
            for t in study.trials
        ]  # fmt: skip

    def _ensure_driver(self) -> None:
        if self._driver is not None and self._driver.poll() is None:
            return
        started = (self.folder / ".sweeps" / "sweeps" / NAME / "sweep.json").exists()
        options = ["--resume", "--name", NAME] if started else self._options
        self._driver = subprocess.Popen(
            [sys.executable, str(HERE / "chaos_driver.py"), "run", *options],
            cwd=self.folder, env={**environment(), **self.variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip
        self._lines = []
        threading.Thread(target=self._read, args=(self._driver,), daemon=True).start()

    def _read(self, driver: subprocess.Popen[str]) -> None:
        assert driver.stdout is not None
        for line in driver.stdout:
            self._lines.append(line)

    def _wait_for_progress(self) -> bool:
        """Waits until the driver trains, now and then not that long; False where it has ended."""
        assert self._driver is not None
        patience = float(self._random.uniform(0.5, 4.0)) if self._random.random() < 0.2 else 60.0
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if self._driver.poll() is not None:
                return False
            if any(line.startswith("trial ") for line in self._lines):
                return True
            time.sleep(0.02)
        return True

    def _choose(self) -> str:
        names = [name for name in self.victims if name != "server" or self._server is not None]
        shares = np.array([self.victims[name] for name in names])
        return str(self._random.choice(names, p=shares / shares.sum()))

    def _kill(self, victim: str) -> None:
        assert self._driver is not None
        if victim == "server":
            assert self._server is not None
            self._server.kill()
            time.sleep(float(self._random.uniform(0.0, 1.0)))
            self._server.start()
        elif victim == "worker":
            workers = descendants(self._driver.pid)
            if not workers:
                return
            os.kill(workers[-1], signal.SIGKILL)
        else:
            self._driver.kill()
            self._driver.wait()
        self.num_kills[victim] += 1

    def _finish(self) -> None:
        for _ in range(3):
            self._ensure_driver()
            assert self._driver is not None
            status = self._driver.wait(timeout=300)
            time.sleep(0.2)
            if status == 0:
                break
        assert status == 0, "".join(self._lines[-30:])
        if self._server is not None:
            self._server.wait()
        sent = self.command("sync", NAME)
        assert sent.returncode == 0, sent.stdout + sent.stderr


def descendants(pid: int) -> list[int]:
    """The workers of a driver: children of the server of processes that it started."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    return [worker for child in children.get(pid, []) for worker in children.get(child, [])]


def processes_of(group: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(")")[2].split()[2]) == group:
                found.append(int(status.parent.name))
        except OSError:
            continue
    return found


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
