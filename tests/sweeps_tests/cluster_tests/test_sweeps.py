"""Sweeps over two nodes have the numbers of this machine, also where nodes and drivers are killed."""

from __future__ import annotations

import os
import signal
import time

import pytest
from cluster_sweeps import SWEEP, RunningSweep, nodes, on_cluster, outcome, tags
from ray_cluster import ray_cluster

from sweeps.cluster.protocol import LEASE_SECONDS

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
pytest.importorskip("ray")


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGSTOP"])
def test_a_sweep_that_loses_a_node_equals_the_one_of_this_machine(local, two_nodes, tmp_path, how):
    sweep = RunningSweep(tmp_path, *SWEEP, *on_cluster(two_nodes.address, tmp_path))
    sweep.said("trial 0 continues after epoch 3")
    sweep.said("trial 0 epoch 5/9")
    lost = two_nodes.named(sweep.node_of("trial 0"))
    if how == "SIGSTOP":
        lost.freeze()
    else:
        lost.send(getattr(signal, how))
    sweep.said("trial 0 .*was lost")
    assert sweep.end() == 0, sweep.text
    if how == "SIGSTOP":
        lost.thaw()
        lost.await_end_of_trials()
    assert outcome(tmp_path) == local
    first, second, third = nodes(tmp_path)[0]
    assert first != second, "it waited on one and went on on another"
    assert second != third, "which was lost, and it went on elsewhere"
    found = tags(tmp_path)[0]
    assert found["sweeps.num_moves"] == "1" and float(found["sweeps.lost_seconds"]) > 0
    assert "sweeps.num_retries" not in found, "which is no failure of the trial"
    lost.end()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 130)], ids=["killed", "preempted"]
)
def test_a_driver_that_ends_leaves_no_trial_and_its_sweep_goes_on(
    local, two_nodes, tmp_path, number, status
):
    sweep = RunningSweep(tmp_path, *SWEEP, *on_cluster(two_nodes.address, tmp_path))
    sweep.said("trial 1 epoch 1/9")
    sweep.process.send_signal(number)
    assert sweep.end() == status, sweep.text
    for node in two_nodes.workers:
        node.await_end_of_trials()
    again = RunningSweep(tmp_path, "--resume")
    assert again.end() == 0, again.text
    assert outcome(tmp_path) == local


def test_a_driver_that_is_stopped_alone_makes_its_trials_wait(local, two_nodes, tmp_path):
    """The process between it and the nodes keeps their leases."""
    sweep = RunningSweep(tmp_path, *SWEEP, *on_cluster(two_nodes.address, tmp_path))
    sweep.said("trial 1 epoch 1/9")
    sweep.process.send_signal(signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + 5)
    sweep.process.send_signal(signal.SIGCONT)
    assert sweep.end() == 0, sweep.text
    assert outcome(tmp_path) == local
    assert "was lost" not in sweep.text


def test_a_driver_that_is_stopped_until_its_nodes_have_given_it_up_loses_nothing(
    local, two_nodes, tmp_path
):
    """As Ctrl-Z stops it, or a frozen container: with all that it has started."""
    sweep = RunningSweep(tmp_path, *SWEEP, *on_cluster(two_nodes.address, tmp_path))
    sweep.said("trial 1 epoch 1/9")
    stopped = sweep.processes()
    for process in stopped:
        os.kill(process, signal.SIGSTOP)
    for node in two_nodes.workers:
        node.await_end_of_trials(LEASE_SECONDS + 20)
    for process in reversed(stopped):
        os.kill(process, signal.SIGCONT)
    sweep.said("node .* was lost")
    assert sweep.end() == 0, sweep.text
    assert outcome(tmp_path) == local
    assert not any("sweeps.num_retries" in found for found in tags(tmp_path).values())


def test_a_sweep_waits_for_its_first_node_and_is_refused_where_none_comes(local, tmp_path):
    with ray_cluster(num_nodes=0) as cluster:
        refused = RunningSweep(
            tmp_path, *SWEEP, *on_cluster(cluster.address, tmp_path, "--node-wait", "3s")
        )
        assert refused.end() == 2, refused.text
        assert refused.lines[-1].startswith("error: No node of the Ray cluster at")
        assert not list(tmp_path.iterdir())
        sweep = RunningSweep(tmp_path, *SWEEP, *on_cluster(cluster.address, tmp_path))
        sweep.said("opening its nodes")
        cluster.add()
        assert sweep.end() == 0, sweep.text
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


@pytest.mark.timeout(900)
def test_the_head_of_the_cluster_may_be_lost_and_the_sweep_goes_on_on_another(tmp_path):
    # A minute of training: what is left must outlast the loss, and both sweeps their patience.
    longer = [*SWEEP, "--epochs", "100", "--trials", "2"]
    with ray_cluster(num_nodes=1) as cluster:
        sweep = RunningSweep(
            tmp_path, *longer, *on_cluster(cluster.address, tmp_path, "--node-wait", "5s")
        )
        sweep.said("trial 0 epoch 1/100")
        cluster.head.end()
        assert sweep.end(300) == 130, sweep.text
        assert "no node of the cluster is left; it can be resumed" in sweep.text
    assert any(trial["reports"] for trial in outcome(tmp_path).values())
    with ray_cluster(num_nodes=1) as another:
        again = RunningSweep(tmp_path, "--resume", "--ray-address", another.address)
        again.said("trial 0 continues after epoch")
        assert again.end() == 0, again.text
    (tmp_path / "local").mkdir()
    local = RunningSweep(tmp_path / "local", *longer)
    assert local.end() == 0, local.text
    assert outcome(tmp_path) == outcome(tmp_path / "local")
