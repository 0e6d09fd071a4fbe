"""Sweeps as commands, on this machine or on a cluster, and what they left, without times."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import optuna

from tracking.spool.records import EpochRecord, TagsRecord, TrialStateRecord
from tracking.spool.spool import Spool

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]
NAME = "s"
# Trial 0 waits after three epochs, and goes on to nine when trials 1 and 2 have been worse. With the
# default sampler it would be the point of the defaults, which does not wait.
SWEEP = [
    "--space", "mlp", "--dataset", "digits", "--trials", "3", "--epochs", "9", "--seed", "1", "--no-baselines",
    "--workers", "1", "--threads", "1", "--timeout", "none", "--offline", "--name", NAME,
    "--sampler", "random",
]  # fmt: skip
HIDDEN = ("SWEEPS_DATA_DIR", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_AUTH_TOKEN")


class RunningSweep:
    """`keras-sweeps run` in a folder, with what it has printed so far."""

    def __init__(self, folder: Path, *options: str, **variables: str) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "sweeps" / "run.py"), *options],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env={**kept, "PYTHONPATH": f"{ROOT}:{SUPPORT}", **variables},
        )  # fmt: skip
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self.lines.append(line.rstrip())
                self._said.notify_all()
        with self._said:
            self._said.notify_all()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def said(self, pattern: str, seconds: float = 120.0) -> str:
        """The first line that matches; waits for it."""

        def find() -> str | None:
            return next((line for line in self.lines if re.search(pattern, line)), None)

        with self._said:
            found = self._said.wait_for(
                lambda: find() or not self._reader.is_alive(), timeout=seconds
            )
            line = find()
        assert found and line, f"never said {pattern}:\n{self.text}"
        return line

    def node_of(self, trial: str) -> str:
        """The node that a trial was last started on."""
        found = re.findall(rf"{trial} .*on (\S+-[0-9a-f]{{6}})\b", self.text)
        return str(found[-1])

    def processes(self) -> list[int]:
        """The driver and all that it has started, the process between it and the nodes among them.

        The driver is the first.
        """
        return [self.process.pid, *offspring(self.process.pid)]

    def end(self, seconds: float = 200.0) -> int:
        """Its exit status, once it has ended."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            raise AssertionError(f"did not end:\n{self.text}") from None
        self._reader.join(10)
        return status


def offspring(process_id: int) -> list[int]:
    """The children of a process, and theirs."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found, todo = [], [process_id]
    while todo:
        found += (new := children.get(todo.pop(), []))
        todo += new
    return found


def on_cluster(address: str, folder: Path, *options: str) -> list[str]:
    """Options for a sweep over a cluster."""
    cache = ["--node-cache", str(folder / "cache")]
    return ["--executor", "ray", "--ray-address", address, *cache, *options]


def outcome(folder: Path) -> dict[str, Any]:
    """What study and spool hold of each trial, without times and places."""
    study = optuna.load_study(study_name=NAME, storage=f"sqlite:///{folder / 'optuna.db'}")
    found: dict[str, Any] = {
        str(trial.number): {
            "params": trial.params,
            "state": trial.state.name,
            "value": trial.value,
            "reports": trial.intermediate_values,
            "metrics": {},
        }
        for trial in study.trials
    }
    for record in records(folder):
        if isinstance(record, EpochRecord):
            metrics = {
                name: value
                for name, value in record.metrics.items()
                if not re.search("system/|seconds|time|bytes|memory|per_second", name)
            }
            assert record.epoch not in found[str(record.number)]["metrics"], "reported twice"
            found[str(record.number)]["metrics"][record.epoch] = metrics
    return found


def records(folder: Path) -> list[Any]:
    return list(Spool(folder / ".sweeps" / "sweeps" / NAME / "spool", read_only=True).replay())


def tags(folder: Path) -> dict[int, dict[str, str]]:
    """Trial -> the tags that its run has at last."""
    found: dict[int, dict[str, str]] = {}
    for record in records(folder):
        if isinstance(record, TagsRecord):
            found.setdefault(record.number, {}).update(record.tags)
    return found


def nodes(folder: Path) -> dict[int, list[str]]:
    """Trial -> the nodes that it ran on, in turn."""
    found: dict[int, list[str]] = {}
    for record in records(folder):
        if isinstance(record, TrialStateRecord) and (name := record.tags.get("sweeps.node")):
            found.setdefault(record.number, []).append(name)
    return found
