"""What the process between driver and nodes owes to both, without Ray."""

from __future__ import annotations

import time
from multiprocessing import Pipe
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.cluster.bridge import Outbox
from sweeps.cluster.node_link import NodeLink
from sweeps.cluster.protocol import (
    ClusterOptions,
    NodeLeaving,
    NodeLost,
    NodeRefused,
    longest_lease,
)


def test_who_keeps_leases_does_not_wait_for_a_driver_that_does_not_read():
    driver, bridge = Pipe()
    outbox = Outbox(bridge)
    messages = [NodeRefused(str(number), "x" * 1000) for number in range(2000)]
    for message in messages:  # Ten times what a pipe holds.
        outbox.put(message)
    assert [driver.recv() for _ in messages] == messages
    outbox.close()


def test_a_driver_that_is_gone_is_told_nothing():
    driver, bridge = Pipe()
    outbox = Outbox(bridge)
    driver.close()
    for number in range(3):
        outbox.put(NodeRefused(str(number), ""))
    outbox.close()
    assert not outbox._thread.is_alive()


NODE_DIED = (
    "The actor died because its node has died. Node Id: 1 \n\tthe actor's node was terminated "
)
UNREACHED = NODE_DIED + "unexpectedly: health check failed due to missing too many heartbeats"


@pytest.mark.ray
@pytest.mark.parametrize(
    ("text", "reason", "waits"),
    [
        (UNREACHED, "it has ended", True),
        (NODE_DIED + "expectedly: received SIGTERM", "it was shut down", False),
        ("The actor died unexpectedly. Worker exit type: SYSTEM_ERROR", "it has ended", False),
    ],
)
def test_a_node_that_the_head_gives_up_is_lost_once_its_lease_has_ended(text, reason, waits):
    exceptions = pytest.importorskip("ray.exceptions")
    options = ClusterOptions("127.0.0.1:1", lease_seconds=0.4)
    said: list[Any] = []
    bridge: Any = SimpleNamespace(
        options=options, closing=False, remove=lambda link: None, forget=lambda node_id: None,
        say=lambda message: said.append((message, time.monotonic())),
    )  # fmt: skip
    link = NodeLink(bridge, "1", "a", 1, 0)
    link._has_lease, heard = True, link._heard
    link._lost(exceptions.RayActorError(error_msg=text))
    *before, (message, at) = said
    assert message == NodeLost("a", reason)
    assert [message for message, _ in before] == ([NodeLeaving("a")] if waits else [])
    assert (at - heard >= longest_lease(0.4)) is waits
    assert all(then - heard < 0.3 for _, then in before), "it takes no more jobs at once"
