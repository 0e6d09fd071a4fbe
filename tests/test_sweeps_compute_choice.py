"""`auto` for precision and compilation is measured in a worker, while there is time for it."""

from __future__ import annotations

from search_spaces.registry import get_space
from sweeps import compute_choice
from sweeps.compute_choice import decide_compute
from sweeps.executors.base import Slot
from sweeps.settings import SweepSettings

SETTINGS = SweepSettings(
    space="mlp", precision="auto", num_trials=1, num_epochs=1, timeout_seconds=100.0
)


def decided(tiny_data):
    said = []
    found = decide_compute(SETTINGS, get_space("mlp"), tiny_data, Slot(0, 1), said.append)
    assert said == ["measuring 2 ways to compute: float32 jit off, mixed_bfloat16 jit off"]
    return found


def test_each_way_is_measured_and_a_way_without_auto_is_taken(tiny_data):
    found = decided(tiny_data)
    assert found.reason.startswith("measured: float32 jit off ")
    assert found.reason.count(" s a trial") == 2 and "not measured" not in found.reason
    assert found.settings.precision in ("float32", "mixed_bfloat16")
    assert found.settings.jit == "off"


def test_no_time_leaves_the_plain_way(tiny_data, monkeypatch):
    limits = []
    monkeypatch.setattr(compute_choice, "seconds_for", lambda seconds: limits.append(seconds) or 0)
    found = decided(tiny_data)
    assert found.reason.count("not measured") == 2
    assert found.settings.precision == "float32"
    assert limits == [100.0], "the sweep's own"
