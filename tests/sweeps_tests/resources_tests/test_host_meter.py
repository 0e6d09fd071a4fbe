"""CPU and memory of this very process, and of one that does not exist."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from sweeps.resources.host_meter import HostMeter

SHARE, MEMORY = "system/cpu_utilization_percentage", "system/memory_usage_megabytes"


def test_a_process_has_its_memory_at_once_and_its_share_of_a_core_from_then_on():
    meter = HostMeter()
    first = meter.process(os.getpid())
    assert list(first) == [MEMORY] and 10 < first[MEMORY] < 100_000
    begun = time.process_time()
    while time.process_time() < begun + 0.1:  # A kernel counts in hundredths of a second.
        pass
    assert meter.process(os.getpid())[SHARE] > 0


def test_the_machine_has_both():
    found = HostMeter().machine()
    assert set(found) == {
        SHARE, "system/system_memory_usage_megabytes", "system/system_memory_usage_percentage",
    }  # fmt: skip
    assert all(value >= 0 for value in found.values())
    assert found["system/system_memory_usage_percentage"] <= 100


def test_a_process_that_ended_has_none_and_is_forgotten():
    meter = HostMeter()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert MEMORY in meter.process(child.pid)
        child.communicate(b"\n")
    meter.machine()
    assert meter.process(child.pid) == {} and not meter._processes
    assert meter.process(2**62) == {}
