"""What the process between driver and nodes owes to both, without Ray."""

from __future__ import annotations

from multiprocessing import Pipe

from sweeps.cluster.bridge import Outbox
from sweeps.cluster.protocol import NodeRefused


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
