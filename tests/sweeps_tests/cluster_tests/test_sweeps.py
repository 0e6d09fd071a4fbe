"""Sweeps over two nodes have the numbers of this machine, also where nodes and drivers are killed."""

from __future__ import annotations

import signal
import time

import pytest
from cluster_sweeps import SWEEP, RunningSweep, nodes, on_cluster, outcome, records
from ray_cluster import RayCluster, RayNode, ray_cluster

from tracking.spool.records import TagsRecord

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
pytest.importorskip("ray")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """What the sweep is on this machine."""
    folder = tmp_path_factory.mktemp("local")
    sweep = RunningSweep(folder, *SWEEP)
    assert sweep.end() == 0, sweep.text
    return outcome(folder)


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster(num_nodes=2) as made:
        yield made


def node_named(cluster: RayCluster, name: str) -> RayNode:
    """The node that a sweep calls so."""
    return next(node for node in cluster.nodes if name.endswith(f"-{node.identity}"))


@pytest.fixture
def two_nodes(cluster):
    """A cluster that has two nodes with a core."""
    for _ in range(2 - len(cluster.workers)):
        cluster.add()
    return cluster


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_a_sweep_that_loses_a_node_equals_the_one_of_this_machine(local, two_nodes, tmp_path, how):
    sweep = RunningSweep(tmp_path, *SWEEP, *on_cluster(two_nodes.address, tmp_path))
    sweep.said("trial 0 continues after epoch 3")
    sweep.said("trial 0 epoch 5/9")
    lost = node_named(two_nodes, sweep.node_of("trial 0"))
    lost.send(getattr(signal, how))
    sweep.said("trial 0 .*was lost")
    assert sweep.end() == 0, sweep.text
    assert outcome(tmp_path) == local
    first, second, third = nodes(tmp_path)[0]
    assert first != second, "it waited on one and went on on another"
    assert second != third, "which was lost, and it went on elsewhere"
    tags = next(r.tags for r in records(tmp_path) if isinstance(r, TagsRecord) and r.number == 0)
    assert tags["sweeps.num_moves"] == "1" and float(tags["sweeps.lost_seconds"]) > 0
    assert "sweeps.num_retries" not in tags, "which is no failure of the trial"
    lost.end()


def test_a_driver_that_is_killed_leaves_no_trial_and_its_sweep_goes_on(local, two_nodes, tmp_path):
    sweep = RunningSweep(tmp_path, *SWEEP, *on_cluster(two_nodes.address, tmp_path))
    sweep.said("trial 1 epoch 1/9")
    sweep.process.send_signal(signal.SIGKILL)
    sweep.end()
    deadline = time.monotonic() + 30
    while any(node.trial_processes() for node in two_nodes.workers):
        assert time.monotonic() < deadline, "its trials live on"
        time.sleep(0.2)
    again = RunningSweep(tmp_path, "--resume")
    assert again.end() == 0, again.text
    assert outcome(tmp_path) == local


def test_without_nodes_a_sweep_waits_and_can_be_resumed_where_there_are(local, tmp_path):
    with ray_cluster(num_nodes=1) as cluster:
        sweep = RunningSweep(
            tmp_path, *SWEEP, *on_cluster(cluster.address, tmp_path, "--node-wait", "20s")
        )
        sweep.said("trial 1 epoch 1/9")
        cluster.nodes[1].end()
        assert sweep.end() == 130, sweep.text
        assert "no node of the cluster is left; it can be resumed" in sweep.text
        cluster.add()
        again = RunningSweep(tmp_path, "--resume")
        again.said("trial 1 continues after epoch")
        assert again.end() == 0, again.text
    assert outcome(tmp_path) == local


@pytest.mark.timeout(600)
def test_the_head_of_the_cluster_may_be_lost(local, tmp_path):
    with ray_cluster(num_nodes=1) as cluster:
        sweep = RunningSweep(
            tmp_path, *SWEEP, *on_cluster(cluster.address, tmp_path, "--node-wait", "5s"),
            "--epochs", "400", "--trials", "3",
        )  # fmt: skip
        sweep.said("trial 0 epoch 1/400")
        cluster.head.end()
        assert sweep.end(300) == 130, sweep.text
        assert "no node of the cluster is left; it can be resumed" in sweep.text
    assert any(trial["reports"] for trial in outcome(tmp_path).values())
