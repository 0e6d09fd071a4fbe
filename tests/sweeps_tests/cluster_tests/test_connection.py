"""What the driver makes of what the bridge says, without a bridge."""

from __future__ import annotations

import importlib.util
import multiprocessing
from dataclasses import replace
from typing import Any

import pytest

from search_spaces.errors import InputError
from sweeps.cluster import connection as connection_module
from sweeps.cluster.connection import ClusterConnection
from sweeps.cluster.protocol import (
    ClusterOptions,
    Connected,
    Node,
    NodeFound,
    NodeLeaving,
    NodeLost,
    NodeReady,
    NodeRefused,
    UseData,
)
from sweeps.resources.gpus import Gpu
from sweeps.resources.machine import Machine

GIB = 2**30
GPU = Gpu("0", "NVIDIA L4", 24 * GIB)


@pytest.fixture
def bridge(monkeypatch):
    """Our end of the pipe, which a connection takes for its bridge's."""
    ours, theirs = multiprocessing.Pipe()

    def start(self: Any) -> None:
        self._pipe = theirs

    monkeypatch.setattr(ClusterConnection, "_start_bridge", start)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(connection_module, "CLOSE_SECONDS", 0.1)
    ours.send(Connected())
    yield ours
    ours.close()


def node(name: str, *gpus: Gpu) -> Node:
    return Node(name, Machine(4, 16 * GIB, gpus))


def test_a_node_that_is_refused_does_not_end_the_wait_for_others_that_are_being_opened(bridge):
    connection = ClusterConnection(ClusterOptions("127.0.0.1:1"))
    for message in (NodeFound("old"), NodeFound("good"), NodeRefused("old", "numpy 1 there")):
        bridge.send(message)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)

    original = connection.receive

    def receive(seconds: float = 0.0) -> Any:
        found = original(seconds)
        if any(isinstance(message, NodeRefused) for message in found):
            bridge.send(NodeReady(node("good")))
        return found

    connection.receive = receive  # type: ignore[method-assign]
    connection.await_nodes(20, say)
    assert list(connection.nodes) == ["good"]
    connection.close()


def test_where_no_node_is_left_that_could_be_taken_all_reasons_are_said(bridge):
    connection = ClusterConnection(ClusterOptions("127.0.0.1:1"))
    for message in (
        NodeFound("old"), NodeFound("gone"), NodeRefused("old", "numpy 1 there"),
        NodeLost("gone", "it has ended"),
    ):  # fmt: skip
        bridge.send(message)
    with pytest.raises(InputError, match=r"old: numpy 1 there; gone: it has ended"):
        connection.await_nodes(20)
    connection.close()


def test_a_node_that_was_lost_may_come_again_while_nodes_are_waited_for(bridge):
    connection = ClusterConnection(ClusterOptions("127.0.0.1:1"))
    for message in (NodeFound("a"), NodeLost("a", "it does not answer")):
        bridge.send(message)
    connection.receive(1)
    for message in (NodeFound("a.2"), NodeReady(node("a.2"))):
        bridge.send(message)
    connection.await_nodes(20)
    assert list(connection.nodes) == ["a.2"]
    connection.close()


def test_what_is_said_with_the_end_of_the_bridge_leaves_no_node_behind(bridge):
    connection = ClusterConnection(ClusterOptions("127.0.0.1:1"))
    for message in (NodeFound("a"), NodeReady(node("a")), NodeFound("b")):
        bridge.send(message)
    bridge.close()
    found = connection.receive(5)
    assert {m.name for m in found if isinstance(m, NodeLost)} == {"a", "b"}
    assert connection.nodes == {}
    connection.close()


def test_gpus_are_to_come_while_their_node_does_not_have_the_data(bridge, tiny_data):
    connection = ClusterConnection(ClusterOptions("127.0.0.1:1"))
    for name, gpus in (("a", (GPU, GPU)), ("b", ())):
        bridge.send(NodeFound(name))
        bridge.send(NodeReady(node(name, *gpus)))
    connection.await_nodes(5)
    assert connection.num_gpus_to_come == 0 and len(connection.nodes) == 2
    connection.use_data(UseData(tiny_data))
    assert connection.num_gpus_to_come == 2 and connection.nodes == {}
    bridge.send(NodeReady(replace(node("a", GPU, GPU), data=tiny_data.fingerprint)))
    connection.receive(5)
    assert connection.num_gpus_to_come == 0 and list(connection.nodes) == ["a"]
    connection.close()


def test_a_node_that_leaves_takes_no_more_jobs_and_is_lost_later(bridge, caplog):
    connection = ClusterConnection(ClusterOptions("127.0.0.1:1"))
    for message in (NodeFound("a"), NodeReady(node("a")), NodeLeaving("a")):
        bridge.send(message)
    connection.receive(1)
    assert connection.nodes == {}
    bridge.close()  # Its jobs are the driver's to start again, whatever happens to the bridge.
    assert NodeLost("a", "the connection to the cluster has ended") in connection.receive(1)
    assert "node a was lost" in caplog.text
    connection.close()
