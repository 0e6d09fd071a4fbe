"""An executor of a cluster: jobs whose slot names a node run there, all others on this machine."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from time import monotonic
from typing import Any

from pipelines.data.prepared import PreparedData
from pipelines.training.cost import MeasureTask
from pipelines.training.trial import TrialTask
from sweeps.cluster.connection import ClusterConnection
from sweeps.cluster.protocol import AnswerJob, JobEvent, NodeLost, StartJob, StopJob
from sweeps.executors.base import LOST, Event, Job, Raised, Reported, Slot
from sweeps.executors.processes import ProcessExecutor


class ClusterExecutor:
    """Runs each job in a process of its own, on the node of its slot.

    Figures are drawn, and custom spaces and oracles asked, on this machine.

    Args:
        local: runs the jobs whose slot names no node.
    """

    def __init__(self, local: ProcessExecutor, cluster: ClusterConnection) -> None:
        self._local, self._cluster = local, cluster
        self._running: dict[str, tuple[str, int]] = {}
        self._life = 0
        self._pending: list[Event] = []

    def start(self, job_id: str, job: Job, argument: Any, slot: Slot, log_path: str) -> None:
        """Starts a job.

        Raises:
            ValueError: A job of that id is running.
        """
        if not slot.node:
            self._local.start(job_id, job, argument, slot, log_path)
            return
        if job_id in self._running:
            raise ValueError(f"A job's id must be unique among running jobs. Received: {job_id!r}.")
        self._life += 1
        self._running[job_id] = (slot.node, self._life)
        if slot.node not in self._cluster.nodes:
            self._pending.append(self._ended(job_id, f"node {slot.node} is gone"))
            return
        self._cluster.send(_start_command(job_id, self._life, job, argument, slot, log_path))

    def events(self, timeout_seconds: float) -> list[Event]:
        """What has happened; waits at most so long for the first event."""
        deadline = monotonic() + timeout_seconds
        while True:
            found, self._pending = self._pending, []
            channels = [*self._cluster.channels, *self._local.channels]
            connection.wait(channels, 0 if found else max(0.0, deadline - monotonic()))
            found += self._from_cluster()
            if self._local.channels:
                found += self._local.events(0)
            if found or monotonic() >= deadline:
                return found

    def _from_cluster(self) -> list[Event]:
        found: list[Event] = []
        for message in self._cluster.receive():
            if isinstance(message, NodeLost):
                reason = f"node {message.name} was lost: {message.reason}"
                jobs = [job for job, (node, _) in self._running.items() if node == message.name]
                found += [self._ended(job_id, reason) for job_id in jobs]
            elif isinstance(message, JobEvent):
                event = message.event
                if self._running.get(event.job_id) != (message.node, message.life):
                    continue  # Of an earlier life.
                if not isinstance(event, Reported):
                    del self._running[event.job_id]
                found.append(event)
        return found

    def _ended(self, job_id: str, reason: str) -> Raised:
        """The end of a job whose node is gone."""
        del self._running[job_id]
        return Raised(job_id, LOST, reason, "")

    def answer(self, job_id: str, answer: Any) -> None:
        """Sends the answer to a job's latest report."""
        if job_id in self._running:
            self._cluster.send(AnswerJob(*self._place(job_id), answer))
        elif job_id in self._local.job_ids:
            self._local.answer(job_id, answer)

    def _place(self, job_id: str) -> tuple[str, str, int]:
        node, life = self._running[job_id]
        return node, job_id, life

    def process_id(self, job_id: str) -> int | None:
        """The process of a running job on this machine; None for one elsewhere."""
        return self._local.process_id(job_id)

    def stop(self, job_id: str) -> None:
        """Ends a job at once; no event follows."""
        if job_id in self._running:
            self._cluster.send(StopJob(*self._place(job_id)))
            del self._running[job_id]
            return
        self._pending = [event for event in self._pending if event.job_id != job_id]
        if job_id in self._local.job_ids:
            self._local.stop(job_id)

    def keep_warm(self, slots: Sequence[Slot]) -> None:
        """Nothing waits warm on a node."""

    def close(self) -> None:
        """Ends all jobs, and the connection to the cluster."""
        self._cluster.close()
        self._local.close()


def _start_command(
    job_id: str, life: int, job: Job, argument: Any, slot: Slot, log_path: str
) -> StartJob:
    """What a node needs for a job, with whole paths: it has another working folder."""
    data = getattr(argument, "data", None)
    if isinstance(data, PreparedData):
        data = replace(data, folder=str(Path(data.folder).absolute()))
        argument = replace(argument, data=data)
    command = StartJob(
        slot.node, job_id, life, pickle.dumps((job, argument, slot)), log_path=log_path,
        data=data if isinstance(data, PreparedData) else None,
    )  # fmt: skip
    if isinstance(argument, TrialTask | MeasureTask):
        command = replace(command, space=argument.space, sources=argument.sources)
    if isinstance(argument, TrialTask):
        command = replace(command, folder=argument.folder)
    return command
