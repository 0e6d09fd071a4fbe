"""Jobs of `cluster.py`: nodes must find this module, so start them with PYTHONPATH=benchmarks."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.prepared import PreparedData
from pipelines.training.reports import TrialReport
from pipelines.training.trial import Decision, TrialResult
from sweeps.cluster.bridge import Bridge
from sweeps.cluster.node_link import NodeLink
from sweeps.cluster.protocol import ClusterOptions, HostEvent, Node, NodeReady
from sweeps.executors.base import Event, Reported, Returned
from sweeps.resources.machine import Machine

METRICS = {
    "val_accuracy": 0.5,
    "val_loss": 0.5,
    "loss": 0.5,
    "accuracy": 0.5,
    "epoch_seconds": 1.0,
}


def reporting_job(num_reports: int, report: Any, slot: Any) -> str:
    """Reports at once, so many times, and waits for each answer."""
    del slot
    for number in range(num_reports):
        report(number)
    return "done"


@dataclass(frozen=True)
class SimulatedNodes(ClusterOptions):
    """Nodes that have a trial each and train nothing.

    Attributes:
        epoch_seconds: from a trial's start, or the answer to a report, to the next report.
        found: the file that takes what was measured.
    """

    num_nodes: int = 1
    num_reports: int = 2
    epoch_seconds: float = 0.0
    found: str = ""


def simulated_bridge_job(argument: tuple[Connection, SimulatedNodes], *_: object) -> None:
    """The process between driver and nodes, with nodes that are simulated in it."""
    pipe, options = argument
    _SimulatedBridge(pipe, options).run()


class _SimulatedBridge(Bridge):
    """Everything of a bridge but Ray: threads, long polls, numbers, the pipe to the driver."""

    options: SimulatedNodes

    def _connect(self) -> None:
        self._waits: list[float] = []
        self._began = time.process_time()

    def _look_for_nodes(self) -> None:
        for number in range(self.options.num_nodes):
            link = _SimulatedLink(self, f"{number:06x}", "node", 1, 0)
            link.host = _SimulatedHost(self.options, self._waits)
            threading.Thread(target=link.live, daemon=True).start()

    def _close(self) -> None:
        self.closing = True
        waits = self._waits or [0.0]
        found = {
            "p50": float(np.quantile(waits, 0.5)),
            "p99": float(np.quantile(waits, 0.99)),
            "most": max(waits),
            "processor_seconds": time.process_time() - self._began,
        }
        Path(self.options.found).write_text(json.dumps(found))


class _SimulatedLink(NodeLink):
    """A link whose calls go to a simulated node."""

    host: _SimulatedHost

    def _open(self) -> None:
        self._node = Node(self.name, Machine(1, 64 * 2**30))
        self._bridge.add(self)
        self._bridge.say(NodeReady(self._node))

    def _call(self, method: str, *arguments: Any) -> Any:
        return method, arguments

    def _get(self, reference: Any, seconds: float) -> Any:  # type: ignore[override]
        del seconds
        return getattr(self.host, reference[0])(*reference[1])

    def _kill(self) -> None:
        """There is nothing to end."""


class _SimulatedHost:
    """What of a node's actor a link calls; its one trial reports after so many seconds."""

    def __init__(self, options: SimulatedNodes, waits: list[float]) -> None:
        self._options, self._waits = options, waits
        self._changed = threading.Condition()
        self._unacknowledged: list[tuple[int, HostEvent]] = []
        self._number = self._step = self._life = 0
        self._job = ""
        self._due = self._reported = 0.0

    def find_data(self, data: PreparedData, digests: object) -> str:
        """It sees the driver's."""
        del digests
        return data.folder

    def start(self, job_id: str, life: int, *_: object) -> None:
        """A trial begins."""
        with self._changed:
            self._job, self._life, self._step = job_id, life, 0
            self._train()

    def answer(self, job_id: str, life: int, number: int, answer: object) -> None:
        """It goes on, or ends."""
        del job_id, life, number
        with self._changed:
            self._waits.append(time.monotonic() - self._reported)
            if answer is Decision.GO_ON and self._step < self._options.num_reports:
                self._train()
            else:
                self._happened(Returned(self._job, self._result()))

    def stop(self, *_: object) -> None:
        """It ends without a word."""
        self._due = 0.0

    def events(self, acknowledged: int, timeout_seconds: float) -> list[tuple[int, HostEvent]]:
        """As a node's actor: what has happened, once something has."""
        until = time.monotonic() + timeout_seconds
        with self._changed:
            self._unacknowledged = [e for e in self._unacknowledged if e[0] > acknowledged]
            while not self._unacknowledged and (now := time.monotonic()) < until:
                if self._due and now >= self._due:
                    self._report(now)
                else:
                    next_look = min(until, self._due) if self._due else until
                    self._changed.wait(next_look - now)
            return list(self._unacknowledged)

    def _train(self) -> None:
        self._due = time.monotonic() + self._options.epoch_seconds
        self._changed.notify_all()

    def _report(self, now: float) -> None:
        self._due, self._reported = 0.0, now
        self._step += 1
        self._happened(Reported(self._job, TrialReport(_number(self._job), self._step, METRICS)))

    def _happened(self, event: Event) -> None:
        self._number += 1
        self._unacknowledged.append((self._number, HostEvent(self._life, event)))
        self._changed.notify_all()

    def _result(self) -> TrialResult:
        return TrialResult(
            _number(self._job),
            0.5,
            1,
            self._step,
            {"val_accuracy": 0.5},
            10,
            0,
            0.1,
            "cpu",
            "epochs",
        )


def _number(job_id: str) -> int:
    return int(job_id.removeprefix("trial-"))
