"""What is cut off, frozen, killed or short of memory on a cluster, seen by who waits for a job."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_jobs
import pytest
from ray_cluster import ray_cluster

from sweeps.cluster.connection import BRIDGE, ClusterConnection
from sweeps.cluster.executor import ClusterExecutor
from sweeps.cluster.protocol import ClusterOptions, NodeRefused, UseData
from sweeps.executors.base import Event, Raised, Reported, Returned, Slot
from sweeps.executors.processes import ProcessExecutor

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster(num_nodes=1) as made:
        yield made


@contextlib.contextmanager
def connected(cluster: Any, folder: Path, **options: Any) -> Iterator[ClusterExecutor]:
    chosen = ClusterOptions(
        cluster.address, str(folder / "cache"), "fake_jobs", sees_our_files=False, **options
    )
    connection = ClusterConnection(chosen)
    try:
        connection.await_nodes(60)
        executor = ClusterExecutor(ProcessExecutor("fake_jobs", folder / "log"), connection)
        yield executor
    finally:
        connection.close()


def event_of(executor: ClusterExecutor, seconds: float = 60.0) -> Event:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for event in executor.events(0.2):
            return event
    raise AssertionError(f"no event within {seconds:g} s")


def name_of_a_node(executor: ClusterExecutor, seconds: float = 60.0) -> str:
    """A node that takes jobs; waits for one."""
    deadline = time.monotonic() + seconds
    while not executor._cluster.nodes:
        assert time.monotonic() < deadline, "no node came (again)"
        executor.events(0.2)
    return next(iter(executor._cluster.nodes))


def start(executor: ClusterExecutor, job: Any, argument: Any, folder: Path) -> None:
    slot = Slot(0, 1, node=name_of_a_node(executor))
    executor.start("a", job, argument, slot, str(folder / "log"))


def works(executor: ClusterExecutor, folder: Path) -> bool:
    start(executor, fake_jobs.sleeping_job, 0.0, folder)
    return event_of(executor) == Returned("a", "slept")


def test_a_node_that_nobody_asks_ends_its_jobs_before_they_start_elsewhere(cluster, tmp_path):
    with connected(cluster, tmp_path, lease_seconds=2, lost_seconds=5) as executor:
        start(executor, fake_jobs.sleeping_job, 300.0, tmp_path)
        time.sleep(1)
        bridge = executor._cluster._processes.process_id(BRIDGE)
        assert bridge is not None and cluster.workers[0].trial_processes()
        os.kill(bridge, signal.SIGSTOP)  # As if the link between them were down.
        cluster.workers[0].await_end_of_trials()
        os.kill(bridge, signal.SIGCONT)
        event = event_of(executor)
        assert isinstance(event, Raised) and event.lost
        assert works(executor, tmp_path), "the node came again"


def test_a_frozen_node_is_lost_and_ends_its_jobs_when_it_thaws(cluster, tmp_path):
    node = cluster.workers[0]
    with connected(cluster, tmp_path, lease_seconds=2, lost_seconds=4) as executor:
        start(executor, fake_jobs.sleeping_job, 300.0, tmp_path)
        time.sleep(1)
        node.freeze()
        event = event_of(executor)
        assert isinstance(event, Raised) and event.lost and "does not answer" in event.reason
        node.thaw()
        node.await_end_of_trials()
        assert works(executor, tmp_path)


def test_a_raylet_that_is_frozen_for_a_while_harms_nothing(cluster, tmp_path):
    with connected(cluster, tmp_path) as executor:
        start(executor, fake_jobs.echo_job, 1, tmp_path)
        assert event_of(executor) == Reported("a", 1)
        cluster.workers[0].send(signal.SIGSTOP)
        executor.answer("a", 2)
        assert isinstance(event_of(executor), Returned)
        cluster.workers[0].send(signal.SIGCONT)


def test_a_lost_bridge_costs_the_jobs_of_its_nodes_only(cluster, tmp_path):
    with connected(cluster, tmp_path) as executor:
        executor.start("here", fake_jobs.echo_job, 1, Slot(0, 1), str(tmp_path / "here"))
        assert event_of(executor) == Reported("here", 1)
        start(executor, fake_jobs.sleeping_job, 300.0, tmp_path)
        bridge = executor._cluster._processes.process_id(BRIDGE)
        assert bridge is not None
        os.kill(bridge, signal.SIGKILL)
        event = event_of(executor)
        assert isinstance(event, Raised) and event.lost and event.job_id == "a"
        executor.answer("here", 2)
        assert isinstance(event_of(executor), Returned)
        assert works(executor, tmp_path), "it connects again"


def test_a_lost_node_harms_no_neighbour(cluster, tmp_path):
    cluster.add()
    with connected(cluster, tmp_path) as executor:
        deadline = time.monotonic() + 60
        while len(executor._cluster.nodes) < 2:
            assert time.monotonic() < deadline, "the other node did not come"
            executor.events(0.2)
        for name in executor._cluster.nodes:
            executor.start(name, fake_jobs.echo_job, 1, Slot(0, 1, node=name), str(tmp_path / name))
        assert {type(event_of(executor)) for _ in range(2)} == {Reported}
        lost, neighbour = sorted(executor._cluster.nodes)
        cluster.named(lost).end()
        event = event_of(executor)
        assert isinstance(event, Raised) and event.lost and event.job_id == lost
        executor.answer(neighbour, 2)
        assert event_of(executor) == Returned(neighbour, (1, 2, Slot(0, 1)))


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is root's to mount")
def test_a_node_whose_disk_is_full_is_refused_by_name(cluster, tiny_data, tmp_path):
    small = tmp_path / "cache"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12k", "none", small], check=True)
    try:
        with connected(cluster, tmp_path) as executor:
            name = name_of_a_node(executor)
            executor._cluster.use_data(UseData(tiny_data))
            found: list[Any] = []
            deadline = time.monotonic() + 60
            while not found and time.monotonic() < deadline:
                found = [m for m in executor._cluster.receive(0.2) if isinstance(m, NodeRefused)]
            assert found[0].name == name and "No space left on device" in found[0].reason
            assert not executor._cluster.nodes
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def test_where_memory_runs_short_the_largest_job_ends_and_is_told_why(cluster, tmp_path):
    with connected(cluster, tmp_path, memory_limit=0.001) as executor:
        start(executor, fake_jobs.sleeping_job, 300.0, tmp_path)
        event = event_of(executor)
        assert isinstance(event, Raised) and event.died and event.memory_ran_out
    with connected(cluster, tmp_path) as executor:
        assert works(executor, tmp_path), "the node lives"


def test_what_a_job_leaves_comes_with_its_reports(cluster, tmp_path, tiny_task):
    with connected(cluster, tmp_path) as executor:
        start(executor, fake_jobs.recorded_job, tiny_task, tmp_path)
        for _ in range(2):
            assert isinstance(event_of(executor), Reported)
            reported = (Path(tiny_task.folder) / "checkpoint.npz").read_text()
            executor.answer("a", fake_jobs.Decision.GO_ON)
        assert reported == "xx", "written before the report was told"
        name = name_of_a_node(executor)
        cluster.workers[0].end()
        event = event_of(executor)
        while isinstance(event, Reported):
            event = event_of(executor)
        assert isinstance(event, Raised) and event.lost and name in event.reason
        cluster.add()
        start(executor, fake_jobs.recorded_job, tiny_task, tmp_path)
        steps = []
        while isinstance(event := event_of(executor), Reported):
            steps.append(event.message.step)
            executor.answer("a", fake_jobs.Decision.GO_ON)
        assert steps[0] >= 2 and steps[-1] == 3, "it went on from its last report"
        assert isinstance(event, Returned)
        cached = list((tmp_path / "cache" / "data").glob("*/x_train.npy"))
        assert len(cached) == 1, "the data came to the node once"


@pytest.fixture
def tiny_task(tiny_data, tmp_path):
    from pipelines.objectives import OBJECTIVES
    from pipelines.training.trial import Schedule, TrialTask

    folder = tmp_path / "trial"
    folder.mkdir()
    return TrialTask(
        number=0, space="mlp", params={}, data=tiny_data, schedule=Schedule(3), seed=1,
        objective=OBJECTIVES["val_accuracy"], folder=str(folder),
    )  # fmt: skip
