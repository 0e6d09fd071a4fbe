"""The executor of a cluster keeps the contract of executors, over real raylets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import executor_contract
import fake_jobs
import pytest

from sweeps.cluster.connection import ClusterConnection
from sweeps.cluster.executor import ClusterExecutor
from sweeps.cluster.protocol import ClusterOptions
from sweeps.executors.base import Raised, Returned, Slot
from sweeps.executors.processes import ProcessExecutor

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]
pytest.importorskip("ray")


class OnNodes(ClusterExecutor):
    """Every job on the nodes in turn, whatever its slot says."""

    num_started = 0

    def start(self, job_id: str, job: Any, argument: Any, slot: Slot, log_path: str) -> None:
        names = sorted(self._cluster.nodes)
        self.num_started += 1
        there = replace(slot, node=names[self.num_started % len(names)])
        super().start(job_id, job, argument, there, log_path)


@pytest.fixture(scope="module")
def connected(shared_cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    options = ClusterOptions(
        shared_cluster.address, str(folder / "cache"), "fake_jobs", sees_our_files=False
    )
    connection = ClusterConnection(options)
    connection.await_nodes(60)
    made = OnNodes(ProcessExecutor("fake_jobs", folder / "server.log"), connection)
    yield made
    made.close()


@pytest.fixture
def executor(connected):
    yield connected
    for job_id in list(connected._running):
        connected.stop(job_id)


class TestCluster(executor_contract.ExecutorContract):
    is_local = False


@pytest.mark.parametrize(
    ("how", "reason", "killed_by"),
    [("SIGKILL", "killed by signal SIGKILL", "SIGKILL"), ("exit", "last words", "")],
)
def test_a_process_that_dies_on_a_node_is_told_with_its_last_words(
    executor, tmp_path, how, reason, killed_by
):
    executor.start("a", fake_jobs.dying_job, how, Slot(0, 1), str(tmp_path / "log"))
    event = executor_contract.ExecutorContract.wait(executor)
    assert isinstance(event, Raised) and event.died and event.signal == killed_by
    assert reason in event.reason
    if how == "exit":
        assert "last words" in (tmp_path / "log").read_text(), "which the driver keeps"
    executor.start("b", fake_jobs.sleeping_job, 0.0, Slot(0, 1), str(tmp_path / "log"))
    assert executor_contract.ExecutorContract.wait(executor) == Returned("b", "slept")
