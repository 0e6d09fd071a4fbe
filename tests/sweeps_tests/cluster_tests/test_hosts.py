"""Nodes that are hosts of their own: another network, no folder in common, a link that can be cut."""

from __future__ import annotations

import time
from pathlib import Path

import fake_jobs
import pytest
from cluster_sweeps import SWEEP, RunningSweep, nodes, on_cluster, outcome, tags
from network_namespaces import CAN_BE_MADE, HERE, hosts
from ray_cluster import ray_cluster

from pipelines.objectives import OBJECTIVES
from pipelines.training.trial import Decision, Schedule, TrialTask
from sweeps.cluster.connection import ClusterConnection
from sweeps.cluster.executor import ClusterExecutor
from sweeps.cluster.protocol import LEASE_SECONDS, ClusterOptions
from sweeps.executors.base import Raised, Returned, Slot
from sweeps.executors.processes import ProcessExecutor

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not CAN_BE_MADE, reason="network namespaces are root's to make"),
]
pytest.importorskip("ray")


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory):
    """A cluster with a token; its two nodes are hosts that do not see the driver's folder."""
    folder = tmp_path_factory.mktemp("driver")
    with hosts(2, folder) as made, ray_cluster(num_nodes=0, host=HERE, token=True) as cluster:
        places = {host.address: host for host in made}
        for host in made:
            cluster.add(place=host.place)
        yield cluster, places, folder


def start(two_hosts, name: str) -> tuple[RunningSweep, Path]:
    cluster, _, driver = two_hosts
    folder = driver / name
    folder.mkdir()
    sweep = RunningSweep(
        folder, *SWEEP, *on_cluster(cluster.address, folder),
        RAY_AUTH_TOKEN_PATH=str(cluster.folder / "token"),
    )  # fmt: skip
    return sweep, folder


def test_a_sweep_over_hosts_without_a_common_folder_equals_the_one_of_this_machine(
    local, two_hosts
):
    sweep, folder = start(two_hosts, "whole")
    assert sweep.end() == 0, sweep.text
    assert outcome(folder) == local
    assert len({name for names in nodes(folder).values() for name in names}) == 2
    assert not (folder / "cache").exists(), "each host has a cache of its own"


def test_a_file_that_takes_longer_than_a_lease_arrives_both_ways(
    two_hosts, tiny_data, tmp_path, monkeypatch
):
    cluster, places, _ = two_hosts
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(cluster.folder / "token"))
    task = TrialTask(
        number=0, space="mlp", params={}, data=tiny_data, schedule=Schedule(1), seed=0,
        objective=OBJECTIVES["val_accuracy"], folder=str(tmp_path),
    )  # fmt: skip
    connection = ClusterConnection(
        ClusterOptions(cluster.address, str(tmp_path / "cache"), "fake_jobs")
    )
    try:
        connection.await_nodes(60)
        executor = ClusterExecutor(ProcessExecutor("fake_jobs", tmp_path / "log"), connection)
        name = next(iter(connection.nodes))
        host = places[cluster.named(name).place.address]
        host.slow_down(8)  # 31 s for the file.
        for expected in (0, fake_jobs.HEAVY_BYTES):
            slot = Slot(0, 1, node=name)
            executor.start("a", fake_jobs.heavy_job, task, slot, str(tmp_path / "log"))
            deadline = time.monotonic() + 100
            while not isinstance(event := next(iter(executor.events(0.2)), None), Returned):
                assert time.monotonic() < deadline and not isinstance(event, Raised), event
                if event is not None:
                    print(f"{expected}: {event} after {time.monotonic() - deadline + 100:.0f} s")
                    executor.answer("a", Decision.GO_ON)
            assert event.value == expected
    finally:
        connection.close()
        host.slow_down(10_000)


def test_a_host_that_is_cut_off_ends_its_trial_before_it_goes_on_elsewhere(local, two_hosts):
    cluster, places, _ = two_hosts
    sweep, folder = start(two_hosts, "cut")
    sweep.said("trial 0 epoch 5/9")
    node = cluster.named(sweep.node_of("trial 0"))
    host = places[node.place.address]
    host.cut()
    try:
        node.await_end_of_trials(LEASE_SECONDS + 5)
        assert "was lost" not in sweep.text, "it has not gone on elsewhere yet"
        sweep.said("trial 0 .*was lost")
    finally:
        host.mend()
    assert sweep.end() == 0, sweep.text
    assert outcome(folder) == local
    found = tags(folder)[0]
    assert found["sweeps.num_moves"] == "1" and "sweeps.num_retries" not in found
    # Ray ends a raylet that it has taken for dead; one that it has not takes trials again.
    again, folder = start(two_hosts, "again")
    assert again.end() == 0, again.text
    assert outcome(folder) == local
